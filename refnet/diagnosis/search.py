"""Which of the known mistakes reproduce what was observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refnet.diagnosis.catalogue import MISTAKES
from refnet.diagnosis.judgement import FACTOR, LEFT, Fit, fit, is_explained
from refnet.diagnosis.lab import Lab, Traced
from refnet.diagnosis.mistake import Ending, Hypothesis
from refnet.diagnosis.observation import Outputs
from refnet.diagnosis.patched import EVERYWHERE
from refnet.errors import RefnetError
from refnet.graph.graph import Tensor

Float64 = npt.NDArray[np.float64]

#: Told how many hypotheses of how many have been tried.
Progress = Callable[[str, int, int], None]

#: Candidates that are computed in binary64 too: those that leave the least error.
MOST_VERIFIED = 16
#: A candidate leaves at most this part of the error.
WORTH_VERIFYING = 0.5
#: What tips values to their other neighbour where a port rounds coarsely: noise of the images, of 255 levels.
COARSE_NOISE, COARSE_DRAWS = 255 * 2.0**-22, 3
#: Two explanations are told apart where one's error is so many times the other's.
APART = 4.0


@dataclass(frozen=True, eq=False)
class Computed:
    """What a variant gives, beside what was observed: vectors that can be compared."""

    key: object
    observed: Float64
    found: Float64

    @property
    def error(self) -> float:
        """Norm of the difference."""
        return float(np.linalg.norm(self.observed - self.found))


@dataclass(frozen=True, eq=False)
class Candidate:
    """Some mistakes, and what the network gives with them.

    Attributes
    ----------
    hypotheses : tuple of Hypothesis
    key : hashable
        Equal for equal outputs.
    error : float
        Norm of the difference from what was observed, by binary32.
    effect : float64 array, optional
        What the mistakes change; None if that cannot be told.
    """

    hypotheses: tuple[Hypothesis, ...]
    key: object
    error: float
    effect: Float64 | None = None

    @property
    def is_coarse(self) -> bool:
        """Whether one of the mistakes is."""
        return any(hypothesis.mistake.coarse for hypothesis in self.hypotheses)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Mistakes that reproduce what was observed."""

    candidate: Candidate
    fit: Fit

    @property
    def order(self) -> tuple[int, int, list[int]]:
        """Those that come first are the simpler ones: fewer, everywhere, nearer to the image."""
        hypotheses = self.candidate.hypotheses
        wide = sum(hypothesis.site in (EVERYWHERE, "pixels") for hypothesis in hypotheses)
        return len(hypotheses), -wide, [MISTAKES.index(hypothesis.mistake) for hypothesis in hypotheses]


def hypotheses_of(lab: Lab) -> list[Hypothesis]:
    """All that is tried: each mistake of the catalogue at each site with each value."""
    context = lab.context()
    return [hypothesis for mistake in MISTAKES for hypothesis in mistake.propose(mistake, context)]


class Search:
    """Compares variants of a network with what a port gave.

    Parameters
    ----------
    lab : Lab
    outputs : Outputs
    progress : callable, optional

    Attributes
    ----------
    before : Fit
        How the network as it is meant compares.
    telling : int
        Elements of the observation that differ from what is meant by more than rounding.
    tried : int
    """

    def __init__(self, lab: Lab, outputs: Outputs, progress: Progress | None = None) -> None:
        self.lab = lab
        self.outputs = outputs
        self.tried = 0
        #: Hypotheses from which those that were tried have been chosen.
        self.possible = 0
        self._progress = progress or (lambda what, done, total: None)
        self._layers = sum(tensor.op == "conv" for tensor in lab.reference.graph.tensors)
        self._computed: dict[object, Computed | None] = {}
        self._fits: dict[object, Fit | None] = {}
        self._reference = self._compute(lab.reference)
        self.before, self.telling = self._as_meant()

    def wanted(self, traced: Traced) -> Tensor:
        """The tensor that was observed."""
        return traced.net if self.outputs.label is None else traced.graph.made[self.outputs.label]

    def singles(self, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
        """Each mistake at each site with each value; those that change nothing are left out."""
        return self._candidates([(hypothesis,) for hypothesis in hypotheses], "mistakes")

    def in_turn(self, hypotheses: Sequence[Hypothesis]) -> tuple[list[Candidate], list[Explanation]]:
        """What is tried, and what explains the outputs; the late ones only if none of the others does."""
        candidates: list[Candidate] = []
        found: list[Explanation] = []
        for late in (False, True):
            if not found:
                candidates += self.singles([hypothesis for hypothesis in hypotheses if hypothesis.late is late])
                found = self.explanations(candidates)
        return candidates, found

    def fits(self, hypotheses: tuple[Hypothesis, ...]) -> bool:
        """Whether the network with these mistakes gives what was observed; with none, whether that is right."""
        computed = self._given(hypotheses)
        if computed is None:
            return False
        if self._reference is not None and computed.key == self._reference.key:
            return self.before.is_within
        after = self.verified(Candidate(hypotheses, computed.key, computed.error))
        return after is not None and after.is_within

    def pairs_of(self, hypotheses: Sequence[tuple[Hypothesis, ...]]) -> list[Candidate]:
        """Several mistakes at once."""
        return self._candidates(hypotheses, "pairs of mistakes")

    @property
    def effect(self) -> Float64 | None:
        """What the port's mistakes change of the outputs; None if that cannot be told."""
        return None if self._reference is None else self._reference.observed - self._reference.found

    def angle(self, candidate: Candidate) -> float:
        """How far the effect of a candidate points elsewhere than what was observed: 0 to 2."""
        observed = self.effect
        if candidate.effect is None or observed is None:
            return 2.0
        lengths = float(np.linalg.norm(candidate.effect)) * float(np.linalg.norm(observed))
        return 1 - float(np.einsum("i,i", candidate.effect, observed)) / lengths if lengths > 0 else 2.0

    @contextmanager
    def based_on(self, candidate: Candidate) -> Iterator[None]:
        """Within this, pairs with the candidate are computed from the values that the network has with it."""
        with self.lab.based_on(candidate.hypotheses):
            yield

    def explanations(self, candidates: Iterable[Candidate]) -> list[Explanation]:
        """Those that explain what was observed and cannot be told apart, the simplest one first."""
        found = []
        for candidate in self._worth_verifying(candidates):
            after = self.verified(candidate)
            tried = max(self.tried, self.possible)
            if (
                after is not None
                and is_explained(self.before, after, self.telling, tried, candidate.is_coarse)
                and self._all_needed(candidate, after)
            ):
                found.append(Explanation(candidate, after))
        if not found:
            return []
        least = min(max(entry.fit.error, entry.fit.bound / FACTOR) for entry in found)
        found = [entry for entry in found if entry.fit.error <= APART * least]
        return sorted(found, key=lambda entry: entry.order)

    def _all_needed(self, candidate: Candidate, after: Fit) -> bool:
        """Whether the fit is much worse without any one of the mistakes: else it is by chance that one is there."""
        hypotheses = candidate.hypotheses
        for left_out in hypotheses if len(hypotheses) > 1 else ():
            rest = tuple(hypothesis for hypothesis in hypotheses if hypothesis is not left_out)
            traced = self.lab.trace(rest)
            without = self._compute(traced)
            self.lab.forget(traced)
            if without is not None and after.error > LEFT * without.error:
                return False
        return True

    def verified(self, candidate: Candidate) -> Fit | None:
        """How a candidate compares, with binary64 as the truth."""
        noise = sum(hypothesis.noise for hypothesis in candidate.hypotheses)
        key = candidate.key, candidate.is_coarse, noise
        if key not in self._fits:
            self._fits[key] = self._verified(candidate, noise)
        return self._fits[key]

    def _verified(self, candidate: Candidate, noise: float) -> Fit | None:
        traced = self.lab.trace(candidate.hypotheses)
        wanted = self.wanted(traced)
        single, double = self.lab.value(traced, wanted), self.lab.exact_value(traced, wanted)
        levels, draws = noise, 1 if noise else 0
        if candidate.is_coarse:
            levels, draws = max(levels, COARSE_NOISE), COARSE_DRAWS
        shaken = [self.lab.shaken(traced, wanted, levels, draw) for draw in range(draws)]
        self.lab.forget(traced)
        if single is None or double is None:
            return None
        if candidate.is_coarse:  # binary32 is one more draw of which way values near a tie go, not a rounding error
            single, shaken = double, [*shaken, single]
        return self._fit(single, double, traced.ending, [value for value in shaken if value is not None])

    def _candidates(self, found: Sequence[tuple[Hypothesis, ...]], what: str) -> list[Candidate]:
        candidates = []
        for number, hypotheses in enumerate(found):
            self._progress(what, number, len(found))
            candidate = self.candidate(hypotheses)
            if candidate is not None:
                candidates.append(candidate)
        self._progress(what, len(found), len(found))
        return candidates

    def candidate(self, hypotheses: tuple[Hypothesis, ...]) -> Candidate | None:
        """What the network gives with some mistakes; None if that is what is meant, or cannot be compared."""
        self.tried += 1
        computed = self._given(hypotheses)
        reference = self._reference
        if computed is None or computed.key == (reference and reference.key):
            return None
        effect = None
        if reference is not None and reference.found.shape == computed.found.shape:
            effect = computed.found - reference.found
            if not effect.any():
                return None
        return Candidate(hypotheses, computed.key, computed.error, effect)

    def _given(self, hypotheses: tuple[Hypothesis, ...]) -> Computed | None:
        """What the network gives with some mistakes; None if there is no such network, or nothing to compare."""
        try:
            traced = self.lab.trace(hypotheses)
        except RefnetError:
            return None
        computed = self._compute(traced)
        self.lab.forget(traced)
        return computed

    def _compute(self, traced: Traced) -> Computed | None:
        """What a variant gives, beside what was observed."""
        try:
            wanted = self.wanted(traced)
        except KeyError:
            return None
        key = traced.keys[wanted.index], traced.ending
        if key not in self._computed:
            value = self.lab.value(traced, wanted)
            pair = None if value is None else self.outputs.pair(value, traced.ending)
            usable = pair is not None and np.isfinite(pair[1]).all()
            self._computed[key] = Computed(key, *pair) if pair is not None and usable else None
        return self._computed[key]

    def _as_meant(self) -> tuple[Fit, int]:
        """How the network as it is meant compares, and how many elements tell of a mistake."""
        reference, observed = self._reference, self.outputs.values.ravel()
        if reference is None:
            # Nothing to compare: the error is what a constant would leave.
            spread = observed - observed.mean()
            norm = float(np.linalg.norm(spread))
            before = Fit(norm, float(np.abs(spread).max(initial=0)), 0.0, 0.0, norm, 0.0)
            each = 0.0
        else:
            traced = self.lab.reference
            wanted = self.wanted(traced)
            single, double = self.lab.value(traced, wanted), self.lab.exact_value(traced, wanted)
            assert single is not None, "the reference has a value"
            assert double is not None, "the reference has a value"
            fitted = self._fit(single, double, traced.ending)
            assert fitted is not None, "the reference can be compared"
            before, spread = fitted, reference.observed - reference.found
            each = before.bound / math.sqrt(max(spread.size, 1))
        if not np.isfinite(observed).all() or np.ptp(observed) == 0:
            return before, 0
        return before, int(np.count_nonzero(np.abs(spread) > each))

    def _fit(
        self, single: np.ndarray, double: np.ndarray, ending: Ending, shaken: Sequence[np.ndarray] = ()
    ) -> Fit | None:
        one, other = (self.outputs.pair(value, ending) for value in (single, double))
        if one is None or other is None:
            return None
        (observed, by_single), (_, by_double) = one, other
        pairs = [self.outputs.pair(value, ending) for value in shaken]
        noise = max((2 * float(np.linalg.norm(pair[1] - by_single)) for pair in pairs if pair is not None), default=0.0)
        return fit(observed, by_single, by_double, self._layers, self.outputs.quantum, noise)

    def _worth_verifying(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates that leave the least error; of those with equal outputs all."""
        # What a port rounds coarsely can by chance be further from refnet's binary32 than from its binary64.
        most = {False: WORTH_VERIFYING * self.before.error, True: self.before.error}
        near = sorted((c for c in candidates if c.error <= most[c.is_coarse]), key=lambda candidate: candidate.error)
        keys = list(dict.fromkeys(candidate.key for candidate in near))[:MOST_VERIFIED]
        return [candidate for candidate in near if candidate.key in keys]
