"""How far an array is from another one, and how far rounding alone would take it.

The *rounding scale* is what the roundings of one precision make of a value, relative to its largest element. Where the
network is there to be computed, it is the difference between its results in binary32 and in binary64. Without it, and
never below, it is the usual estimate ``u sqrt(n)`` for n roundings, which mostly cancel (Higham and Mary, "A New
Approach to Probabilistic Rounding Error Analysis", 2019).

Two results agree if they differ by `FACTOR` rounding scales at most. The logits of ResNet-50 in other engines are 1 to
2.5 times as far from binary64 as refnet's; the factor leaves room for three times that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

FACTOR = 8
QUANTILES = (0.5, 0.9, 0.99, 1.0)
#: A layer's convolution has about so many roundings for each value that is stored: the sum, the norm, the ReLU.
_ROUNDINGS_PER_VALUE = 24
#: An array of fewer values that are not zero does not show its precision.
_SHOWING = 64
#: Rows and columns round the worst element, on each side.
_AROUND = 5


class Precision(NamedTuple):
    """A format of floats: its name, and the bits of its significand."""

    name: str
    bits: int

    @property
    def u(self) -> float:
        """The unit roundoff: the largest relative error of a rounding."""
        return 2.0**-self.bits


BFLOAT16 = Precision("bfloat16", 8)
FLOAT16 = Precision("float16", 11)
FLOAT32 = Precision("float32", 24)
FLOAT64 = Precision("float64", 53)
#: From the coarsest to the finest.
PRECISIONS = (BFLOAT16, FLOAT16, FLOAT32, FLOAT64)


def precision_of(array: np.ndarray) -> Precision | None:
    """The coarsest format that holds every value of an array, whatever its dtype.

    Parameters
    ----------
    array : float array

    Returns
    -------
    Precision or None
        None: too few values are there to tell.
    """
    own = {2: FLOAT16, 4: FLOAT32}.get(array.dtype.itemsize, FLOAT64)
    flat = array.reshape(-1)
    if np.count_nonzero(flat[: 64 * _SHOWING]) < _SHOWING and np.count_nonzero(flat) < _SHOWING:
        return own if own is FLOAT16 else None
    if own is FLOAT16:
        return own
    with np.errstate(over="ignore", invalid="ignore"):
        single = flat.astype(np.float32)
        if own is FLOAT64 and not np.array_equal(single, flat, equal_nan=True):
            return FLOAT64
        if not np.any(single.view(np.uint32) & np.uint32(0xFFFF)):
            return BFLOAT16
        if np.array_equal(single.astype(np.float16), single, equal_nan=True):
            return FLOAT16
    return FLOAT32


def coarsest(precisions: Iterable[Precision | None]) -> Precision | None:
    """The coarsest of some formats, or None if there are none.

    Parameters
    ----------
    precisions : iterable of Precision or None

    Returns
    -------
    Precision or None
    """
    return min((p for p in precisions if p is not None), key=PRECISIONS.index, default=None)


class Scale(NamedTuple):
    """What rounding alone makes of a value, relative to its largest element.

    Attributes
    ----------
    relative : float
    measured : bool
        Whether it comes from the network itself, computed in two precisions.
    """

    relative: float
    measured: bool

    @property
    def tolerance(self) -> float:
        """The largest error, relative to the largest element, with which two results agree."""
        return FACTOR * self.relative


def scale_of(roundings: int, precision: Precision, measured: float | None = None) -> Scale:
    """The rounding scale of a value.

    Parameters
    ----------
    roundings : int
        On the longest way to it.
    precision : Precision
        In which the layers before it were computed, or in which their values were stored.
    measured : float, optional
        How far binary32 is from binary64 there, relative to the largest element.

    Returns
    -------
    Scale
    """
    n = max(roundings, 1)
    estimated = FLOAT32.u * math.sqrt(n)
    relative = max(measured or 0.0, estimated)
    # How much the network magnifies an error on its way; the same for every precision.
    grown = relative / estimated
    if precision is FLOAT64:
        relative = FLOAT64.u * math.sqrt(n) * grown
    elif precision is not FLOAT32:
        # Half precision stores its values so, but sums them in single precision.
        relative += precision.u * math.sqrt(max(n / _ROUNDINGS_PER_VALUE, 1)) * grown
    return Scale(relative, measured is not None)


def rounding(single: np.ndarray, double: np.ndarray) -> float:
    """How far a value in binary32 is from the same in binary64, relative to the largest element.

    Parameters
    ----------
    single, double : float arrays of one shape

    Returns
    -------
    float
        0 where they are not finite.
    """
    largest = off_by(double, single)
    return largest if math.isfinite(largest) else 0.0


def off_by(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference, relative to the largest expected value, or to the largest found one if all are 0.

    Parameters
    ----------
    expected, found : float arrays of one shape

    Returns
    -------
    float
    """
    size = size_of(expected) or size_of(found)
    return float(differences(expected, found).max(initial=0)) / (size or 1.0)


def size_of(array: np.ndarray) -> float:
    """The largest absolute value that is finite.

    Parameters
    ----------
    array : float array

    Returns
    -------
    float
    """
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


class Errors(NamedTuple):
    """How far an array is from the expected one.

    Attributes
    ----------
    same : bool
        Whether every bit is equal; NaN equals NaN.
    largest, median : float
        Of the differences, relative to the largest expected value.
    size : float
        The largest finite expected value.
    ulps : tuple of float
        The `QUANTILES` of the differences, in units in the last place of the largest expected value.
    correlation : float or None
        None if one side is constant.
    differing : int
        How many elements differ.
    where : tuple of int
        The place of the largest difference.
    expected, found : float
        The values there.
    nan_both, nan_one : int
        How many elements are NaN on both sides, and on one side only.
    """

    same: bool
    largest: float
    median: float
    size: float
    ulps: tuple[float, ...]
    correlation: float | None
    differing: int
    where: tuple[int, ...]
    expected: float
    found: float
    nan_both: int
    nan_one: int


def differences(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The absolute differences in binary64: 0 where both are NaN, infinite where one is.

    Parameters
    ----------
    expected, found : float arrays of one shape

    Returns
    -------
    float64 array
    """
    a, b = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(b - a)
    odd = np.isnan(off)
    if odd.any():
        same = (np.isnan(a) & np.isnan(b)) | (a == b)
        off = np.where(odd, np.where(same, 0.0, np.inf), off)
    return off


def errors(expected: np.ndarray, found: np.ndarray, precision: Precision = FLOAT32) -> Errors:
    """Compare two arrays of one shape.

    Parameters
    ----------
    expected, found : float arrays of one shape
    precision : Precision
        That of the units in the last place.

    Returns
    -------
    Errors
    """
    off = differences(expected, found)
    size = size_of(expected) or size_of(found)
    relative = 1 / (size or 1.0)
    at = int(off.argmax()) if off.size else 0
    where = tuple(int(i) for i in np.unravel_index(at, off.shape)) if off.size else ()
    nan_expected, nan_found = np.isnan(expected), np.isnan(found)
    quantiles = _quantiles(off)
    ulp = math.ldexp(1.0, math.frexp(size)[1] - precision.bits) if size else 1.0
    bits = bool(np.array_equal(_bits(expected), _bits(found))) if expected.dtype == found.dtype else False
    if not bits and expected.dtype == found.dtype and nan_expected.any():
        known = ~nan_expected
        bits = bool(np.array_equal(nan_expected, nan_found)) and bool(
            np.array_equal(_bits(expected[known]), _bits(found[known]))
        )
    return Errors(
        same=bits,
        largest=quantiles[-1] * relative,
        median=quantiles[0] * relative,
        size=size,
        ulps=tuple(q / ulp for q in quantiles),
        correlation=correlation(expected, found),
        differing=int(np.count_nonzero(off)),
        where=where,
        expected=float(expected.reshape(-1)[at]) if off.size else math.nan,
        found=float(found.reshape(-1)[at]) if off.size else math.nan,
        nan_both=int(np.count_nonzero(nan_expected & nan_found)),
        nan_one=int(np.count_nonzero(nan_expected != nan_found)),
    )


def _quantiles(off: np.ndarray) -> tuple[float, ...]:
    """The `QUANTILES`, each a value that is there."""
    if not off.size:
        return (0.0,) * len(QUANTILES)
    ranks = [min(math.ceil(q * off.size) - 1, off.size - 1) for q in QUANTILES]
    ordered = np.partition(off.reshape(-1), sorted({max(rank, 0) for rank in ranks}))
    return tuple(float(ordered[max(rank, 0)]) for rank in ranks)


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def correlation(expected: np.ndarray, found: np.ndarray) -> float | None:
    """Pearson's correlation of the elements that are finite on both sides.

    Parameters
    ----------
    expected, found : float arrays of one shape

    Returns
    -------
    float or None
        None if one side is constant there.
    """
    a, b = expected.astype(np.float64).reshape(-1), found.astype(np.float64).reshape(-1)
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        a, b = a[finite], b[finite]
    if a.size < 2:
        return None
    # Their squares could overflow.
    a, b = (x / (np.abs(x).max() or 1.0) for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    # Not by BLAS, whose threads would wait for refnet's.
    dot = partial(np.einsum, "i,i->")
    lengths = math.sqrt(float(dot(a, a))) * math.sqrt(float(dot(b, b)))
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    return None if constant or lengths == 0 else max(-1.0, min(1.0, float(dot(a, b)) / lengths))


def dead_channels(array: np.ndarray) -> np.ndarray:
    """Which channels, the last axis, are zero everywhere.

    Parameters
    ----------
    array : float array

    Returns
    -------
    bool array [channels]
    """
    dead: np.ndarray = ~np.any(array.reshape(-1, array.shape[-1]) != 0, axis=0)
    return dead


def top_1(expected: np.ndarray, found: np.ndarray) -> tuple[int, int]:
    """For how many images the largest value is of the same class, and how many there are.

    Parameters
    ----------
    expected, found : float arrays [..., classes]

    Returns
    -------
    (int, int)
    """
    rows = [array.reshape(-1, array.shape[-1]).argmax(-1) for array in (expected, found)]
    return int(np.count_nonzero(rows[0] == rows[1])), len(rows[0])


class Patch(NamedTuple):
    """The neighbourhood of an element: rows and columns of one channel of one image, or neighbouring channels.

    Attributes
    ----------
    expected, found : list of list of float
    corner : tuple of int
        The place of their first element.
    """

    expected: list[list[float]]
    found: list[list[float]]
    corner: tuple[int, ...]


def patch(expected: np.ndarray, found: np.ndarray, where: Sequence[int]) -> Patch:
    """The elements round one.

    Parameters
    ----------
    expected, found : float arrays of one shape
    where : sequence of int

    Returns
    -------
    Patch
    """
    index: list[Any] = list(where)
    corner = list(where)
    # Of [N, H, W, C] rows and columns; where there is but one pixel, or of [N, C], the channels.
    axes = (1, 2) if expected.ndim == 4 and max(expected.shape[1:3]) > 1 else (expected.ndim - 1,)
    for axis in axes:
        reach = _AROUND if len(axes) == 2 else 3 * _AROUND
        start = max(0, min(where[axis] - reach, expected.shape[axis] - 2 * reach - 1))
        index[axis], corner[axis] = slice(start, start + 2 * reach + 1), start
    parts = [np.atleast_2d(array[tuple(index)].astype(np.float64)).tolist() for array in (expected, found)]
    return Patch(parts[0], parts[1], tuple(corner))
