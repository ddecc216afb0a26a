"""Shared by the executors of compiled kernels: values in one arena, and the launches of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from refnet.graph.plan import NormNames, Plan, Step, for_images
from refnet.run.constants import Constants, Table
from refnet_kernels.catalog import OPS, Kernel, kernels_of
from refnet_kernels.contract import Flags, FloatArray, Target


class CompiledExecutor:
    """The launches of a plan's steps; a subclass defines where values and constants are stored.

    Parameters
    ----------
    plan : Plan
    constants : Constants
        Shared by all plans of an engine.
    backend : {"cpu", "cuda"}
    target : Target
        Its dtype is that of the images, of the outputs and of all values between them.

    Attributes
    ----------
    plan : Plan
    """

    #: Address of the arena, and the offset of each value in it, in bytes.
    _start: int
    _offsets: dict[int, int]
    #: Bytes from one image to the next, for the values of all images; not for those of only a part.
    _apart: Mapping[int, int] = MappingProxyType({})

    def __init__(self, plan: Plan, constants: Constants, backend: str, target: Target) -> None:
        self.plan = plan
        self._constants = constants
        self._backend = backend
        self._target = target
        self._kept: list[Any] = []

    def timer(self, images: FloatArray) -> Callable[[], list[float]]:
        """A function that runs the plan on images, and returns the milliseconds of each of its steps."""
        raise NotImplementedError

    def _pack_channels(self, values: FloatArray) -> FloatArray:
        """One value per channel, as the kernels read them."""
        raise NotImplementedError

    def _store(self, values: np.ndarray) -> Any:
        """An array in the device's memory."""
        raise NotImplementedError

    def _locate(self, stored: Any) -> int:
        """The address of an array that `_store` stored."""
        raise NotImplementedError

    def _scratch(self, channels: int) -> int:
        """The address of memory for one value per channel, valid as long as this object lives."""
        raise NotImplementedError

    def _launches(self, step: Step, images: range) -> list[Any]:
        """The launches of a step for some images; their operands' addresses are valid as long as this object lives."""
        step = for_images(step, len(images))
        addresses = self._values(step, images.start) | self._parameters(step)
        name = step.variables.get("weights")
        flags = Flags(step.relu, step.sum_relu, name is not None and self._constants.weights[name].finite)
        return [
            kernel.launch(step.geometry, addresses | self._tables(kernel, step), flags, self._target)
            for kernel in kernels_of(step.op, self._backend)
        ]

    def _values(self, step: Step, image: int) -> dict[str, int]:
        """The addresses of the values that a step reads and writes, from ``image`` on."""
        at = partial(self._address, image=image)
        addresses = dict(zip(OPS[step.op].inputs, map(at, step.inputs), strict=True)) | {"out": at(step.out)}
        if step.shortcut is not None:
            addresses["shortcut"] = at(step.shortcut)
        return addresses if step.preact is None else addresses | {"preact": at(step.preact)}

    def _parameters(self, step: Step) -> dict[str, int]:
        """The addresses of prepared variables, and of memory for values that one launch passes to the next."""
        op, names = OPS[step.op], step.variables
        addresses = {role: self._channels(names[role]) for role in op.channels if role in names}
        if "weights" in names:
            addresses["weights"] = self._locate(self._constants.weights[names["weights"]].values)
        if step.bias is not None:
            addresses["bias"] = self._channels(step.bias)
        for prefix, norm in (("", step.norm), ("next_", step.next_norm)):
            if norm is not None:
                addresses |= {f"{prefix}{role}": self._locate(stored) for role, stored in self._norm(norm).items()}
        *_, channels = self.plan.shapes[step.inputs[0]]
        return addresses | {role: self._scratch(channels) for role in op.scratch}

    def _tables(self, kernel: Kernel, step: Step) -> dict[str, int]:
        return {name: self._table(table) for name, table in kernel.tables(step.geometry).items()}

    def _table(self, table: Table) -> int:
        kept = self._constants.tables
        if table not in kept:
            kept[table] = self._store(table.values())
        return self._locate(kept[table])

    def _norm(self, names: NormNames) -> dict[str, Any]:
        kept = self._constants.norms
        if names not in kept:
            norm = self._constants.norm(names, self._target.dtype)
            kept[names] = {role: self._store(self._pack_channels(values)) for role, values in norm._asdict().items()}
        return kept[names]

    def _channels(self, name: str) -> int:
        kept = self._constants.channels
        if name not in kept:
            values = self._constants.variable(name).astype(self._target.dtype)
            kept[name] = self._store(self._pack_channels(values))
        return self._locate(kept[name])

    def _unprepared(self) -> dict[str, str]:
        """The weights that no plan has prepared yet, and the op that reads each of them."""
        steps = [(step.variables.get("weights"), step.op) for step in self.plan.steps]
        return {name: op for name, op in steps if name is not None and name not in self._constants.weights}

    def _address(self, index: int | None, image: int = 0) -> int:
        """The address of a value, from ``image`` on; of a value of only a part, from the part's first image."""
        if index is None:
            return 0
        value = self.plan.aliases.get(index, index)
        return self._start + self._offsets[value] + image * self._apart.get(value, 0)
