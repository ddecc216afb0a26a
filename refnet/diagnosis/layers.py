"""Where values within the network were observed: each stretch between two of them is diagnosed by itself.

A stretch is computed from what was *observed* at its beginning. So a mistake shows only in the stretch that it is in,
and several mistakes cost no more than one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Hypothesis
from refnet.diagnosis.observing import Point
from refnet.diagnosis.pairs import pairs
from refnet.diagnosis.patched import EVERYWHERE, Label, is_within
from refnet.diagnosis.search import Candidate, Explanation, Progress, Search
from refnet_kernels.contract import FloatArray

#: A mistake, by its id, site and value; of two at once each of these is both of theirs.
Name = tuple[str, str, object]


class Stretch(NamedTuple):
    """The network between an observed value and those before it.

    Attributes
    ----------
    point : Point
        Its end.
    search : Search
    candidates : list of Candidate
        What was tried; empty where the stretch is right.
    found : dict of Name to Explanation
        The mistakes that explain it.
    """

    point: Point
    search: Search
    candidates: list[Candidate]
    found: dict[Name, Explanation]

    @property
    def is_right(self) -> bool:
        """Whether rounding explains what differs."""
        return self.search.before.is_within


def name_of(hypothesis: Hypothesis) -> Name:
    """The name of a hypothesis."""
    return hypothesis.mistake.id, hypothesis.site, hypothesis.value


def stretches(lab: Lab, points: Sequence[Point], hypotheses: Sequence[Hypothesis], progress: Progress) -> list[Stretch]:
    """Each stretch by itself, in network order."""
    found: list[Stretch] = []
    given: dict[Label, FloatArray] = {}
    for number, point in enumerate(points):
        progress("layers", number, len(points))
        here = lab.within(given)
        search = Search(here, point.outputs)
        candidates: list[Candidate] = []
        explained: dict[Name, Explanation] = {}
        if not search.before.is_within:
            sites = here.sites(search.wanted(here.reference))
            candidates = search.singles([entry for entry in hypotheses if _concerns(entry, sites)])
            explained = {name_of(entry.candidate.hypotheses[0]): entry for entry in search.explanations(candidates)}
        found.append(Stretch(point, search, candidates, explained))
        if point.outputs.label is not None:
            given[point.outputs.label] = point.outputs.values
    progress("layers", len(points), len(points))
    return found


def with_pairs(found: Sequence[Stretch], limit: float) -> Sequence[Stretch]:
    """Look for two mistakes at once in the stretches that no single one explains, for so many seconds in all."""
    end = time.monotonic() + limit
    for stretch in found:
        if not stretch.is_right and not stretch.found:
            left = max(end - time.monotonic(), 0.0)
            narrow_first = stretch.candidates[::-1]  # of those that are the same in this stretch, the first is taken
            alone = [candidate.hypotheses[0] for candidate in narrow_first]
            for entry in pairs(stretch.search, narrow_first, alone, left):
                ids, sites, values = zip(*map(name_of, entry.candidate.hypotheses), strict=True)
                stretch.found[" and ".join(ids), " and ".join(sites), values] = entry
    return found


def _concerns(hypothesis: Hypothesis, sites: set[str]) -> bool:
    """Whether a mistake may change anything at these sites."""
    patches = hypothesis.patches
    return not patches or any(is_within(site, patch.site) for patch in patches for site in sites)


def chosen(found: Sequence[Stretch]) -> tuple[list[Explanation], list[Explanation], list[Stretch]]:
    """The fewest mistakes that explain all stretches which differ.

    Returns
    -------
    mistakes : list of Explanation
    ties : list of Explanation
        Those that would do as well in place of one of them.
    unexplained : list of Stretch
    """
    left = [stretch for stretch in found if not stretch.is_right and stretch.found]
    unexplained = [stretch for stretch in found if not stretch.is_right and not stretch.found]
    mistakes: list[Explanation] = []
    ties: list[Explanation] = []
    while left:
        names = list(dict.fromkeys(name for stretch in left for name in stretch.found))
        covered = {name: sum(name in stretch.found for stretch in left) for name in names}
        most = max(covered.values())
        best = [name for name in names if covered[name] == most]
        # A mistake in few places before one that is said to be everywhere.
        first = max(best, key=lambda name: _narrowness(name[1]))
        stretch = next(stretch for stretch in left if first in stretch.found)
        mistakes.append(stretch.found[first])
        said = {(first[0], first[2])}
        for name in best:
            if (name[0], name[2]) not in said and name in stretch.found:
                said.add((name[0], name[2]))
                ties.append(stretch.found[name])
        left = [stretch for stretch in left if first not in stretch.found]
    return mistakes, ties, unexplained


def _narrowness(site: str) -> int:
    return -1 if site == EVERYWHERE else site.count("/")
