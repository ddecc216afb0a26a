"""Exactly rounded arithmetic that NumPy lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refnet_kernels.contract import BINARY32, FloatArray

Binary64 = NDArray[np.float64]

#: A term that is this many powers of two smaller only decides on which side of the larger one their sum is.
_FAR = 120
#: Splits a significand of 53 bits in halves.
_SPLITTER = 2.0**27 + 1


@np.errstate(all="ignore")
def fma(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """``a * b + c`` rounded once, for arrays of binary32 or of binary64.

    It uses sums that are rounded *to odd*: a sum that is inexact and whose last bit is even moves to the odd
    neighbour on the side of the exact sum, so that a second rounding, to fewer bits, sees which side that is (Boldo
    and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    if a.dtype == BINARY32:
        # The product is exact in binary64, which has more than two bits to spare for the sum.
        return _odd_sum(a.astype(np.float64) * b, c.astype(np.float64)).astype(np.float32)
    return _fma(a, b, c)


def _two_sum(a: Binary64, b: Binary64) -> tuple[Binary64, Binary64]:
    """Knuth's sum, and its rounding error."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _odd_sum(a: Binary64, b: Binary64) -> Binary64:
    """``a + b`` rounded to odd."""
    total, lost = _two_sum(a, b)
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where(even & (lost != 0) & np.isfinite(total), odd, total)


def _two_product(a: Binary64, b: Binary64) -> tuple[Binary64, Binary64]:
    """Dekker's product, and its rounding error."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    product = a * b
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def _halves(a: Binary64) -> tuple[Binary64, Binary64]:
    """Veltkamp's split: two numbers of 26 bits."""
    scaled = a * _SPLITTER
    high = scaled - (scaled - a)
    return high, a - high


def _fma(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """``a * b + c`` of binary64: the significands by Boldo and Melquiond's algorithm, then the power of two."""
    (x, i), (y, j), (z, k) = (np.frexp(number) for number in (a, b, c))
    high, low = _two_product(x, y)
    exponent = i + j
    largest = np.maximum(exponent, np.where(c == 0, exponent, k))
    # Of a term that is far smaller than the rest, only the sign matters.
    shift = np.maximum(exponent - largest, -_FAR)
    high, low, z = np.ldexp(high, shift), np.ldexp(low, shift), np.ldexp(z, np.maximum(k - largest, -_FAR))
    upper, upper_lost = _two_sum(z, low)
    total, total_lost = _two_sum(high, upper)
    total, rest = _two_sum(total, _odd_sum(upper_lost, total_lost))
    result = np.ldexp(total, largest)
    if (np.abs(result) <= np.finfo(np.float64).smallest_normal).any():
        result = _round_subnormal(result, total, rest, largest)
    # Zeros, infinities and NaN have the signs that the plain operations give. If c is infinite or NaN, a finite product
    # does not matter.
    plain = (a == 0) | (b == 0) | ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c)
    product = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), 0, a * b)
    return np.where(plain, product + c, result)


def _round_subnormal(result: Binary64, total: Binary64, rest: Binary64, exponent: NDArray[np.int32]) -> Binary64:
    """``(total + rest) * 2**exponent``, rounded once; ``result`` was rounded twice if it is subnormal.

    The second rounding can be wrong only at a tie, where ``rest`` decides.
    """
    lost = total - np.ldexp(result, -exponent)
    tie = np.abs(lost) == np.ldexp(0.5, -1074 - exponent)
    return np.where(tie & (rest * lost > 0), np.nextafter(result, np.copysign(np.inf, lost)), result)
