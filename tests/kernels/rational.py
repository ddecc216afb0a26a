"""Binary32 arithmetic from first principles: exact rationals, rounded once, in Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def rounded(exact: Fraction, zero: float = 0.0) -> np.float32:
    """The binary32 number nearest to an exact one, ties to even.

    An exact 0 takes the sign of ``zero``; a number that rounds to 0 keeps its own.
    """
    if exact == 0:
        return np.float32(zero)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    # The distance of neighbours: 24 significant bits, but never finer than the subnormals.
    unit = max(exponent, -126) - 23
    magnitude = math.ldexp(round(size / Fraction(2) ** unit), unit)
    if magnitude >= 2.0**128:
        magnitude = math.inf
    return np.float32(math.copysign(magnitude, -1 if exact < 0 else 1))


def _finite(*values: np.float32) -> bool:
    return all(math.isfinite(value) for value in values)


def _fraction(value: np.float32) -> Fraction:
    return Fraction(float(value))


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """``a * b + c``, rounded once."""
    if not _finite(a, b, c):
        # Infinities and NaN: no rounding is at stake. The product of binary32 numbers is finite in binary64.
        with np.errstate(invalid="ignore"):
            return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    # The sign of an exact zero: that of a sum of two zeros, and + where other numbers cancel.
    sign = math.copysign(1, a) * math.copysign(1, b)
    both_negative = (a == 0 or b == 0) and sign < 0 and math.copysign(1, c) < 0
    return rounded(_fraction(a) * _fraction(b) + _fraction(c), -0.0 if both_negative else 0.0)


def add(a: np.float32, b: np.float32) -> np.float32:
    return fma(a, np.float32(1), b)


def subtract(a: np.float32, b: np.float32) -> np.float32:
    return add(a, np.float32(-b))


def relu(a: np.float32) -> np.float32:
    return np.float32(0) if a < 0 else a
