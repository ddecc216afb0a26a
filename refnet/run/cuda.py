"""Run a plan on a CUDA device: launches in the order of a stream, over one arena of the device's memory."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from refnet.errors import DeviceError, RefnetWarning
from refnet.graph.memory import assign_slots
from refnet.graph.plan import Plan
from refnet.run.compiled import CompiledExecutor
from refnet.run.constants import Constants
from refnet_kernels.catalog import kernels_of
from refnet_kernels.contract import FloatArray, Packed, Target
from refnet_kernels.gpu.arrays import DeviceArray, DeviceView
from refnet_kernels.gpu.device import DriverError, Memory, open_device, pack_channels
from refnet_kernels.gpu.program import Program, make_program
from refnet_kernels.system.forks import Lock


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn the driver's errors into `DeviceError`."""
    try:
        yield
    except DriverError as error:
        raise DeviceError(f"The CUDA device failed: {error}.") from error


class CudaExecutor(CompiledExecutor):
    """The plan as one program of CUDA kernels.

    Weights and images are copied to the device unless they are there; values between the steps stay there.

    Attributes
    ----------
    graph : bool
        Whether one CUDA graph launches all the kernels; if not, each is launched separately.

    Raises
    ------
    DeviceError
        The device's memory is too small, or its driver fails.
    """

    def __init__(self, plan: Plan, constants: Constants, index: int) -> None:
        with device_errors():
            self._device = open_device(index)
            super().__init__(plan, constants, "cuda", Target(workers=self._device.processors, model=self._device.model))
            self._check_memory()
            self._program = self._make_program()
            with self._device.current():
                self._done = self._device.stream().record()
        self._copied: deque[tuple[Any, DeviceView]] = deque()
        self._lock = Lock()

    def run(self, images: Any, stream: Any = None) -> tuple[list[Any], tuple[float, float] | None]:
        """The plan's outputs, and the least and the largest pixel. One caller at a time; others wait.

        Parameters
        ----------
        images : float32 array or DeviceView
        stream
            From `refnet_kernels.gpu.device.Device.stream`; by default the device's own.

        Returns
        -------
        outputs : list of float32 array or of DeviceArray
            For images on the device the outputs are there too, and may not be complete yet.
        extremes : (float, float), or None
            None for images on the device, whose pixels are not examined.
        """
        with device_errors(), self._lock.held(), self._device.current():
            on = self._device.stream() if stream is None else stream
            # The previous run may have been on another stream.
            on.wait(self._done)
            try:
                return self._run(images, on)
            finally:
                self._done = on.record()

    def _run(self, images: Any, stream: Any) -> tuple[list[Any], tuple[float, float] | None]:
        shapes = [self.plan.shapes[index] for index in self.plan.outputs]
        offsets = [self._address(index) - self._start for index in self.plan.outputs]
        if isinstance(images, DeviceView):
            return self._run_on_device(images, stream, list(zip(shapes, offsets, strict=True))), None
        outputs = [np.empty(shape, np.float32) for shape in shapes]
        self._arena.upload(images, self._offsets[self.plan.input], stream)
        self._program.run(stream)
        # While the device computes.
        extremes = (float(images.min()), float(images.max())) if images.size else None
        for output, offset in zip(outputs, offsets, strict=True):
            self._arena.download(output, offset, stream)
        stream.sync()
        return outputs, extremes

    def _run_on_device(
        self, images: DeviceView, stream: Any, outputs: list[tuple[tuple[int, ...], int]]
    ) -> list[DeviceArray]:
        memory = [self._own_memory(shape) for shape, _ in outputs]
        self._arena.copy_from(images.address, _bytes(images.shape), self._offsets[self.plan.input], stream)
        # Images are kept until they are copied: their owner may release them when this call returns.
        self._copied.append((stream.record(), images))
        while self._copied and self._copied[0][0].is_done:
            self._copied.popleft()
        self._program.run(stream)
        for block, (shape, offset) in zip(memory, outputs, strict=True):
            block.copy_from(self._start + offset, _bytes(shape), 0, stream)
        ready = stream.record()
        return [
            DeviceArray(self._device, block, shape, stream, ready)
            for block, (shape, _) in zip(memory, outputs, strict=True)
        ]

    def _own_memory(self, shape: tuple[int, ...]) -> Memory:
        try:
            return self._device.allocate(_bytes(shape))
        except MemoryError as error:
            free = self._device.free_bytes()
            raise DeviceError(
                f"An output of shape {shape} needs {_bytes(shape):,} bytes of the CUDA device, and {free:,.0f} are "
                "free: release earlier outputs, or pass NumPy images, whose outputs leave the device.",
                expected=_bytes(shape), found=free,
            ) from error  # fmt: skip

    def profile(self) -> list[float]:
        """Run once more on the last images. Returns the milliseconds of each launch."""
        with device_errors(), self._lock.held(), self._device.current():
            self._done.sync()
            return self._program.profile()

    def timer(self, images: FloatArray) -> Callable[[], list[float]]:
        """A function that runs the plan on images, and returns the milliseconds of each of its steps."""
        self.run(images)

        def run() -> list[float]:
            times = iter(self.profile())
            return [sum(next(times) for _ in kernels_of(step.op, "cuda")) for step in self.plan.steps]

        return run

    def _make_program(self) -> Program:
        try:
            self._arena = self._device.allocate(self._total)
            self._start = self._arena.address
            for name, op in self._unprepared().items():
                self._upload_weights(name, op)
            images = range(self.plan.batch)
            launches = [launch for step in self.plan.steps for launch in self._launches(step, images)]
            program = make_program(self._device, launches)
            self.graph = _record(program)
        except (MemoryError, OverflowError) as error:
            raise self._too_large(str(error)) from error
        return program

    def _upload_weights(self, name: str, op: str) -> None:
        """Have a kernel pack its weights: one at a time, so that the host never holds many copies."""
        packed: dict[str, Packed] = {}
        (kernel,) = kernels_of(op, "cuda")
        kernel.prepare({name: self._constants.variable(name)}, packed, False, self._target)
        self._constants.weights[name] = packed[name]._replace(values=self._store(packed[name].values))
        self._constants.release(name)

    def _check_memory(self) -> None:
        sizes = {value: _bytes(shape[1:]) for value, shape in self.plan.shapes.items()}
        self._offsets, self._total = assign_slots(self.plan, sizes)
        if self._total + self._weights() > self._device.free_bytes():
            raise self._too_large()

    def _weights(self) -> int:
        """Bytes of the kernels that are not on the device yet."""
        return sum(_bytes(self._constants.shape(name)) for name in self._unprepared())

    def _too_large(self, reason: str = "") -> DeviceError:
        shape, free, weights = self.plan.shapes[self.plan.input], self._device.free_bytes(), self._weights()
        text = (
            f"Images of shape {shape} need {self._total:,} bytes of the CUDA device for the values between the layers "
            f"and {weights:,} for the weights; {free:,.0f} are free"
        )
        if self._total + weights > free:
            fits = int(shape[0] * max(free - weights, 0) / self._total)
            text += f", enough for a batch of {fits}" if fits else ", too few for one image"
        reason = f" ({reason})" if reason else ""
        return DeviceError(
            f"{text}{reason}. The bits do not depend on the batch.", expected=self._total + weights, found=free
        )

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


def _record(program: Program) -> bool:
    try:
        return program.record()
    except DriverError as error:
        warnings.warn(
            f"No CUDA graph could be recorded, so each kernel is launched separately; the bits are the same: {error}.",
            RefnetWarning,
            stacklevel=2,
        )
        return False


def _bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)
