"""Run a plan with the CPU's fused kernels: one program of steps over one arena of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from refnet.graph.memory import Parts, assign_slots, parts_of
from refnet.graph.plan import Plan, Step
from refnet.resources import check_room
from refnet.run.compiled import CompiledExecutor
from refnet.run.constants import Constants
from refnet_kernels.catalog import kernels_of
from refnet_kernels.contract import ConvGeometry, FloatArray, Target
from refnet_kernels.system.float_mode import contract_mode
from refnet_kernels.system.forks import Lock, making

#: Bytes that a step's values may take per thread when a batch is done in parts: a core's share of the caches. Eight
#: images of 224 pixels, one at a time, took 0.96 of the time with two threads on a Zen 4, and 0.98 with four.
PART_BYTES_PER_THREAD = 8 * 2**20

#: Numbers that a convolution's tables have per pixel, beside one for each tap, and that making them takes meanwhile.
_NUMBERS_PER_PIXEL, _NUMBERS_MEANWHILE = 3, 14


class CpuExecutor(CompiledExecutor):
    """The plan as one program of compiled kernels over one arena of memory."""

    def __init__(
        self, plan: Plan, constants: Constants, threads: int, dtype: np.dtype[Any], zeros: bool = True
    ) -> None:
        images = plan.shapes[plan.input]
        plan, place = _framed(plan)
        super().__init__(plan, constants, "cpu", Target(dtype, threads, zeros))
        sizes = {value: self._bytes(shape[1:]) for value, shape in plan.shapes.items()}
        copies = self._bytes(images[1:]) + sum(self._bytes(plan.shapes[index][1:]) for index in plan.outputs)
        weights = 0 if constants.owned else sum(self._bytes(constants.shape(name)) for name in self._unprepared())
        layout = cache(partial(self._layout, sizes))

        def needed(batch: int) -> int:
            """All bytes: also of copies of images and outputs, tables, and weights that are not packed."""
            parts, _, arena = layout(batch)
            return arena + batch * copies + self._table_bytes(parts, batch) + weights

        check_room(copies, f"Images of shape {images}", images[0], needed)
        parts, self._offsets, total = layout(plan.batch)
        self._apart = {value: size for value, size in sizes.items() if value not in parts.between}
        with making:
            from refnet_kernels.cpu.entry import entry
            from refnet_kernels.cpu.team import Program, aligned_zeros

        self._arena = aligned_zeros(total, np.uint8)
        self._start = self._arena.ctypes.data
        self._entry = entry(images, plan.shapes[plan.input][1:3], *place, self._address(plan.input), dtype)
        self._outputs = [self._view(plan.aliases.get(index, index), plan.shapes[index]) for index in plan.outputs]
        self._prepare_weights()
        self._launched = self._all_launches(parts)
        self._program = Program([self._entry.launch, *(launch for _, launch in self._launched)], threads)
        self._lock = Lock()

    def run(self, images: FloatArray, stream: None = None) -> tuple[list[FloatArray], tuple[float, float] | None]:
        """The plan's outputs, and the least and the largest pixel. One caller at a time; others wait."""
        # The first step reads the images in place.
        if images.dtype != self._target.dtype:
            with contract_mode():
                images = images.astype(self._target.dtype)
        images = np.ascontiguousarray(images)
        with self._lock.held():
            self._program.set_operand(0, self._entry.operand, images.ctypes.data)
            self._program.run()
            low, high = self._entry.extremes
            extremes = (float(np.minimum.reduce(low)), float(np.maximum.reduce(high))) if images.size else None
            return [output.copy() for output in self._outputs], extremes

    def timer(self, images: FloatArray) -> Callable[[], list[float]]:
        """A function that runs the plan on images, and returns the milliseconds of each of its steps, of all parts."""
        with making:
            from refnet_kernels.cpu.measure import Timed

        images = np.ascontiguousarray(images, self._target.dtype)
        timed = Timed([self._entry.launch, *(launch for _, launch in self._launched)], self._target.workers)

        def run() -> list[float]:
            sums = [0.0] * len(self.plan.steps)
            with self._lock.held():
                timed.set_operand(0, self._entry.operand, images.ctypes.data)
                _, *times = timed.run()
            for (position, _), milliseconds in zip(self._launched, times, strict=True):
                sums[position] += milliseconds
            return sums

        return run

    def _layout(self, sizes: Mapping[int, int], batch: int) -> tuple[Parts, dict[int, int], int]:
        """The parts in which a batch is done, the offset of each value in the arena, and the arena's bytes."""
        plan = self.plan
        if batch != plan.batch:
            plan = plan._replace(shapes={value: (batch, *shape[1:]) for value, shape in plan.shapes.items()})
        parts = parts_of(plan, sizes, self._weight_bytes, self._target.workers * PART_BYTES_PER_THREAD)
        return parts, *assign_slots(plan, sizes, parts)

    def _table_bytes(self, parts: Parts, batch: int) -> int:
        """Bytes of the tables of the convolutions, and of what the largest of them is made from, at most."""
        total, most = 0, 0
        longest = max(map(len, parts.images), default=0)
        for position, step in enumerate(self.plan.steps):
            g = step.geometry
            if not isinstance(g, ConvGeometry):
                continue
            # A row of a kernel that never leaves the image is one stretch of memory.
            taps = g.kernel_height * (1 if g.rate == 1 and g.pad_top == g.pad_left == 0 else g.kernel_width)
            in_parts = position < parts.steps
            # Steps that are the same for all parts have tables for the two lengths of a part.
            images = min(batch, 2 * longest) if in_parts and self._stays(step, parts) else batch
            pixels = g.out_height * g.out_width
            total += images * pixels * (taps + _NUMBERS_PER_PIXEL) * 8
            most = max(most, (longest if in_parts else batch) * pixels * _NUMBERS_MEANWHILE * 8)
        return total + most

    def _stays(self, step: Step, parts: Parts) -> bool:
        """Whether a step's values have the same addresses for all parts of as many images."""
        return parts.between.issuperset([*step.reads, *step.writes])

    def _prepare_weights(self) -> None:
        """Have kernels pack the weights that no other plan has packed, and release the originals."""
        constants, missing = self._constants, self._unprepared()
        for op in dict.fromkeys(missing.values()):
            (kernel,) = kernels_of(op, "cpu")
            weights = {name: constants.variable(name) for name in missing if missing[name] == op}
            kernel.prepare(weights, constants.weights, constants.owned, self._target)
        # Also those that were packed before something else failed.
        for step in self.plan.steps:
            if "weights" in step.variables:
                constants.release(step.variables["weights"])

    def _all_launches(self, parts: Parts) -> list[tuple[int, Any]]:
        """The launches of the plan, in the order in which they are run, each with its step's position."""
        first, last = self.plan.steps[: parts.steps], self.plan.steps[parts.steps :]
        made: dict[Any, list[Any]] = {}
        launches = []
        for images in parts.images:
            for position, step in enumerate(first):
                key = position, len(images) if self._stays(step, parts) else images
                if key not in made:
                    made[key] = self._launches(step, images)
                launches += [(position, launch) for launch in made[key]]
        for position, step in enumerate(last, parts.steps):
            launches += [(position, launch) for launch in self._launches(step, range(self.plan.batch))]
        return launches

    def _weight_bytes(self, step: Step) -> int:
        name = step.variables.get("weights")
        return 0 if name is None else self._bytes(self._constants.shape(name))

    def _bytes(self, shape: Sequence[int]) -> int:
        return self._target.dtype.itemsize * math.prod(shape)

    def _view(self, index: int, shape: Sequence[int]) -> FloatArray:
        offset = self._offsets[index]
        return self._arena[offset : offset + self._bytes(shape)].view(self._target.dtype).reshape(shape)

    def _pack_channels(self, values: FloatArray) -> FloatArray:
        with making:
            from refnet_kernels.cpu.layout import pack_channels

        return pack_channels(values)

    def _store(self, values: np.ndarray) -> np.ndarray:
        return values

    def _locate(self, stored: np.ndarray) -> int:
        return int(stored.ctypes.data)

    def _scratch(self, channels: int) -> int:
        self._kept.append(np.zeros(channels, self._target.dtype))
        return self._locate(self._kept[-1])


def _framed(plan: Plan) -> tuple[Plan, tuple[int, int]]:
    """The plan with each image in a frame, if its only reader prefers that; and an image's place in its frame."""
    readers = [position for position, step in enumerate(plan.steps) if plan.input in step.reads]
    if len(readers) != 1 or plan.input in plan.outputs:
        return plan, (0, 0)
    step = plan.steps[readers[0]]
    frame = kernels_of(step.op, "cpu")[0].frame(step.geometry)
    if frame is None:
        return plan, (0, 0)
    steps = list(plan.steps)
    steps[readers[0]] = replace(step, geometry=frame.geometry)
    return plan._replace(steps=steps, shapes=plan.shapes | {plan.input: frame.geometry[:4]}), (frame.top, frame.left)
