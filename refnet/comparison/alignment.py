"""Which of the reference's values each array of another run is: by its name, else by shape, order and values.

A name of a known framework leads to a place in the network, where several values arise one after the other: the
convolution, the batch norm, the ReLU. Which of them an array holds is decided by the name, unless another one is much
closer: an in-place ReLU overwrites what a hook has seen, and exporters fold batch norms into convolutions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from refnet.checks import listed
from refnet.comparison.dialects import COMMON, Sited, dialects_of, sites_of
from refnet.comparison.layouts import ORDERS, SWAPPED, Layout, distance, layouts_of
from refnet.comparison.sites import WORDS, Value, unit_of
from refnet.errors import ConfigError, InputError
from refnet.graph.nearest import nearest

#: Characters of a name that are read.
_LONGEST = 400
#: How those begin that were found without their names: "by value", "by shape".
GUESSED = "by "
#: How arrays are found that have the name of a value.
SAME_NAME = "the same name"
#: A candidate other than the likeliest must be this much closer.
_CLOSER = 0.5
#: What has no understood name must leave less than half of a value's energy unexplained.
_EXPLAINED = math.sqrt(0.5)


class Side(Protocol):
    """The reference: a run of refnet, or arrays from elsewhere."""

    @property
    def values(self) -> Sequence[Value]:
        """All its values, in network order."""

    @property
    def names(self) -> Mapping[str, Value]:
        """Its values by each of their names."""

    @property
    def places(self) -> Mapping[str, Sequence[Value]]:
        """The values at each place, in their order."""

    def arrays(self, values: Iterable[Value]) -> dict[int, np.ndarray]:
        """The arrays of some values, by their indices."""


class Pair(NamedTuple):
    """An array and the value that it is compared with.

    Attributes
    ----------
    name : str
        The array's.
    value : Value
        The reference's.
    layout : Layout or None
        How the array is read; None: its shape cannot be the value's.
    how : str
        How they found each other: "mapping", "the same name", "by shape", "by value", or whose name it is.
    note : str
        What the array holds instead of what its name says, or "".
    preferred : Value
        What its name says.
    instead : str
        What the name says, in words, where the reference lacks it and has but what follows at the same place.
    """

    name: str
    value: Value
    layout: Layout | None
    how: str
    note: str = ""
    preferred: Value | None = None
    instead: str = ""


@dataclass
class Alignment:
    """Which arrays are which values.

    Attributes
    ----------
    pairs : list of Pair
        In network order.
    unmatched : dict of str to str
        The arrays that are none of the values, each with the most similar name among these, or "".
    dialects : list of str
        Whose names the arrays have.
    """

    pairs: list[Pair] = field(default_factory=list)
    unmatched: dict[str, str] = field(default_factory=dict)
    dialects: list[str] = field(default_factory=list)


def align(
    theirs: Mapping[str, np.ndarray], ours: Side, mapping: Mapping[str, str] | None = None, *, by_value: bool = True
) -> Alignment:
    """Find the value that each array is.

    Parameters
    ----------
    theirs : mapping of str to array
        In network order, where that is known.
    ours : Side
    mapping : mapping of str to str, optional
        Names of arrays, and the names of the values that they are.
    by_value : bool
        Whether arrays whose names are not understood are found by shape, order and values.

    Returns
    -------
    Alignment

    Raises
    ------
    ConfigError
        ``mapping`` names what is not there.
    InputError
        No array is any of the values: the message lists names of both sides.
    """
    mapping = dict(mapping or {})
    _check_mapping(mapping, theirs, ours)
    sited = sites_of([name for name in theirs if name not in mapping])
    places = ours.places
    aligner = _Aligner(theirs, ours)
    spelled = _by_spelling(ours.names)
    for name in theirs:
        if name in mapping:
            aligner.choose(name, [ours.names[mapping[name]]], "mapping")
        elif name in ours.names:
            aligner.choose(name, [ours.names[name], *_others(ours.names[name], sited.get(name), places)], SAME_NAME)
        elif (value := spelled.get(_spelling(name))) is not None:
            aligner.choose(name, [value, *_others(value, None, places)], "the same name, with other separators")
        elif candidates := _candidates(sited.get(name), places):
            aligner.choose(name, candidates, sited[name].dialect, _lacking(sited[name], candidates[0]))
    pairs = aligner.pairs()
    # A name that means many things says nothing against the shape.
    vague = {pair.name for pair in pairs if pair.layout is None and pair.how == COMMON}
    left = [name for name in theirs if name not in aligner.chosen or name in vague]
    if left and by_value:
        by_values = _by_value(left, theirs, ours, {pair.value.index for pair in pairs if pair.name not in vague})
        elsewhere = {pair.name for pair in by_values}
        pairs = [pair for pair in pairs if pair.name not in elsewhere] + by_values
    found = {pair.name for pair in pairs}
    unmatched = [name for name in theirs if name not in found]
    if not pairs:
        raise InputError(
            f"None of the names, shapes and values is one of the reference's. There are {listed(list(theirs))}; the "
            f"reference has {listed([value.name for value in ours.values if value.end_point])}. Pass --map "
            "THEIRS=OURS (mapping= in Python).",
            found=list(theirs)[:20],
        )
    place = {name: i for i, name in enumerate(theirs)}
    pairs.sort(key=lambda pair: (pair.value.index, place[pair.name]))
    near = nearest([(name, ()) for name in unmatched], {value.name: () for value in ours.values if value.end_point})
    dialects = dialects_of(sited[name] for name in sited if name in found)
    return Alignment(pairs, {name: near.get(name, "") for name in unmatched}, dialects)


def _spelling(name: str) -> str:
    """A name without its separators, for which file systems have others."""
    return re.sub(r"[^a-z0-9]+", "_", name[:_LONGEST].lower())


def _by_spelling(names: Mapping[str, Value]) -> dict[str, Value | None]:
    """The values by their names without separators; None for names that are the same then."""
    found: dict[str, Value | None] = {}
    for name, value in names.items():
        key = _spelling(name)
        found[key] = value if found.get(key, value) is value else None
    return found


def _check_mapping(mapping: Mapping[str, str], theirs: Mapping[str, np.ndarray], ours: Side) -> None:
    for their, our in mapping.items():
        for name, there, whose in ((their, theirs.keys(), "arrays"), (our, ours.names.keys(), "reference's values")):
            if name not in there:
                near = nearest([(name, ())], dict.fromkeys(there, ())).get(name, "")
                hint = f" (is it {near}?)" if near else ""
                raise ConfigError(
                    f"The mapping {their}={our} names {name!r}, which is not among the {whose}{hint}; they are "
                    f"{listed(list(there))}.",
                    found=name,
                )


def _others(value: Value, sited: Sited | None, places: Mapping[str, Sequence[Value]]) -> list[Value]:
    """The other values that an array can hold whose name means one."""
    explicit = sited is not None and sited.sites[0][1] in ("act", "softmax")
    at = places.get(value.place, ())
    # What follows in place, or is joined with the layer: a later value. Never an earlier one, as then something is
    # missing; but a layer's name can mean the value before its ReLU.
    later = [] if explicit else [v for v in at if v.index > value.index]
    unit = [] if explicit else [v for v in places.get(unit_of(value.place), ()) if v.index > value.index]
    before = [v for v in at if v.index < value.index][-1:] if value.stage == "act" and not explicit else []
    return [*later, *reversed(unit), *before]


def _candidates(sited: Sited | None, places: Mapping[str, Sequence[Value]]) -> list[Value]:
    """The values that a name can mean, the likeliest first."""
    if sited is None:
        return []
    found: list[Value] = []
    for place, stage in sited.sites:
        at = places.get(place, ())
        found += [value for value in at if value.stage == stage] if stage else at[-1:]
    there = next((places[place] for place, _ in sited.sites if place in places), None)
    if not found and there:
        # What a file calls by the name of a layer is the end of the layer.
        found = [there[-1]]
    if not found:
        return []
    likeliest = found[0]
    elsewhere = [value for value in found if value.place != likeliest.place]
    return list(dict.fromkeys([likeliest, *elsewhere, *_others(likeliest, sited, places)]))


#: Stages that a name may mean as well as the likeliest one.
_EQUAL = {"bias": ("bias", "conv"), "conv": ("conv", "bias"), "squeeze": ("squeeze", "bias"), "mean": ("mean", "")}


def _lacking(sited: Sited, found: Value) -> str:
    """What a name says, in words, if the first value that it can mean is not that."""
    place, stage = sited.sites[0]
    meant = (*_EQUAL.get(stage, (stage,)), "")
    if not stage or not found.stage or found.place != place or found.stage in meant:
        return ""
    return WORDS.get(stage, f"the stage {stage!r}")


class _Aligner:
    """Collects what each array can be, and decides once it is known which of the reference's values are needed."""

    def __init__(self, theirs: Mapping[str, np.ndarray], ours: Side) -> None:
        self._theirs, self._ours = theirs, ours
        self.chosen: dict[str, tuple[list[Value], str]] = {}
        self._lacking: dict[str, str] = {}

    def choose(self, name: str, candidates: list[Value], how: str, lacking: str = "") -> None:
        """Note what an array can be, and what its name says if that is not among it."""
        self.chosen[name] = (candidates, how)
        self._lacking[name] = lacking

    def pairs(self) -> list[Pair]:
        """Decide."""
        fitting = {name: self._fitting(name) for name in self.chosen}
        needed = {v.index: v for found in fitting.values() if len(found) > 1 for v, _ in found}
        arrays = self._ours.arrays(needed.values())
        usual = usual_order((self._theirs[name].shape, found[0][0].shape) for name, found in fitting.items() if found)
        return [self._pair(name, fitting[name], arrays, usual) for name in self.chosen]

    def _fitting(self, name: str) -> list[tuple[Value, Layout]]:
        """The candidates whose shape the array can have, with the layouts; whole ones before subsampled ones."""
        candidates, _ = self.chosen[name]
        shape = self._theirs[name].shape
        found = [(value, layout) for value in candidates for layout in layouts_of(shape, value.shape)]
        whole = [(value, layout) for value, layout in found if layout.step == layout.own_step == 1]
        return whole or found

    def _pair(
        self, name: str, fitting: list[tuple[Value, Layout]], arrays: Mapping[int, np.ndarray], usual: str
    ) -> Pair:
        candidates, how = self.chosen[name]
        if not fitting:
            return Pair(name, candidates[0], None, how, preferred=candidates[0])
        # Of one value, the layout that the other arrays have comes first.
        ranks = {value.index: rank for rank, (value, _) in reversed(list(enumerate(fitting)))}
        fitting = sorted(fitting, key=lambda entry: (ranks[entry[0].index], entry[1].order != usual))
        value, layout = fitting[0]
        if len(fitting) > 1:
            array = self._theirs[name]
            distances = [distance(arrays[v.index], array, form) for v, form in fitting]
            best = min(range(len(fitting)), key=distances.__getitem__)
            if distances[best] < _CLOSER * distances[0]:
                value, layout = fitting[best]
        preferred = next(v for v in candidates if v.index in ranks)
        return Pair(name, value, layout, how, _note(value, preferred), preferred, self._lacking[name])


def usual_order(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """The order of axes that most arrays have whose shape allows a single one.

    Parameters
    ----------
    shapes : iterable of (tuple of int, tuple of int)
        Those of an array, and of its value.

    Returns
    -------
    str
    """
    counts = {order: 0 for order in ORDERS if order not in SWAPPED}
    for found, expected in shapes:
        orders = [layout.order for layout in layouts_of(found, expected) if layout.order in counts]
        if len(orders) == 1 and len(expected) == 4:
            counts[orders[0]] += 1
    return max(counts, key=counts.__getitem__)


def _note(value: Value, preferred: Value) -> str:
    """What an array holds instead of what its name says."""
    if value is preferred or (value.place, value.stage) == (preferred.place, preferred.stage):
        return ""
    if value.place != preferred.place and value.place == unit_of(preferred.place):
        return "it holds the value at the end of its unit: the sum is made in place, over what a hook has seen"
    if value.place != preferred.place:
        return f"it holds the value of {value.name}"
    if (preferred.stage, value.stage) in (("norm", "act"), ("sum", "act")):
        return "it holds the value after the ReLU: an in-place ReLU has overwritten it, or the layer includes the ReLU"
    if value.stage == "norm" and preferred.stage in ("conv", "bias"):
        return "it holds the value of the norm, which is folded into the convolution"
    if value.stage == "act" and preferred.stage in ("conv", "bias"):
        return "it holds the value after norm and ReLU, which the layer includes"
    if preferred.stage == "act":
        return "it holds the value before the ReLU"
    return f"it holds {WORDS.get(value.stage, f'the value of {value.name}')}"


def _by_value(left: Sequence[str], theirs: Mapping[str, np.ndarray], ours: Side, taken: set[int]) -> list[Pair]:
    """Find what has no understood name: by the values, else by shape and order among the end points that are left."""
    fitting: dict[str, list[tuple[Value, Layout]]] = {}
    for name in left:
        found = [(value, layout) for value in ours.values for layout in layouts_of(theirs[name].shape, value.shape)]
        fitting[name] = [entry for entry in found if entry[1].step == entry[1].own_step == 1]
    arrays = ours.arrays({value.index: value for found in fitting.values() for value, _ in found}.values())
    pairs, rest = [], []
    for name, found in fitting.items():
        distances = [distance(arrays[value.index], theirs[name], layout) for value, layout in found]
        best = min(range(len(found)), key=distances.__getitem__, default=None)
        if best is not None and distances[best] < _EXPLAINED:
            pairs.append(Pair(name, *found[best], "by value"))
        elif found:
            rest.append(name)
    taken = taken | {pair.value.index for pair in pairs}
    by_shapes: dict[tuple[int, ...], list[str]] = {}
    for name in rest:
        free = [value.index for value, _ in fitting[name] if value.end_point and value.index not in taken]
        by_shapes.setdefault(tuple(dict.fromkeys(free)), []).append(name)
    for indices, names in by_shapes.items():
        if len(indices) != len(names):
            continue
        for index, name in zip(indices, names, strict=True):
            value, layout = next((value, layout) for value, layout in fitting[name] if value.index == index)
            pairs.append(Pair(name, value, layout, "by shape" if len(names) == 1 else "by shape and order"))
    return pairs
