"""Run a plan with the CPU's fused kernels: one program of steps over one arena of memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from refnet.errors import InputError
from refnet.graph.memory import Parts, assign_slots, parts_of
from refnet.graph.plan import Plan, Step
from refnet.run.compiled import CompiledExecutor, Look, Variables
from refnet_kernels.catalog import select
from refnet_kernels.contract import ConvGeometry, FloatArray
from refnet_kernels.system.forks import Lock

#: What a step's values may take for each thread, where a batch is done in parts: what a core has of the caches. Eight
#: images of 224 pixels took 0.96 of the time one by one, by two threads on a Zen 4, and 0.98 by four.
PART_BYTES_A_THREAD = 8 * 2**20


class CpuExecutor(CompiledExecutor):
    """The plan as one program of compiled kernels over one arena of memory."""

    def __init__(
        self, plan: Plan, variables: Variables, threads: int, packed: dict[Any, Any], dtype: np.dtype[Any]
    ) -> None:
        super().__init__(plan, variables, packed, dtype)
        self._threads = threads
        self._padded = _padded_input(plan)
        shapes = plan.shapes | {plan.input: self._input_shape()}
        sizes = {value: self._bytes(shape[1:]) for value, shape in shapes.items()}
        parts = parts_of(plan, sizes, self._weight_bytes, threads * PART_BYTES_A_THREAD)
        self._apart = {value: size for value, size in sizes.items() if value not in parts.between}
        self._offsets, total = assign_slots(plan, sizes, parts)
        _check_memory(total, plan.shapes[plan.input])
        from refnet_kernels.cpu.entry import entry
        from refnet_kernels.cpu.team import Program, aligned_zeros

        self._arena = aligned_zeros(total, np.uint8)
        self._start = self._arena.ctypes.data
        longest = max((s.geometry.kernel_width * s.geometry.channels for s in plan.steps if s.op == "conv"), default=0)
        self._zeros = aligned_zeros(max(longest, 1), dtype)
        frame, place = self._input_shape()[1:3], (_pads(plan) if self._padded else (0, 0))
        self._entry = entry(plan.shapes[plan.input], frame, *place, self._address(plan.input), dtype)
        self._outputs = [self._view(plan.aliases.get(index, index), plan.shapes[index]) for index in plan.outputs]
        self._pack_kernels(threads)
        self._program = Program([self._entry.launch, *self._all_launches(parts)], threads)
        self._lock = Lock()

    def run(self, images: FloatArray, stream: None = None, look: Look | None = None) -> list[FloatArray]:
        """The plan's outputs. One caller at a time; others wait."""
        # The first step reads them from where they lie.
        images = np.ascontiguousarray(images, self._dtype)
        with self._lock.held():
            self._program.set_operand(0, self._entry.operand, images.ctypes.data)
            self._program.run()
            if look:
                low, high = self._entry.extremes
                look(np.minimum.reduce(low), np.maximum.reduce(high))
            return [output.copy() for output in self._outputs]

    def _all_launches(self, parts: Parts) -> list[Any]:
        """The launches of the plan, in the order in which they are run."""
        first, last = self.plan.steps[: parts.steps], self.plan.steps[parts.steps :]
        made: dict[Any, list[Any]] = {}
        launches = []
        for images in parts.images:
            for position, step in enumerate(first):
                # A step on values that stay where they are is the same for all parts of as many images.
                stays = parts.between.issuperset([*step.reads, *step.writes])
                key = position, len(images) if stays else images
                if key not in made:
                    made[key] = self._launches(step, images)
                launches += made[key]
        return launches + [launch for step in last for launch in self._launches(step, range(self.plan.batch))]

    def _weight_bytes(self, step: Step) -> int:
        return self._bytes(self._variables[step.variables["weights"]].shape) if step.op == "conv" else 0

    def _bytes(self, shape: Sequence[int]) -> int:
        return self._dtype.itemsize * int(np.prod(shape))

    def _input_shape(self) -> tuple[int, ...]:
        if self._padded is None:
            return self.plan.shapes[self.plan.input]
        g = self._padded
        return (g.batch, g.height, g.width, g.channels)

    def _view(self, index: int, shape: Sequence[int]) -> FloatArray:
        offset = self._offsets[index]
        return self._arena[offset : offset + self._bytes(shape)].view(self._dtype).reshape(shape)

    def _pack_kernels(self, threads: int) -> None:
        """Pack the kernels that no other plan has packed: the engine's own where they lie, if they may stay there.

        All others go into one block of memory, which is kind to the TLB.
        """
        from refnet_kernels.conv.cpu import pack, packed_shape, packs_in_place
        from refnet_kernels.cpu.team import aligned_zeros

        names = [step.variables["weights"] for step in self.plan.steps if step.op == "conv"]
        missing = [name for name in dict.fromkeys(names) if name not in self._packed]
        own = isinstance(self._variables, dict)
        stay = [name for name in missing if own and packs_in_place(self._variables[name], self._dtype)]
        with ThreadPoolExecutor(threads) as pool:
            # As many threads start as there are shares: none for a plan that finds all its kernels packed.
            for _ in pool.map(self._pack_in_place, [stay[i::threads] for i in range(min(threads, len(stay)))]):
                pass
        go = [name for name in missing if name not in self._packed]
        shapes = {name: packed_shape(self._variables[name].shape, self._dtype) for name in go}
        block = aligned_zeros(sum(int(np.prod(shape)) for shape in shapes.values()), self._dtype)
        start = 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            self._packed[name] = pack(self._variables[name], block[start:stop].reshape(shape))
            start = stop
        for name in missing:
            self._let_go(name)

    def _pack_in_place(self, names: list[str]) -> None:
        from refnet_kernels.conv.cpu import pack_in_place

        spare = np.empty(max(self._variables[name].size for name in names), self._dtype)
        for name in names:
            self._variables[name].flags.writeable = True
            self._packed[name] = pack_in_place(self._variables[name], spare)

    def _launch(self, op: str, *arguments: Any) -> Any:
        threads = {"threads": self._threads} if op == "conv" else {}
        return select(op, "cpu").launch(*arguments, self._dtype, **threads)

    def _conv_operands(self, step: Step) -> tuple[ConvGeometry, dict[str, int]]:
        padded = self._padded if step.inputs[0] == self.plan.input else None
        name = step.variables["weights"]
        operands = {"weights": self._locate(self._packed[name]), "zeros": self._locate(self._zeros)}
        geometry: ConvGeometry = step.geometry if padded is None else padded._replace(batch=step.geometry.batch)
        return geometry, operands | {"finite": int(self._is_finite(name))}

    def _is_finite(self, name: str) -> bool:
        """Whether all weights of a packed kernel are; looked at once."""
        key = (name, "finite")
        if key not in self._packed:
            self._packed[key] = bool(np.isfinite(self._packed[name]).all())
        return bool(self._packed[key])

    def _pack_channels(self, values: FloatArray) -> FloatArray:
        from refnet_kernels.cpu.layout import pack_channels

        return pack_channels(values)

    def _store(self, values: np.ndarray) -> np.ndarray:
        return values

    def _locate(self, stored: np.ndarray) -> int:
        return int(stored.ctypes.data)

    def _scratch(self, channels: int) -> int:
        self._kept.append(np.zeros(channels, self._dtype))
        return self._locate(self._kept[-1])


def _pads(plan: Plan) -> tuple[int, int]:
    geometry = next(step for step in plan.steps if plan.input in step.reads).geometry
    return geometry.pad_top, geometry.pad_left


def _padded_input(plan: Plan) -> ConvGeometry | None:
    """The first convolution's geometry on an explicitly padded image, where the input can be stored so.

    Then each row of the kernel is one contiguous stretch, which counts where an image has three channels.
    """
    readers = [step for step in plan.steps if plan.input in step.reads]
    if len(readers) != 1 or readers[0].op != "conv" or plan.input in plan.outputs:
        return None
    g: ConvGeometry = readers[0].geometry
    if g.rate != 1 or g.kernel_width == 1:
        return None
    height = max((g.out_height - 1) * g.stride + g.kernel_height, g.pad_top + g.height)
    width = max((g.out_width - 1) * g.stride + g.kernel_width, g.pad_left + g.width)
    return g._replace(height=height, width=width, pad_top=0, pad_left=0)


def _check_memory(total: int, shape: tuple[int, ...]) -> None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > physical:
        raise InputError(
            f"Images of shape {shape} need {total / 2**30:.1f} GiB for the values between the layers, but the "
            f"machine has {physical / 2**30:.1f} GiB; pass fewer images at a time, the bits are the same."
        )
