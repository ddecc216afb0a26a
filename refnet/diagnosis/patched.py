"""A graph whose operations are made otherwise in chosen places: the network as a port with some mistake builds it.

TF-Slim's functions build the network by the methods of `Graph`. A `Patch` stands around one of these methods. It is
asked at each call whose *site* it is for, and makes the operation in its own way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refnet.graph.graph import GROUPS, ArgScope, Graph, Tensor

#: The site of a mistake that the port makes at every place where it can occur.
EVERYWHERE = "everywhere"

#: Before the name of a layer: that layer of all units.
ALL = "*/"

#: Parts of a unit's path: block, unit and kind of unit.
UNIT_PARTS = 3

#: Makes the operation: ``around(graph, proceed, *arguments)``; ``proceed(*arguments)`` makes the one that is meant.
Around = Callable[..., Any]


#: A value of the network: what a method gave at a site. Variants of the network have it too, though not in its place.
Label = tuple[str, str]


class Patch(NamedTuple):
    """What a port does in place of one of `Graph`'s methods.

    Attributes
    ----------
    method : str
        The method's name; "variable" for the arrays that an operation reads.
    around : callable
    site : str
        A layer by its path below the network's scope, "block1/unit_2/bottleneck_v2/conv1"; a unit, a block, a layer of
        all units ("*/conv1") or `EVERYWHERE`.
    where : callable
        Whether a call is one that the mistake is about, at any site.
    """

    method: str
    around: Around
    site: str
    where: Callable[[Call], bool]


def unit_of(site: str) -> str:
    """The unit that a site is in, "block1/unit_2/bottleneck_v2"; "" outside of all."""
    parts = site.split("/")
    return "/".join(parts[:UNIT_PARTS]) if len(parts) >= UNIT_PARTS else ""


class Call(NamedTuple):
    """A call of one of a graph's methods.

    Attributes
    ----------
    method, site : str
    arguments : tuple
    graph : PatchedGraph
    """

    method: str
    site: str
    arguments: tuple[Any, ...]
    graph: PatchedGraph

    @property
    def unit(self) -> str:
        """The unit in which it is, "block1/unit_2/bottleneck_v2"; "" outside of all."""
        return unit_of(self.site)

    @property
    def layer(self) -> str:
        """The last part of its site: "conv1"."""
        return self.site.rsplit("/", 1)[-1]


def is_within(site: str, wanted: str) -> bool:
    """Whether a site is, or is a part of, the wanted one."""
    if wanted.startswith(ALL):
        return "/" in site and site.rsplit("/", 1)[1] == wanted.removeprefix(ALL)
    return wanted in (EVERYWHERE, site) or site.startswith(f"{wanted}/")


def sites_of(names: Sequence[str]) -> list[str]:
    """The sites at which a mistake can be, from the places where it can occur: the widest ones first."""
    names = list(dict.fromkeys(names))
    if len(names) == 1:
        return names
    groups: dict[str, int] = {}
    for name in names:
        parts = name.split("/")
        shares = [parts[0]] if len(parts) > 1 else []
        shares += [f"{ALL}{parts[-1]}"] if len(parts) > UNIT_PARTS else []
        for group in shares:
            groups[group] = groups.get(group, 0) + 1
    shared = [group for group, count in groups.items() if 1 < count < len(names)]
    return [EVERYWHERE, *shared, *names] if names else []


def units_of(names: Sequence[str]) -> list[str]:
    """The units in which several of the places are where a mistake can occur, but not all of them."""
    counts = Counter(unit_of(name) for name in dict.fromkeys(names) if name != unit_of(name))
    total = sum(counts.values())
    return [unit for unit, count in counts.items() if unit and 1 < count < total]


class Derived(NamedTuple):
    """An array that a port has in place of a variable."""

    base: str
    make: Callable[[np.ndarray], np.ndarray]


class PatchedGraph(Graph):
    """A graph that asks patches how its operations are made.

    Parameters
    ----------
    variables : mapping of str to array
    arg_scope : ArgScope, optional
    scope : str
        The network's; sites are named below it.
    patches : sequence of Patch

    Attributes
    ----------
    derived : dict of str to Derived
        The variables that patches have made, by names of their own.
    calls : list of Call
    unit_inputs : dict of str to Tensor
        The input of each unit.
    made : dict of (str, str) to Tensor
        What each method gave at each site.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        arg_scope: ArgScope | None = None,
        scope: str = "",
        patches: Sequence[Patch] = (),
    ) -> None:
        super().__init__(variables, arg_scope)
        self._scope = scope
        self._patches = patches
        # Without patches the calls are recorded, for those who propose some.
        self._asked = {patch.method for patch in patches}
        self.derived: dict[str, Derived] = {}
        self.calls: list[Call] = []
        self.unit_inputs: dict[str, Tensor] = {}
        self.made: dict[Label, Tensor] = {}

    def site(self, name: str) -> str:
        """The site of a scope's or a variable's full name."""
        name = name.removeprefix(self._scope).strip("/")
        return "/".join(part for part in name.split("/") if part not in ("BatchNorm", "GroupNorm"))

    def layer_of(self, tensor: Tensor) -> str:
        """The site of the layer whose variables made a tensor; of a sum, its unit."""
        if tensor.variables:
            return self.site(next(iter(tensor.variables.values())).rsplit("/", 1)[0])
        return self.site(self.name()) or "postnorm"  # whose batch norm a patch has left out

    def derive(self, name: str, tag: str, make: Callable[[np.ndarray], np.ndarray]) -> str:
        """The name of an array made from a variable."""
        derived = f"{name}~{tag}"
        self.derived[derived] = Derived(name, make)
        return derived

    def changed(self, tensor: Tensor, **changes: Any) -> Tensor:
        """The tensor with another operation, geometry, shape or other variables, in its own place."""
        self.tensors[tensor.index] = changed = replace(tensor, **changes)
        return changed

    def host(self, op: str, inputs: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """An operation that no kernel has: one of `refnet.diagnosis.host`, by its name."""
        return self._add(f"host:{op}", (inputs,), inputs.shape if shape is None else shape)

    def again(self, tensor: Tensor, source: Tensor, substitute: Tensor) -> Tensor:
        """The operations from ``source`` to ``tensor`` once more, on ``substitute``."""
        made = {source.index: substitute}
        for old in self.tensors[source.index + 1 : tensor.index + 1]:
            inputs = tuple(made.get(entry.index, entry) for entry in old.inputs)
            if inputs != old.inputs:
                made[old.index] = self._add(old.op, inputs, old.shape, old.geometry, old.variables)
        return made[tensor.index]

    def _made(self, method: str, site: str, *arguments: Any) -> Any:
        """Make an operation as the patches of this site do."""
        proceed: Callable[..., Any] = partial(getattr(Graph, method), self)
        if method in self._asked:
            call = Call(method, site, arguments, self)
            for patch in self._patches:
                if patch.method == method and is_within(site, patch.site) and patch.where(call):
                    proceed = partial(patch.around, call, proceed)
        elif not self._patches:
            self.calls.append(Call(method, site, arguments, self))
        result = proceed(*arguments)
        if isinstance(result, Tensor):
            self.made[method, site] = result
        return result

    # In the same order as in `Graph`.

    def collect(self, name: str, tensor: Tensor) -> Tensor:
        """As `Graph.collect`; what a patch gives in place of an end point is what the network goes on with."""
        result: Tensor = self._made("collect", self.site(name), name, tensor)
        return result

    def variable(self, leaf: str, shape: tuple[int, ...]) -> str:
        """As `Graph.variable`."""
        if self._patches and "variable" not in self._asked:
            return super().variable(leaf, shape)
        name: str = self._made("variable", self.site(self.name()), leaf, shape)
        return name

    def conv(
        self, inputs: Tensor, num_outputs: int, kernel_size: tuple[int, int], stride: int, rate: int, same: bool
    ) -> Tensor:
        """As `Graph.conv`."""
        site = self.site(self.name())
        self._note_unit(site, inputs)
        made: Tensor = self._made("conv", site, inputs, num_outputs, kernel_size, stride, rate, same)
        return made

    def bias_add(self, inputs: Tensor) -> Tensor:
        """As `Graph.bias_add`."""
        made: Tensor = self._made("bias_add", self.site(self.name()), inputs)
        return made

    def batch_norm(self, inputs: Tensor, scope: str) -> Tensor:
        """As `Graph.batch_norm`."""
        site = self.site(self.name(scope))
        self._note_unit(site, inputs)
        made: Tensor = self._made("batch_norm", site, inputs, scope)
        return made

    def group_norm(self, inputs: Tensor, scope: str, groups: int = GROUPS) -> Tensor:
        """As `Graph.group_norm`."""
        site = self.site(self.name(scope))
        self._note_unit(site, inputs)
        made: Tensor = self._made("group_norm", site, inputs, scope, groups)
        return made

    def relu(self, inputs: Tensor) -> Tensor:
        """As `Graph.relu`."""
        made: Tensor = self._made("relu", self.layer_of(inputs), inputs)
        return made

    def subsample(self, inputs: Tensor, factor: int) -> Tensor:
        """As `Graph.subsample`."""
        made: Tensor = self._made("subsample", self.site(self.name()), inputs, factor)
        return made

    def add(self, shortcut: Tensor, residual: Tensor) -> Tensor:
        """As `Graph.add`."""
        made: Tensor = self._made("add", self.site(self.name()), shortcut, residual)
        return made

    def max_pool(self, inputs: Tensor, window: int, stride: int) -> Tensor:
        """As `Graph.max_pool`."""
        made: Tensor = self._made("max_pool", self.site(self.name("pool1")), inputs, window, stride)
        return made

    def avg_pool(self, inputs: Tensor, window: int, stride: int) -> Tensor:
        """As `Graph.avg_pool`."""
        self.unit_inputs.setdefault(self.site(self.name()), inputs)
        made: Tensor = self._made("avg_pool", self.site(self.name()), inputs, window, stride)
        return made

    def reduce_mean(self, inputs: Tensor) -> Tensor:
        """As `Graph.reduce_mean`."""
        made: Tensor = self._made("reduce_mean", self.site(self.name("pool5")), inputs)
        return made

    def _note_unit(self, site: str, inputs: Tensor) -> None:
        if unit_of(site):
            self.unit_inputs.setdefault(unit_of(site), inputs)
