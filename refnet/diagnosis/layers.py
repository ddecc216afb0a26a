"""Where values within the network were observed: each stretch between two of them is diagnosed by itself.

A stretch is computed from what was *observed* at its beginning. So a mistake shows only in the stretch that it is in,
and several mistakes cost no more than one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Hypothesis
from refnet.diagnosis.observing import Point
from refnet.diagnosis.pairs import pairs
from refnet.diagnosis.patched import EVERYWHERE, Label, is_within
from refnet.diagnosis.search import Candidate, Explanation, Progress, Search
from refnet_kernels.contract import FloatArray

#: A mistake, by its id, site and value.
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
    """Each stretch by itself, in network order.

    What explains an earlier one is tried first, and the rest only if it does not: another mistake would not make the
    answer shorter.
    """
    found: list[Stretch] = []
    given: dict[Label, FloatArray] = {}
    known: set[Name] = set()
    for number, point in enumerate(points):
        progress("layers", number, len(points))
        here = lab.within(given)
        search = Search(here, point.outputs)
        candidates: list[Candidate] = []
        explained: dict[Name, Explanation] = {}
        if not search.before.is_within:
            sites = here.sites(search.wanted(here.reference))
            possible = [entry for entry in hypotheses if _concerns(entry, sites)]
            for is_known in (True, False):
                candidates += search.singles([entry for entry in possible if (name_of(entry) in known) is is_known])
                explained = {name_of(entry.candidate.hypotheses[0]): entry for entry in search.explanations(candidates)}
                if explained:
                    break
            known |= set(explained)
        found.append(Stretch(point, search, candidates, explained))
        if point.outputs.label is not None:
            given[point.outputs.label] = point.outputs.values
    progress("layers", len(points), len(points))
    return found


def pairs_in(
    found: Sequence[Stretch], named: Sequence[Explanation], limit: float
) -> tuple[list[Explanation], list[Stretch]]:
    """Two mistakes at once in stretches that no single one explains.

    Of those that give the same in a stretch, what is named already goes first, then what explains most of the others.

    Parameters
    ----------
    found : sequence of Stretch
    named : sequence of Explanation
        The mistakes of the other stretches.
    limit : float
        Seconds for all of it.

    Returns
    -------
    mistakes : list of Explanation
    unexplained : list of Stretch
    """
    end = time.monotonic() + limit
    open_ = [stretch for stretch in found if not stretch.is_right and not stretch.found]
    possible = [_alternatives(stretch, max(end - time.monotonic(), 0.0)) for stretch in open_]
    counts = Counter(name for pairs_here in possible for name in {name_of(h) for _, pair in pairs_here for h in pair})
    said = {name_of(entry.candidate.hypotheses[0]) for entry in named}
    mistakes: list[Explanation] = []

    def cost(alternative: tuple[Explanation, Sequence[Hypothesis]]) -> tuple[int, int, int]:
        left = [name for name in map(name_of, alternative[1]) if name not in said]
        return len(left), -sum(counts[name] for name in left), -sum(_narrowness(name[1]) for name in left)

    for stretch, alternatives in zip(open_, possible, strict=True):
        if alternatives:
            entry, pair = min(alternatives, key=cost)
            missing = tuple(hypothesis for hypothesis in pair if name_of(hypothesis) not in said)
            said |= set(map(name_of, missing))
            entry = Explanation(replace(entry.candidate, hypotheses=missing), entry.fit)
            stretch.found[name_of(pair[0])] = entry
            mistakes += [entry] if missing else []
    return mistakes, [stretch for stretch in open_ if not stretch.found]


def _alternatives(stretch: Stretch, limit: float) -> list[tuple[Explanation, tuple[Hypothesis, ...]]]:
    """The pairs that explain a stretch, and with them those whose parts give the same in it."""
    alike: dict[object, list[Hypothesis]] = defaultdict(list)
    keys: dict[int, object] = {}
    for candidate in stretch.candidates:
        (hypothesis,) = candidate.hypotheses
        alike[candidate.key].append(hypothesis)
        keys[id(hypothesis)] = candidate.key
    alone = [candidate.hypotheses[0] for candidate in stretch.candidates]
    return [
        (entry, pair)
        for entry in pairs(stretch.search, stretch.candidates, alone, limit)
        for pair in product(*(alike[keys[id(hypothesis)]] for hypothesis in entry.candidate.hypotheses))
    ]


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
