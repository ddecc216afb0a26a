"""The record of a porting mistake, and what is tried because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from refnet.diagnosis.patched import EVERYWHERE, Around, Call, Patch, sites_of, units_of
from refnet.diagnosis.pixels import Pipeline
from refnet.network.architecture import Architecture
from refnet.weights.conversion import Moments

Value = str | float | None


class Mend(NamedTuple):
    """How to mend a port, by its framework; a line each."""

    pytorch: str
    keras: str
    tensorflow: str
    onnx: str


class Context(NamedTuple):
    """What the mistakes need to know of a network to say where they can occur in it.

    Attributes
    ----------
    calls : list of Call
        The calls by which the network is built as it is meant.
    architecture : Architecture
    options : mapping of str to Any
        The options of the network that is meant.
    shapes : mapping of str to tuple of int
        The shapes of the variables.
    pipeline : Pipeline
        How the pixels become the network's input.
    classes : int or None
    moments : mapping of str to Moments
        What the kernels that were standardised had before, by their sites.
    """

    calls: Sequence[Call]
    architecture: Architecture
    options: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    pipeline: Pipeline
    classes: int | None
    moments: Mapping[str, Moments] = MappingProxyType({})

    @property
    def version(self) -> int:
        """1 or 2."""
        return 1 if self.architecture.family.name.endswith("v1") else 2


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One mistake at one site: the network, its images or its outputs as the port has them.

    Attributes
    ----------
    mistake : Mistake
    site : str
    value : str, float or None
    patches : tuple of Patch
    options : mapping of str to Any
        Options of the engine that differ.
    pixels : callable, optional
        ``pixels(pipeline)``: the port's.
    end : callable, optional
        ``end(ending)``: the port's.
    noise : float
        By how much the port's pixels may differ from these, of 255 levels.
    late : bool
        Whether it is tried only if nothing else explains what was observed.
    """

    mistake: Mistake
    site: str = EVERYWHERE
    value: Value = None
    patches: tuple[Patch, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    pixels: Callable[[Pipeline], Pipeline] | None = None
    end: Callable[[Ending], Ending] | None = None
    noise: float = 0.0
    late: bool = False

    def at(self, site: str) -> Hypothesis:
        """The same mistake of the network at another site."""
        return replace(self, site=site, patches=tuple(patch._replace(site=site) for patch in self.patches))


class Ending(NamedTuple):
    """What a port makes of its logits.

    Attributes
    ----------
    offset : int
        How many classes it drops at the beginning, or if it is negative, adds.
    softmax : int
        How many times it takes the softmax beyond what is meant.
    """

    offset: int = 0
    softmax: int = 0


@dataclass(frozen=True, eq=False)
class Mistake:
    """A row of the catalogue.

    Attributes
    ----------
    id : str
    does, should : str
        What the port does, and what it must do. ``{site}`` and ``{value}`` stand for the hypothesis's.
    mend : Mend
    sources : tuple of str
        Where people met it: repository#thread.
    propose : callable
        ``propose(mistake, context)``: the hypotheses to try.
    coarse : bool
        Whether a port that makes it gives other values than refnet does with it: it rounds coarsely, and which way a
        value near a tie goes depends on the last bit of a sum.
    """

    id: str
    does: str
    should: str
    mend: Mend
    sources: tuple[str, ...]
    propose: Callable[[Mistake, Context], Iterable[Hypothesis]]
    coarse: bool = False


class Edit(NamedTuple):
    """What a mistake does to one method of the graph.

    Attributes
    ----------
    method : str
    where : callable
        Whether it can occur at a call.
    around : callable
        ``around(value)``: for `Patch`.
    """

    method: str
    where: Callable[[Call], bool]
    around: Callable[[Any], Around]


def in_graph(
    *edits: Edit,
    values: Sequence[Value] = (None,),
    versions: tuple[int, ...] = (1, 2),
    by_unit: bool = False,
    only_everywhere: bool = False,
    seldom_narrow: bool = False,
) -> Callable[[Mistake, Context], Iterator[Hypothesis]]:
    """Hypotheses of a mistake in the network, at each of its sites and with each of its values.

    Whole units, of a mistake in their layers, are tried late.

    Parameters
    ----------
    *edits : Edit
    values : sequence
    versions : tuple of int
        The versions of the network in which it can occur.
    by_unit : bool
        Whether sites are units, though the calls are of their layers.
    only_everywhere : bool
        Whether nobody makes it in one place alone.
    seldom_narrow : bool
        Whether few make it in one place alone: there it is tried late.
    """

    def propose(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
        if context.version not in versions:
            return
        found = [c for c in context.calls if any(c.method == edit.method and edit.where(c) for edit in edits)]
        places = [call.unit if by_unit else call.site for call in found]
        sites = sites_of(places)
        wide, narrow = (sites[:1], sites[1:]) if only_everywhere or seldom_narrow else (sites, [])
        later = [] if only_everywhere else narrow + units_of(places)
        for site in wide + later:
            for value in values:
                patches = tuple(Patch(edit.method, edit.around(value), site, edit.where) for edit in edits)
                yield Hypothesis(mistake, site, value, patches, late=site in later)

    return propose


def fixed(around: Around) -> Callable[[Any], Around]:
    """For an edit that does not depend on a value."""
    return lambda value: around


def anywhere(call: Call) -> bool:
    """Every call of the method."""
    return True


def substitute(
    leaves: Sequence[str], tag: str, make: Callable[[np.ndarray], np.ndarray], where: Callable[[Call], bool] = anywhere
) -> Edit:
    """The edit by which a port has another array in place of some variables.

    Parameters
    ----------
    leaves : sequence of str
        "weights", "gamma", ...
    tag : str
        A name for ``make``; the same one for the same function.
    make : callable
    where : callable, optional
    """

    def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
        return call.graph.derive(proceed(leaf, shape), tag, make)

    return Edit("variable", lambda call: call.arguments[0] in leaves and where(call), fixed(around))
