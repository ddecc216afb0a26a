"""Run a plan on a CUDA device: launches in order on one stream, over one arena of the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refnet.errors import DeviceError
from refnet.executors import norm_of
from refnet.plan import NormNames, Plan, Step, assign_slots
from refnet_kernels.catalog import select
from refnet_kernels.contract import BINARY32, Float32Array, Norm
from refnet_kernels.conv.cuda import pack, tap_table
from refnet_kernels.forks import Lock
from refnet_kernels.gpu.device import Memory, open_device, pack_channels
from refnet_kernels.gpu.launch import CudaLaunch


class CudaExecutor:
    """The plan as one program of CUDA kernels.

    Weights and images go to the device, the outputs come back; all between them stays there.

    Parameters
    ----------
    plan : Plan
    variables : mapping of str to array
    index : int
        Of the device.
    packed : dict
        Where what lies on the device is kept, to be shared by all plans of an engine. Where ``variables`` is a plain
        dict, it belongs to the engine, and kernels leave it once they are on the device.

    Attributes
    ----------
    plan : Plan

    Raises
    ------
    DeviceError
        The device's memory is too small.
    """

    def __init__(self, plan: Plan, variables: Mapping[str, Any], index: int, packed: dict[Any, Any]) -> None:
        self.plan = plan
        self._variables = variables
        self._packed = packed
        self._device = open_device(index)
        self._kept: list[Memory] = []
        sizes = {value: 4 * int(np.prod(shape)) for value, shape in plan.shapes.items()}
        self._offsets, total = assign_slots(plan, sizes)
        self._check_memory(total)
        try:
            self._arena = self._device.allocate(total)
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

    def _launches(self, step: Step) -> list[CudaLaunch]:
        """The launches of a step; their operands' addresses stay valid as long as this object lives."""
        addresses = {"x": self._address(step.inputs[0]), "out": self._address(step.out)}
        if step.next_norm is not None:
            addresses |= self._norm(step.next_norm, "next_") | {"preact": self._address(step.preact)}
        *pixels, channels = self.plan.shapes[step.inputs[0]]
        count = int(np.prod(pixels))
        if step.op == "batch_norm_training":
            return self._batch_norm_training(step, addresses, count, channels)
        launch = select(step.op, "cuda").launch
        if step.op == "conv":
            addresses |= self._conv_operands(step)
            return [launch(step.geometry, addresses, step.relu, self._device.processors, step.sum_relu)]
        if step.op == "batch_norm":
            return [launch(count, channels, addresses | self._norm(NormNames.of(step), ""), step.relu)]
        if step.op == "max_pool":
            return [launch(step.geometry, addresses)]
        if step.op == "subsample":
            return [launch(*pixels, channels, step.geometry, addresses)]
        if step.op == "residual":
            shortcut, x = (self._address(index) for index in step.inputs)
            return [launch(count * channels, addresses | {"shortcut": shortcut, "x": x}, step.relu)]
        if step.op == "mean":
            return [launch(pixels[0], pixels[1] * pixels[2], channels, addresses)]
        return [launch(count, channels, addresses)]  # softmax

    def _conv_operands(self, step: Step) -> dict[str, int]:
        g, name = step.geometry, step.variables["weights"]
        kernel = self._variables[name]
        key = ("taps", g.width, g.channels, g.kernel_height, g.kernel_width, g.rate)
        operands = {
            "weights": self._constant(name, lambda: pack(kernel)),
            "taps": self._constant(key, lambda: tap_table(g)),
            "shortcut": self._address(step.shortcut),
        }
        if isinstance(self._variables, dict):
            # The engine's own copy: the packed one takes its place, and only its shape is asked for from now on.
            self._variables[name] = np.broadcast_to(np.float32(0), kernel.shape)
        if step.bias is not None:
            operands["bias"] = self._channels((step.bias,), self._variables[step.bias])
        if step.norm is not None:
            operands |= self._norm(step.norm, "")
        return operands

    def _batch_norm_training(
        self, step: Step, addresses: dict[str, int], count: int, channels: int
    ) -> list[CudaLaunch]:
        names = step.variables
        mean, scale = self._device.allocate(4 * channels + 16), self._device.allocate(4 * channels + 16)
        self._kept += [mean, scale]
        statistics = {"mean": mean.address, "scale": scale.address}
        gamma = self._channels((names["gamma"],), self._variables[names["gamma"]]) if "gamma" in names else 0
        beta = self._channels((names["beta"],), self._variables[names["beta"]])
        gather = select("batch_statistics", "cuda").launch
        apply = select("batch_norm", "cuda").launch
        return [
            gather(count, channels, {"x": addresses["x"], "gamma": gamma, **statistics}, step.geometry),
            apply(count, channels, {**addresses, "beta": beta, **statistics}, step.relu),
        ]

    def _norm(self, names: NormNames, prefix: str) -> dict[str, int]:
        roles = [f"{prefix}{role}" for role in Norm._fields]
        if (names, "mean") not in self._packed:
            for role, values in norm_of(names, self._variables, BINARY32)._asdict().items():
                self._channels((names, role), values)
        return {name: self._packed[names, role].address for name, role in zip(roles, Norm._fields, strict=True)}

    def _channels(self, key: Any, values: Float32Array) -> int:
        return self._constant(key, lambda: pack_channels(values))

    def _constant(self, key: Any, make: Callable[[], np.ndarray]) -> int:
        """The address of what lies on the device under this key; made and uploaded the first time."""
        if key not in self._packed:
            values = make()
            memory = self._device.allocate(values.nbytes)
            memory.upload(values)
            self._packed[key] = memory
        return int(self._packed[key].address)

    def _address(self, index: int | None) -> int:
        return 0 if index is None else self._arena.address + self._offsets[self.plan.aliases.get(index, index)]
