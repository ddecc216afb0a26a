"""Two mistakes at once, from outputs alone.

All pairs would be too many. Two searches propose some. By *effects*: where two mistakes act as if they were added, what
each one changes of the outputs adds up to what was observed. By *beam*: beside each of the mistakes that explain most
by themselves, every other one is tried, from the values that the network has with the first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from refnet.diagnosis.mistake import Hypothesis
from refnet.diagnosis.patched import EVERYWHERE
from refnet.diagnosis.search import Candidate, Explanation, Search

#: Pairs that are tried because their effects add up.
BY_EFFECTS = 160
#: Mistakes beside which all others are tried.
BEAM = 8
#: Of these, sites and values of the same mistake.
OF_ONE_MISTAKE = 2
#: Pairs that are tried at a time, before it is looked whether one explains the outputs.
AT_ONCE = 40


def pairs(
    search: Search, candidates: Sequence[Candidate], hypotheses: Sequence[Hypothesis], limit: float
) -> list[Explanation]:
    """Pairs of mistakes that explain the outputs.

    Parameters
    ----------
    search : Search
    candidates : sequence of Candidate
        The single mistakes.
    hypotheses : sequence of Hypothesis
        All that can be tried beside another one, whether it can be compared alone or not.
    limit : float
        Seconds after which no more pairs are tried.

    Returns
    -------
    list of Explanation
        Those that cannot be told apart.
    """
    single = _distinct(candidates)
    others = [candidate.hypotheses[0] for candidate in single] if search.effect is not None else list(hypotheses)
    search.possible = max(search.possible, len(others) ** 2 // 2)
    end = time.monotonic() + limit
    for proposed in chain(_by_effects(search, single), _by_beam(search, single, others)):
        found = search.explanations(search.pairs_of(proposed))
        if found:
            return found
        if time.monotonic() > end:
            return []
    return []


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate per output: the first of those that give the same one."""
    return list({candidate.key: candidate for candidate in reversed(candidates)}.values())[::-1]


def _fit_together(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether a port can make both: not two values of one mistake in the same place."""
    if one.mistake.id != other.mistake.id:
        return True
    wide = EVERYWHERE in (one.site, other.site) or "pixels" in (one.site, other.site)
    return one.site != other.site and not wide


def _by_effects(search: Search, single: Sequence[Candidate]) -> Iterator[list[tuple[Hypothesis, ...]]]:
    """The pairs whose effects, added, come nearest to what was observed."""
    able = [candidate for candidate in single if candidate.effect is not None]
    observed = search.effect
    if observed is None or not able:
        return
    effects = np.stack([candidate.effect for candidate in able if candidate.effect is not None])
    # |t - a - b|^2 = |t|^2 + |a|^2 + |b|^2 - 2 t.a - 2 t.b + 2 a.b
    alone = np.einsum("ij,ij->i", effects, effects) - 2 * np.einsum("ij,j->i", effects, observed)
    left = alone[:, None] + alone[None, :] + 2 * (effects @ effects.T)
    left[np.tril_indices(len(able))] = np.inf
    order = np.argsort(left, axis=None)[: 4 * BY_EFFECTS]
    found: list[tuple[Hypothesis, ...]] = []
    for first, second in zip(*np.unravel_index(order, left.shape), strict=True):
        one, other = able[first].hypotheses[0], able[second].hypotheses[0]
        if np.isfinite(left[first, second]) and _fit_together(one, other):
            found.append((one, other))
    yield from _parts(found[:BY_EFFECTS])


def _varied(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in their order, but few sites and values of the same mistake."""
    counts: dict[str, int] = {}
    found = []
    for candidate in dict.fromkeys(candidates):
        name = candidate.hypotheses[0].mistake.id
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= OF_ONE_MISTAKE:
            found.append(candidate)
    return found


def _is_wide(hypothesis: Hypothesis) -> bool:
    return "/" not in hypothesis.site


def _by_beam(
    search: Search, single: Sequence[Candidate], others: Sequence[Hypothesis]
) -> Iterator[list[tuple[Hypothesis, ...]]]:
    """All pairs with those that leave the least error, or whose effect points most where the observed one does.

    Then those that are wide: in the pixels, everywhere, or at the end. Their effects are large, and seldom add up.
    """
    by_error = sorted(single, key=lambda candidate: candidate.error)
    by_direction = sorted(single, key=search.angle)
    beam = [*_varied([entry for both in zip(by_error, by_direction, strict=True) for entry in both])[:BEAM]]
    beam += [entry for entry in by_direction if _is_wide(entry.hypotheses[0]) and entry not in beam]
    for candidate in beam:
        first = candidate.hypotheses[0]
        with search.based_on(candidate):
            yield from _parts(
                [(first, other) for other in others if other is not first and _fit_together(first, other)]
            )


def _parts(found: list[tuple[Hypothesis, ...]]) -> Iterator[list[tuple[Hypothesis, ...]]]:
    for start in range(0, len(found), AT_ONCE):
        yield found[start : start + AT_ONCE]
