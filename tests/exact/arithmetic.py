"""IEEE-754 arithmetic from first principles: every operation exact in Python's integers, then rounded once.

A number is a Python float, which holds every binary32 and every binary64 number, the infinities, NaN and both zeros.
It is a container only: no operation of the machine's floating point takes part in a result, but comparisons, which
are exact. The sign and the payload of a NaN mean nothing here, as in the contract.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Format(NamedTuple):
    """A binary floating-point format, and its operations, each rounded to nearest, ties to even.

    Attributes
    ----------
    precision : int
        Bits of a significand, the leading one included.
    emax : int
        The largest exponent: finite numbers are below ``2**(emax + 1)``.
    """

    precision: int
    emax: int

    def rounded(self, n: int, exponent: int, zero: float = 0.0) -> float:
        """The number nearest to ``n * 2**exponent``; an exact 0 is ``zero``, what rounds to 0 keeps its sign."""
        if n == 0:
            return zero
        size = abs(n)
        # Bits that go: all but a significand's, and all that are finer than the smallest subnormal, 2^finest.
        finest = 2 - self.emax - self.precision
        drop = max(size.bit_length() - self.precision, finest - exponent)
        if drop > 0:
            rest, half = size & ((1 << drop) - 1), 1 << (drop - 1)
            size >>= drop
            exponent += drop
            if rest > half or (rest == half and size % 2 == 1):
                size += 1
        overflow = size.bit_length() + exponent > self.emax + 1
        magnitude = math.inf if overflow else math.ldexp(size, exponent)
        return -magnitude if n < 0 else magnitude

    def round(self, a: float) -> float:
        """A number of a wider format, rounded to this one."""
        return self.rounded(*_scaled(a), zero=a) if math.isfinite(a) else a

    def fma(self, a: float, b: float, c: float) -> float:
        """``a * b + c``, rounded once."""
        negative = _negative(a) != _negative(b)
        if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
            return _sum_of_infinities(_product_of_infinities(a, b, negative), c)
        (m, i), (n, j), (p, k) = _scaled(a), _scaled(b), _scaled(c)
        exponent = min(i + j, k)
        exact = (m * n << (i + j - exponent)) + (p << (k - exponent))
        # A sum that is exactly 0 is -0 only where both its terms are -0.
        zero = -0.0 if m * n == 0 and negative and p == 0 and _negative(c) else 0.0
        return self.rounded(exact, exponent, zero)

    def add(self, a: float, b: float) -> float:
        """``a + b``."""
        return self.fma(a, 1.0, b)

    def subtract(self, a: float, b: float) -> float:
        """``a - b``."""
        return self.fma(b, -1.0, a)

    def multiply(self, a: float, b: float) -> float:
        """``a * b``; adding -0 changes nothing."""
        return self.fma(a, b, -0.0)

    def divide(self, a: float, b: float) -> float:
        """``a / b``."""
        negative = _negative(a) != _negative(b)
        sign = -1.0 if negative else 1.0
        if math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b)) or a == b == 0:
            return math.nan
        if math.isinf(a) or b == 0:
            return sign * math.inf
        if math.isinf(b) or a == 0:
            return sign * 0.0
        (m, i), (n, j) = _scaled(abs(a)), _scaled(abs(b))
        # So many bits that the last one is below any half unit; it tells whether something is left over.
        shift = max(0, self.precision + 2 + n.bit_length() - m.bit_length())
        quotient, rest = divmod(m << shift, n)
        exact = 2 * quotient + (rest != 0)
        return self.rounded(-exact if negative else exact, i - j - shift - 1)

    def sqrt(self, a: float) -> float:
        """The square root; -0 for -0, NaN for less."""
        if math.isnan(a) or a < 0:
            return math.nan
        if a == 0 or math.isinf(a):
            return a
        n, exponent = _scaled(a)
        shift = max(0, 2 * self.precision + 4 - n.bit_length())
        shift += (exponent - shift) % 2
        n <<= shift
        root = math.isqrt(n)
        return self.rounded(2 * root + (root * root != n), (exponent - shift) // 2 - 1)


BINARY32 = Format(precision=24, emax=127)
BINARY64 = Format(precision=53, emax=1023)


def _scaled(a: float) -> tuple[int, int]:
    """A finite number as n and e: ``n * 2**e``."""
    numerator, denominator = a.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


def _negative(a: float) -> bool:
    return math.copysign(1.0, a) < 0


def _product_of_infinities(a: float, b: float, negative: bool) -> float:
    """``a * b`` as far as infinities and NaN go: a finite product is 0, as it is nothing beside an infinite sum."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    if not (math.isinf(a) or math.isinf(b)):
        return 0.0
    if a == 0 or b == 0:
        return math.nan
    return -math.inf if negative else math.inf


def _sum_of_infinities(a: float, b: float) -> float:
    """``a + b`` where one of them at least is infinite or NaN."""
    if math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b) and a != b):
        return math.nan
    return a if math.isinf(a) else b
