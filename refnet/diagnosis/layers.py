"""Where values within the network were observed: each stretch between two of them is diagnosed by itself.

A stretch is computed from what was *observed* at its beginning. So a mistake shows only in the stretch that it is in,
and several mistakes cost no more than one. What is named is the fewest mistakes that, together, give what was observed
in every stretch, also in those that are right.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Context, Hypothesis
from refnet.diagnosis.observing import Point
from refnet.diagnosis.pairs import pairs
from refnet.diagnosis.patched import EVERYWHERE, Label, is_within, unit_of
from refnet.diagnosis.search import Candidate, Explanation, Progress, Search
from refnet_kernels.contract import FloatArray

#: A mistake, by its id, site and value.
Name = tuple[str, str, object]


def name_of(hypothesis: Hypothesis) -> Name:
    """The name of a hypothesis."""
    return hypothesis.mistake.id, hypothesis.site, hypothesis.value


class Way(NamedTuple):
    """Mistakes that together explain a stretch.

    Attributes
    ----------
    hypotheses : dict of Name to Hypothesis
    explanation : Explanation
    """

    hypotheses: dict[Name, Hypothesis]
    explanation: Explanation


@dataclass(frozen=True, eq=False)
class Stretch:
    """The network between an observed value and those before it.

    Attributes
    ----------
    point : Point
        Its end.
    search : Search
    sites : set of str
    candidates : list of Candidate
        What was tried; empty where the stretch is right.
    ways : list of Way
        What explains it.
    """

    point: Point
    search: Search
    sites: set[str]
    candidates: list[Candidate] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether rounding explains what differs."""
        return self.search.before.is_within

    @property
    def names(self) -> set[Name]:
        """All mistakes that explain it, alone or with others."""
        return {name for way in self.ways for name in way.hypotheses}

    def concerned(self, hypotheses: Iterable[Hypothesis]) -> tuple[Hypothesis, ...]:
        """Those that may change anything here."""
        return tuple(
            hypothesis
            for hypothesis in hypotheses
            if not hypothesis.patches
            or any(is_within(site, patch.site) for patch in hypothesis.patches for site in self.sites)
        )

    def fits(self, hypotheses: Iterable[Hypothesis]) -> bool:
        """Whether a port with these mistakes gives what was observed here."""
        here = self.concerned(hypotheses)
        return self.search.fits(here) if here else self.is_right


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
        stretch = Stretch(point, search, here.sites(search.wanted(here.reference)))
        if not stretch.is_right and search.telling:
            possible = stretch.concerned(hypotheses)
            for is_known in (True, False):
                some = [entry for entry in possible if (name_of(entry) in known) is is_known]
                candidates, explained = search.in_turn(some)
                stretch.candidates.extend(candidates)
                if explained:
                    break
            for entry in explained:
                (hypothesis,) = entry.candidate.hypotheses
                known.add(name_of(hypothesis))
                stretch.ways.append(Way({name_of(hypothesis): hypothesis}, entry))
        found.append(stretch)
        if point.outputs.label is not None:
            given[point.outputs.label] = point.outputs.values
    progress("layers", len(points), len(points))
    return found


def _in_parts(stretch: Stretch, hypothesis: Hypothesis, context: Context) -> tuple[Hypothesis, ...]:
    """A mistake in a wide place, as the same in those parts of it that the stretch covers; or nothing."""
    patches = hypothesis.patches
    if not patches or any(patch.site != hypothesis.site for patch in patches):
        return ()
    every = [
        call.site
        for call in context.calls
        if any(
            patch.method == call.method and is_within(call.site, patch.site) and patch.where(call) for patch in patches
        )
    ]
    places = [site for site in every if site in stretch.sites]
    return tuple(hypothesis.at(site) for site in _parts(places, every))


def _parts(places: Sequence[str], every: Sequence[str]) -> list[str]:
    """The widest sites that hold all of these places, and no other place where the mistake can be."""
    left = dict.fromkeys(places)
    for wider in (lambda site: site.split("/")[0] if "/" in site else "", unit_of):
        groups: dict[str, set[str]] = defaultdict(set)
        for site in every:
            groups[wider(site)].add(site)
        for group, members in groups.items():
            if group and len(members) > 1 and members <= set(places):
                left = dict.fromkeys(group if site in members else site for site in left)
    return list(left)


def add_pairs(found: Sequence[Stretch], limit: float) -> None:
    """Find two mistakes at once in stretches that no single one explains; for so many seconds in all.

    What explains an earlier one is tried first; where that fits, no other pair is looked for.
    """
    end = time.monotonic() + limit
    known: dict[frozenset[Name], tuple[Hypothesis, ...]] = {}
    for stretch in found:
        if not stretch.search.telling:
            continue
        again = [pair for pair in known.values() if len(stretch.concerned(pair)) == len(pair)]
        explained = stretch.search.explanations(stretch.search.pairs_of(again))
        if not explained and not any(stretch.fits(pair) for pair in known.values()):
            usual = [candidate for candidate in stretch.candidates if not candidate.hypotheses[0].late]
            alone = [candidate.hypotheses[0] for candidate in usual]
            explained = pairs(stretch.search, usual, alone, max(end - time.monotonic(), 0.0))
        alike, keys = _alike(stretch.candidates)
        for entry in explained:
            for pair in product(
                *(
                    alike[keys[id(hypothesis)]] if id(hypothesis) in keys else [hypothesis]
                    for hypothesis in entry.candidate.hypotheses
                )
            ):
                way = Way({name_of(hypothesis): hypothesis for hypothesis in pair}, entry)
                known[frozenset(way.hypotheses)] = pair
                stretch.ways.append(way)


def _alike(candidates: Sequence[Candidate]) -> tuple[dict[object, list[Hypothesis]], dict[int, object]]:
    """Which single mistakes give the same in a stretch: by what they give; and that by the hypothesis."""
    alike: dict[object, list[Hypothesis]] = defaultdict(list)
    keys: dict[int, object] = {}
    for candidate in candidates:
        (hypothesis,) = candidate.hypotheses
        alike[candidate.key].append(hypothesis)
        keys[id(hypothesis)] = candidate.key
    return alike, keys


class Choice(NamedTuple):
    """What explains all stretches.

    Attributes
    ----------
    mistakes : list of (Explanation, Stretch)
        One for each mistake, with the stretch that shows it.
    ties : list of (Explanation, Stretch)
        Those that would do as well in place of one of them.
    unexplained : list of Stretch
    limited : list of Hypothesis
        Wide ones that explain some stretches, and are not made in others.
    """

    mistakes: list[tuple[Explanation, Stretch]]
    ties: list[tuple[Explanation, Stretch]]
    unexplained: list[Stretch]
    limited: list[Hypothesis]


class _Chooser:
    """The fewest mistakes that explain all stretches.

    A mistake that would change a stretch for the worse is not made there: it is left out, and the same in narrower
    places may take its place.
    """

    def __init__(self, found: Sequence[Stretch], hypotheses: Sequence[Hypothesis], context: Context) -> None:
        self.found = found
        self._hypotheses, self._context = hypotheses, context
        self.differing = [stretch for stretch in found if not stretch.is_right]
        self.support = Counter(name for stretch in self.differing for name in stretch.names)
        self.banned: dict[Name, Hypothesis] = {}
        self._fits: dict[tuple[int, frozenset[Name]], bool] = {}

    def fits(self, stretch: Stretch, hypotheses: Iterable[Hypothesis]) -> bool:
        here = stretch.concerned(hypotheses)
        key = id(stretch), frozenset(map(name_of, here))
        if key not in self._fits:
            self._fits[key] = stretch.fits(here)
        return self._fits[key]

    def choose(self) -> Choice:
        while True:
            ways, unexplained = self._covered()
            named = {name: hypothesis for way in ways for name, hypothesis in way.hypotheses.items()}
            wrong = self._contradicted(named, unexplained)
            if not wrong:
                break
            self.banned |= wrong
            for hypothesis in wrong.values():
                self._narrow(hypothesis)
        shown = {name: (entry, stretch) for way in ways for name, entry, stretch in self._shown(way)}
        order = {id(stretch): number for number, stretch in enumerate(self.found)}
        mistakes = sorted(shown.values(), key=lambda pair: order[id(pair[1])])
        return Choice(mistakes, self._ties(named), unexplained, list(self.banned.values()))

    def _narrow(self, wide: Hypothesis) -> None:
        """Add the ways in which the same mistake, in narrower places, explains what the wide one does."""
        same = [entry for entry in self._hypotheses if (entry.mistake.id, entry.value) == (wide.mistake.id, wide.value)]
        for stretch in self.differing:
            narrow = [(entry,) for entry in stretch.concerned(same)] + [_in_parts(stretch, wide, self._context)]
            known = {frozenset(way.hypotheses) for way in stretch.ways}
            for way in [way for way in stretch.ways if name_of(wide) in way.hypotheses]:
                rest = [entry for entry in way.hypotheses.values() if name_of(entry) != name_of(wide)]
                for part in filter(None, narrow):
                    named = {name_of(entry): entry for entry in (*rest, *part)}
                    if frozenset(named) not in known:
                        known.add(frozenset(named))
                        candidate = stretch.search.candidate(tuple(named.values()))
                        if candidate is not None and candidate.key == way.explanation.candidate.key:
                            stretch.ways.append(Way(named, Explanation(candidate, way.explanation.fit)))

    def _covered(self) -> tuple[list[Way], list[Stretch]]:
        """Ways that explain the stretches, those that explain most first; and what nothing explains."""
        ways: list[Way] = []
        named: dict[Name, Hypothesis] = {}
        left = list(self.differing)
        while True:
            left = [
                stretch
                for stretch in left
                if not (
                    any(set(way.hypotheses) <= set(named) for way in stretch.ways) or self.fits(stretch, named.values())
                )
            ]
            possible = [self._new(stretch, named) for stretch in left]
            options: dict[frozenset[Name], Way] = {}
            for new in possible:
                for names, way in new.items():
                    options.setdefault(names, way)
            if not options:
                return ways, left

            def worth(
                names: frozenset[Name], possible: Sequence[dict[frozenset[Name], Way]] = possible
            ) -> tuple[float, int, int]:
                covered = sum(any(others <= names for others in new) for new in possible)
                narrow = sum(_narrowness(name[1]) for name in names)
                return covered / len(names), sum(self.support[name] for name in names), narrow

            best = max(options, key=worth)
            ways.append(options[best])
            named |= options[best].hypotheses

    def _new(self, stretch: Stretch, named: dict[Name, Hypothesis]) -> dict[frozenset[Name], Way]:
        """The ways that explain a stretch, by what they need beside what is named already."""
        found: dict[frozenset[Name], Way] = {}
        for way in stretch.ways:
            if not set(way.hypotheses) & set(self.banned):
                found.setdefault(frozenset(set(way.hypotheses) - set(named)), way)
        return found

    def _contradicted(self, named: dict[Name, Hypothesis], unexplained: Sequence[Stretch]) -> dict[Name, Hypothesis]:
        """Of what is named, that which some stretch shows not to be made in it."""
        for stretch in self.found:
            here = stretch.concerned(named.values())
            if not here or stretch in unexplained or self.fits(stretch, here):
                continue
            needed = {
                name: hypothesis
                for way in stretch.ways if set(way.hypotheses) <= set(named)
                for name, hypothesis in way.hypotheses.items()
            }  # fmt: skip
            wrong = {
                name_of(entry): entry
                for entry in here
                if name_of(entry) not in needed and not self.fits(stretch, [*needed.values(), entry])
            }
            if wrong:
                return wrong
        return {}

    def _shown(self, way: Way) -> list[tuple[Name, Explanation, Stretch]]:
        """The mistakes of a way, each with the stretch where it counts and what is left there with all of them."""
        stretch = next(stretch for stretch in self.differing if way in stretch.ways)
        return [
            (
                name,
                Explanation(replace(way.explanation.candidate, hypotheses=(hypothesis,)), way.explanation.fit),
                stretch,
            )
            for name, hypothesis in way.hypotheses.items()
        ]

    def _ties(self, named: dict[Name, Hypothesis]) -> list[tuple[Explanation, Stretch]]:
        """What would do as well in place of one of the mistakes that are named."""
        ties: list[tuple[Explanation, Stretch]] = []
        said = {(name[0], name[2]) for name in named}
        explained = [stretch for stretch in self.found if self.fits(stretch, named.values())]
        for name in named:
            rest = {other: hypothesis for other, hypothesis in named.items() if other != name}
            here = [stretch for stretch in self.differing if name in stretch.names]
            for way in (way for stretch in here[:1] for way in stretch.ways):
                new = [other for other in way.hypotheses if other not in named]
                if len(new) != 1 or (new[0][0], new[0][2]) in said or set(way.hypotheses) & set(self.banned):
                    continue
                instead = {**rest, new[0]: way.hypotheses[new[0]]}
                if all(self.fits(stretch, instead.values()) for stretch in explained):
                    said.add((new[0][0], new[0][2]))
                    ties += [(entry, stretch) for other, entry, stretch in self._shown(way) if other == new[0]]
        return ties


def chosen(found: Sequence[Stretch], hypotheses: Sequence[Hypothesis], context: Context) -> Choice:
    """The fewest mistakes that explain all stretches which differ, and leave the others as they are."""
    return _Chooser(found, hypotheses, context).choose()


def _narrowness(site: str) -> int:
    return -1 if site == EVERYWHERE else site.count("/")
