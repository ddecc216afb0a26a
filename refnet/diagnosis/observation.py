"""What a port gave, in the form in which it is compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refnet.diagnosis.host import ROUNDED
from refnet.diagnosis.mistake import Ending
from refnet.diagnosis.patched import Label

Float64 = npt.NDArray[np.float64]

#: Half a unit in the last place of 1, by dtype; that of others is binary32's.
ROUNDOFFS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
#: So many values are not all short by chance.
MANY = 8
#: Probabilities below this have lost bits, or are on their way to 0.
LEAST_PROBABILITY = {"float16": 2.0**-14}


def log_softmax(logits: Float64) -> Float64:
    """Logarithms of the softmax over the last axis."""
    moved = logits - logits.max(-1, keepdims=True)
    logarithms: Float64 = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
    return logarithms


@dataclass(frozen=True)
class Outputs:
    """A port's logits, probabilities or features.

    Attributes
    ----------
    values : float64 array [N, ..., classes]
    dtype : str
        That in which they were observed.
    label : (str, str), optional
        Which value of the network they are; None: its logits.
    are_probabilities : bool
        Whether they are nonnegative with a sum of 1.
    should_be : bool
        Whether they should be.
    """

    values: Float64
    dtype: str
    label: Label | None = None
    are_probabilities: bool = False
    should_be: bool = False

    @property
    def roundoff(self) -> float:
        """Of the format in which they were observed."""
        return ROUNDOFFS.get(self.dtype, 2.0**-24)

    @property
    def quantum(self) -> float:
        """What an element is off by its own format, at most."""
        if self.are_probabilities:  # compared by their logarithms
            return 2 * self.roundoff
        return self.roundoff * float(np.abs(self.values).max(initial=0)) if self.dtype in ROUNDOFFS else 0.0

    def pair(self, computed: np.ndarray, ending: Ending) -> tuple[Float64, Float64] | None:
        """The observation and a variant's logits or features, as vectors that can be compared.

        Returns
        -------
        observed, computed : float64 array
            None if they have nothing to compare.
        """
        if self.label is not None:
            ending = Ending()  # what a port makes of its logits is not made of other values
        observed, found = self.values, computed.astype(np.float64)
        if ending.offset or observed.shape[-1] != found.shape[-1]:
            first = max(ending.offset, 0)
            last = min(observed.shape[-1], found.shape[-1] + ending.offset)
            if not ending.offset or last - first < 2:
                return None
            if observed.shape[-1] not in (found.shape[-1], found.shape[-1] + ending.offset):
                return None
        else:
            first, last = 0, observed.shape[-1]
        taken = int(self.are_probabilities or self.should_be) + ending.softmax
        if observed.shape[:-1] != found.shape[:-1] or (taken > 0) != self.are_probabilities or taken < 0:
            return None
        if taken == 2:
            found = np.exp(log_softmax(found))
        observed, found = observed[..., first:last], found[..., first - ending.offset : last - ending.offset]
        if not self.are_probabilities:
            return observed.ravel(), found.ravel()
        return _centred(observed, found, LEAST_PROBABILITY.get(self.dtype, 1e-30))


def is_softmax_of(probabilities: Outputs, logits: Outputs) -> bool:
    """Whether a port's probabilities are those of its own logits."""
    if probabilities.values.shape != logits.values.shape or not np.isfinite(logits.values).all():
        return False
    found = np.exp(log_softmax(logits.values))
    roundoff = max(probabilities.roundoff, logits.roundoff)
    tolerance = 16 * roundoff * (1 + float(np.abs(logits.values).max(initial=0)))
    return bool((np.abs(found - probabilities.values) <= tolerance).all())


def _centred(probabilities: Float64, logits: Float64, least: float) -> tuple[Float64, Float64] | None:
    """Logarithms of probabilities, and logits, less their means over those classes that are not near 0."""
    shape = (-1, probabilities.shape[-1])
    parts = []
    for observed, found in zip(probabilities.reshape(shape), logits.reshape(shape), strict=True):
        tells = observed > least
        if np.count_nonzero(tells) > 1:
            logarithms = np.log(observed[tells])
            parts.append((logarithms - logarithms.mean(), found[tells] - found[tells].mean()))
    if not parts:
        return None
    observed_parts, found_parts = zip(*parts, strict=True)
    return np.concatenate(observed_parts), np.concatenate(found_parts)


def _format_of(array: np.ndarray) -> str:
    """The narrowest format that holds all values, of those in which a port may have computed."""
    finite = array[np.isfinite(array)].astype(np.float64)
    if finite.size < MANY or not finite.any():
        return str(array.dtype)
    return next((name for name in ROUNDOFFS if np.array_equal(ROUNDED[name](finite), finite)), str(array.dtype))


def look_like_probabilities(values: Float64, named: bool) -> bool:
    """Whether rows are nonnegative and sum to 1; those that are named so may lack a class."""
    if values.shape[-1] < 2 or not np.isfinite(values).all() or (values < 0).any():
        return False
    sums = values.sum(-1)
    return bool((np.abs(sums - 1) < 1e-2).all() or (named and ((sums > 0) & (sums < 1.01)).all()))


def outputs_of(array: np.ndarray, label: Label | None = None, named: bool | None = None) -> Outputs:
    """Outputs, in the form in which they are compared.

    Parameters
    ----------
    array : float array
        In the order of axes of the network's value.
    label : (str, str), optional
    named : bool, optional
        Whether they were named probabilities, or logits.
    """
    values, dtype = array.astype(np.float64), _format_of(array)
    if label is not None:
        return Outputs(values, dtype, label)
    return Outputs(values, dtype, None, look_like_probabilities(values, bool(named)), bool(named))
