"""Run a plan on a CUDA device: launches in order on one stream, over one arena of the device's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.compiled import CompiledExecutor, Variables
from refnet.errors import DeviceError
from refnet.plan import Plan, Step, assign_slots
from refnet_kernels.catalog import select
from refnet_kernels.contract import BINARY32, ConvGeometry, Float32Array, FloatArray
from refnet_kernels.conv.cuda import pack, tap_table
from refnet_kernels.forks import Lock
from refnet_kernels.gpu.device import Memory, open_device, pack_channels
from refnet_kernels.gpu.launch import CudaLaunch


class CudaExecutor(CompiledExecutor):
    """The plan as one program of CUDA kernels.

    Weights and images go to the device, the outputs come back; all between them stays there.

    Raises
    ------
    DeviceError
        The device's memory is too small.
    """

    def __init__(self, plan: Plan, variables: Variables, index: int, packed: dict[Any, Any]) -> None:
        super().__init__(plan, variables, packed, BINARY32)
        self._device = open_device(index)
        sizes = {value: 4 * int(np.prod(shape)) for value, shape in plan.shapes.items()}
        self._offsets, total = assign_slots(plan, sizes)
        self._check_memory(total)
        try:
            self._arena = self._device.allocate(total)
            self._start = self._arena.address
            launches = [launch for step in plan.steps for launch in self._launches(step)]
        except (MemoryError, OverflowError) as error:
            raise self._too_large(total, str(error)) from error
        self._program = self._device.program(launches)
        self._lock = Lock()

    def run(self, images: Float32Array) -> list[Float32Array]:
        """The plan's outputs. One caller at a time; others wait."""
        with self._lock.held():
            self._arena.upload(images, self._offsets[self.plan.input])
            self._program.run()
            outputs = []
            for index in self.plan.outputs:
                outputs.append(np.empty(self.plan.shapes[index], np.float32))
                self._arena.download(outputs[-1], self._offsets[self.plan.aliases.get(index, index)])
            return outputs

    def profile(self) -> list[float]:
        """Run once more on the images that are there; the milliseconds of each launch."""
        with self._lock.held():
            return self._program.profile()

    def _check_memory(self, total: int) -> None:
        free = self._device.free_bytes()
        if total > free:
            batch = self.plan.shapes[self.plan.input][0]
            fits = int(batch * free // total)
            raise self._too_large(total, f"{free / 2**30:.2f} GiB are free, enough for a batch of {fits}")

    def _too_large(self, total: int, reason: str) -> DeviceError:
        shape = self.plan.shapes[self.plan.input]
        return DeviceError(
            f"Images of shape {shape} need {total / 2**30:.2f} GiB of the CUDA device for the values between the "
            f"layers, beside the weights, and there is not so much: {reason}. The bits do not depend on the batch."
        )

    def _launch(self, op: str, *arguments: Any) -> CudaLaunch:
        where = (self._device.processors,) if op == "conv" else ()
        launch: CudaLaunch = select(op, "cuda").launch(*arguments, *where)
        return launch

    def _conv_operands(self, step: Step) -> tuple[ConvGeometry, dict[str, int]]:
        g, name = step.geometry, step.variables["weights"]
        kernel = self._variables[name]
        key = ("taps", g.width, g.channels, g.kernel_height, g.kernel_width, g.rate)
        taps = self._constant(key, lambda: tap_table(g))
        weights = self._constant(name, lambda: pack(kernel))
        self._let_go(name)
        return g, {"weights": weights, "taps": taps}

    def _pack_channels(self, values: FloatArray) -> FloatArray:
        return pack_channels(values)

    def _store(self, values: np.ndarray) -> Memory:
        memory = self._device.allocate(values.nbytes)
        memory.upload(values)
        return memory

    def _locate(self, stored: Memory) -> int:
        return stored.address

    def _scratch(self, channels: int) -> int:
        self._kept.append(self._device.allocate(4 * channels + 16))
        return self._locate(self._kept[-1])
