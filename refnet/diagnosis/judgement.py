"""Whether a variant of the network reproduces what was observed: within rounding, and not by chance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

#: Other engines' errors are 1 to 2.5 times refnet's own; so many times is within rounding.
FACTOR = 8.0
#: Half the distance from 1 to the next larger binary32.
ROUNDOFF = 2.0**-24
#: A mistake leaves at most this part of the error that there was without it.
LEFT = 1 / 8
#: And a coarse one.
LEFT_BY_COARSE = 0.4
#: The probability of a chance hit, over all that was tried, stays below this.
CHANCE = 1e-6
#: Outputs of a network depend on each other: more of them do not tell more.
MOST_TELLING = 64


class Fit(NamedTuple):
    """How a variant compares with the observation.

    Attributes
    ----------
    error : float
        Norm of the difference.
    worst : float
        Its largest element.
    bound : float
        What rounding, in the variant and in the observation, can make of the norm.
    worst_bound : float
        And of an element.
    scale : float
        Norm of the observation.
    least : float
        The smallest error that tells anything: what rounding makes of the norm, other noise apart.
    """

    error: float
    worst: float
    bound: float
    worst_bound: float
    scale: float
    least: float

    @property
    def is_within(self) -> bool:
        """Whether rounding explains the difference."""
        return self.error <= self.bound and self.worst <= self.worst_bound

    @property
    def relative(self) -> float:
        """The error, relative to the observation."""
        return self.error / self.scale if self.scale > 0 else math.inf


def fit(observed: Float64, single: Float64, double: Float64, layers: int, quantum: float, noise: float = 0.0) -> Fit:
    """Compare an observation with a variant that was computed in binary32 and in binary64.

    Parameters
    ----------
    observed, single, double : float64 array [elements]
        The observation, and the variant in both precisions.
    layers : int
        Convolutions on the way.
    quantum : float
        What an element of the observation is off by its own format, at most.
    noise : float
        Norm of another difference that is to be expected.
    """
    count = max(observed.size, 1)
    difference = observed - double
    rounding = np.abs(single - double)
    least = 4 * ROUNDOFF * math.sqrt(max(layers, 1)) * float(np.linalg.norm(double))
    own = quantum * math.sqrt(count)
    bound = FACTOR * max(float(np.linalg.norm(rounding)), least) + 2 * own + noise
    worst_bound = max(6 * bound / math.sqrt(count), FACTOR * float(rounding.max(initial=0)) + 2 * quantum + noise)
    return Fit(
        float(np.linalg.norm(difference)),
        float(np.abs(difference).max(initial=0)),
        bound,
        worst_bound,
        float(np.linalg.norm(observed)),
        (bound - noise) / FACTOR,
    )


def is_explained(before: Fit, after: Fit, telling: int, tried: int, coarse: bool = False) -> bool:
    """Whether a mistake explains what was observed.

    Parameters
    ----------
    before, after : Fit
        Without the mistake and with it.
    telling : int
        Elements of the observation that differ from what is meant by more than rounding.
    tried : int
        Hypotheses that were tried.
    coarse : bool
        See `refnet.diagnosis.mistake.Mistake`.
    """
    if before.is_within or not after.is_within or after.error > (LEFT_BY_COARSE if coarse else LEFT) * before.error:
        return False
    left = max(after.error, after.least) / before.error
    return min(telling, MOST_TELLING) * math.log(max(left, 1e-300)) + math.log(max(tried, 1)) < math.log(CHANCE)
