"""Run many variants of one network, each from where it differs from what is known already.

Every value has a key: its operation, geometry, variables and the keys of its inputs. By the contract, values with equal
keys have equal bits. So a variant is computed from the latest values that it shares with the network as it is meant.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from refnet.diagnosis.host import operation
from refnet.diagnosis.patched import PatchedGraph
from refnet.graph.fuse import fuse, root_of
from refnet.graph.graph import Tensor
from refnet.graph.memory import WHOLE, Parts, assign_slots
from refnet.graph.plan import Plan
from refnet.run.constants import Constants
from refnet.run.cpu import CpuExecutor
from refnet_kernels.contract import FloatArray
from refnet_kernels.system.float_mode import contract_mode

#: A value's identity, as a number.
Key = int


class _Constants(Constants):
    """The variables of a variant: some of its own, and all others, with their packed forms, of the network itself."""

    def __init__(self, shared: Constants, own: Mapping[str, FloatArray]) -> None:
        super().__init__(ChainMap(dict(own), dict(shared.shapes)), owned=False)
        self.weights = ChainMap({}, shared.weights)  # type: ignore[assignment]
        self.channels = ChainMap({}, shared.channels)  # type: ignore[assignment]
        self.norms = ChainMap({}, shared.norms)  # type: ignore[assignment]
        self.tables = ChainMap({}, shared.tables)  # type: ignore[assignment]


class _Executor(CpuExecutor):
    """A plan that begins with several values."""

    def run_from(self, values: Mapping[int, FloatArray]) -> list[FloatArray]:
        """The plan's outputs, from the values that it begins with, by their indices."""
        for index, value in values.items():
            if index != self.plan.input:
                np.copyto(self._view(index, value.shape), value)
        return self.run(values[self.plan.input])[0]

    def _layout(self, sizes: Mapping[int, int], batch: int) -> tuple[Parts, dict[int, int], int]:
        plan = self.plan
        if batch != plan.batch:
            plan = plan._replace(shapes={value: (batch, *shape[1:]) for value, shape in plan.shapes.items()})
        return WHOLE, *assign_slots(plan, sizes)


class Runner:
    """Computes values of variants of a network, in one dtype.

    Parameters
    ----------
    variables : mapping of str to float32 array
    dtype : numpy.dtype
    threads : int
    """

    def __init__(self, variables: Mapping[str, FloatArray], dtype: np.dtype[Any], threads: int) -> None:
        self._variables = variables
        self._constants = Constants(variables, owned=False)
        self._dtype = dtype
        self._threads = threads
        self._numbers: dict[Hashable, Key] = {}
        self._kept: dict[Key, FloatArray] = {}
        self._images: dict[Key, FloatArray] = {}

    def images(self, name: Hashable, images: FloatArray) -> None:
        """The images that graphs with this name for their input read."""
        self._images[self._number(("input", name))] = images.astype(self._dtype, copy=False)

    @contextmanager
    def based_on(self, graph: PatchedGraph, keys: Sequence[Key], tensors: Sequence[Tensor]) -> Iterator[None]:
        """Within this, variants may begin with these values too."""
        before = dict(self._kept)
        self.values(graph, keys, tensors, keep=True)
        try:
            yield
        finally:
            self._kept = before

    def forget(self, name: Hashable) -> None:
        """Drop images."""
        self._images.pop(self._number(("input", name)), None)

    def keys(self, graph: PatchedGraph, images: Hashable, given: Mapping[int, Hashable] | None = None) -> list[Key]:
        """The key of each of a graph's tensors.

        Parameters
        ----------
        graph : PatchedGraph
        images : hashable
            The name of the images.
        given : mapping of int to hashable, optional
            Names of values from elsewhere, by the index of the tensor that they stand in for.
        """
        found: list[Key] = []
        given = given or {}
        for tensor in graph.tensors:
            if tensor.index in given:
                key: Hashable = ("input", given[tensor.index])
            elif tensor.op == "input":
                key = ("input", images)
            else:
                inputs = tuple(found[entry.index] for entry in tensor.inputs)
                key = tensor.op, tensor.geometry, tuple(sorted(tensor.variables.items())), inputs
            found.append(self._number(key))
        return found

    @contract_mode()
    def values(
        self, graph: PatchedGraph, keys: Sequence[Key], wanted: Sequence[Tensor], keep: bool = False
    ) -> list[FloatArray]:
        """The values of some tensors.

        Parameters
        ----------
        graph : PatchedGraph
        keys : sequence of int
            As `keys` gave them.
        wanted : sequence of Tensor
        keep : bool
            Whether other variants may begin with these values.

        Raises
        ------
        WeightsError
            A variance plus epsilon is 0 or negative.
        """
        have: ChainMap[Key, FloatArray] = ChainMap({}, self._kept, self._images)
        constants = self._constants
        if graph.derived:
            constants = _Constants(constants, self._own(graph))
        tensors = graph.tensors
        for index in sorted(_between(tensors, keys, [t.index for t in wanted], have)):
            tensor = tensors[index]
            if tensor.op.startswith("host:"):
                (source,) = self._run(tensors, keys, [tensor.inputs[0].index], have, constants)
                have[keys[index]] = operation(tensor.op.removeprefix("host:"))(source)
        found = self._run(tensors, keys, [tensor.index for tensor in wanted], have, constants)
        if keep:
            self._kept |= {keys[tensor.index]: value for tensor, value in zip(wanted, found, strict=True)}
        return found

    def _own(self, graph: PatchedGraph) -> dict[str, FloatArray]:
        """The arrays that a port has in place of the network's variables."""
        own: dict[str, FloatArray] = {}
        for name, (base, make) in graph.derived.items():
            array = own[base] if base in own else self._variables[base]
            own[name] = np.ascontiguousarray(make(array), np.float32)
        return own

    def _run(
        self,
        tensors: Sequence[Tensor],
        keys: Sequence[Key],
        wanted: Sequence[int],
        have: ChainMap[Key, FloatArray],
        constants: Constants,
    ) -> list[FloatArray]:
        """Values, from those that are there; no operation of the host lies between."""
        while True:
            missing = [index for index in dict.fromkeys(wanted) if keys[index] not in have]
            plan = _plan(tensors, keys, missing, have) if missing else None
            bare = None if plan is None else next((step for step in plan.steps if step.op in _BARE), None)
            if bare is None or bare.out is None:
                break
            tensor = tensors[bare.out]
            (source,) = self._run(tensors, keys, [tensor.inputs[0].index], have, constants)
            variables = [constants.variable(name) for name in tensor.variables.values()]
            have[keys[tensor.index]] = _BARE[tensor.op](source, variables)
        if plan is not None:
            have |= self._computed(plan, keys, have, constants)
        return [have[keys[index]] for index in wanted]

    def _computed(
        self, plan: Plan, keys: Sequence[Key], have: Mapping[Key, FloatArray], constants: Constants
    ) -> dict[Key, FloatArray]:
        """The outputs of a plan."""
        begin = {index: have[keys[index]] for index in plan.shapes if keys[index] in have}
        outputs = _Executor(plan, constants, self._threads, self._dtype).run_from(begin)
        return {keys[index]: value for index, value in zip(plan.outputs, outputs, strict=True)}

    def _number(self, key: Hashable) -> Key:
        return self._numbers.setdefault(key, len(self._numbers))


def _between(
    tensors: Sequence[Tensor], keys: Sequence[Key], wanted: Sequence[int], have: Mapping[Key, FloatArray]
) -> set[int]:
    """The tensors that must be computed for the wanted ones."""
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in found and keys[index] not in have:
            found.add(index)
            waiting.extend(entry.index for entry in tensors[index].inputs)
    return found


#: Operations that kernels compute only as a part of another step.
_BARE: dict[str, Callable[[FloatArray, Sequence[FloatArray]], FloatArray]] = {
    "relu": lambda x, _: np.where(x < 0, x.dtype.type(0), x),
    "bias_add": lambda x, variables: x + variables[0].astype(x.dtype),
}


def _plan(
    tensors: Sequence[Tensor], keys: Sequence[Key], wanted: Sequence[int], have: Mapping[Key, FloatArray]
) -> Plan:
    """The steps from the values that are there to the wanted ones."""
    new: dict[int, Tensor] = {}
    inside = _between(tensors, keys, wanted, have)
    needed = sorted(inside | {entry.index for index in inside for entry in tensors[index].inputs})
    for index in needed:
        if index in inside:
            new[index] = replace(tensors[index], inputs=tuple(new[entry.index] for entry in tensors[index].inputs))
        else:
            new[index] = replace(tensors[index], op="input", inputs=(), variables={})
    aliases = {index: root_of(tensor).index for index, tensor in new.items() if tensor.op == "squeeze"}
    steps = fuse(list(new.values()), {aliases.get(index, index) for index in wanted})
    first = next(index for index in needed if index not in inside)
    return Plan(first, steps, {index: tensor.shape for index, tensor in new.items()}, list(wanted), aliases)
