"""The exact arithmetic against three independent truths: the definition of rounding in a format of 40 numbers, NumPy's
IEEE-754 operations, and the fma of the C library."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.exact.arithmetic import BINARY32, BINARY64, Format

DTYPES: dict[Format, Any] = {BINARY32: np.float32, BINARY64: np.float64}
formats = pytest.mark.parametrize("f", DTYPES, ids=["binary32", "binary64"])


def same(found: float, expected: float) -> bool:
    """The same number with the same sign, or both NaN."""
    if math.isnan(found) or math.isnan(expected):
        return math.isnan(found) and math.isnan(expected)
    return found == expected and math.copysign(1, found) == math.copysign(1, expected)


# A format whose numbers can be counted: its smallest subnormal is 2^-3, its largest number 7.
TOY = Format(precision=3, emax=2)
SIZES = [Fraction(n, 8) for n in [*range(8), *range(8, 16, 2), *range(16, 32, 4), *range(32, 64, 8)]]
NUMBERS = [sign * float(size) for size in SIZES for sign in (1.0, -1.0)]


def nearest(exact: Fraction) -> float:
    """The nearest number of the toy format by search; a tie goes to the even one, infinity stands for 8."""
    candidates = [*SIZES, Fraction(8)]
    size = min(abs(exact), candidates[-1])
    below = bisect_right(candidates, size) - 1
    index = min(range(below, min(below + 2, len(candidates))), key=lambda i: (abs(candidates[i] - size), i % 2))
    return math.copysign(math.inf if index == len(SIZES) else float(candidates[index]), exact)


@pytest.mark.parametrize("c", NUMBERS)
def test_fma_is_the_nearest_of_all_numbers(c: float) -> None:
    for a, b in itertools.product(NUMBERS, NUMBERS):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        # What is exactly 0 is so in binary64 too, with the sign that IEEE-754 gives it.
        expected = nearest(exact) if exact else a * b + c
        assert same(TOY.fma(a, b, c), expected), (a, b, c)


def test_quotients_and_roots_are_the_nearest_of_all_numbers() -> None:
    for a, b in itertools.product(NUMBERS, NUMBERS):
        if a and b:
            assert same(TOY.divide(a, b), nearest(Fraction(a) / Fraction(b))), (a, b)
    for a in NUMBERS:
        if a > 0:
            root = TOY.sqrt(a)
            # sqrt(a) lies between the middles towards the neighbours; it is never a middle.
            i = SIZES.index(Fraction(root))
            low, high = SIZES[i - 1] + SIZES[i], SIZES[i] + SIZES[i + 1]
            assert low**2 < 4 * Fraction(a) < high**2, a


def random_bits(f: Format, seed: int, count: int) -> Any:
    """Numbers of any bits, half of them of about the same size, some special or next to the ends of the range."""
    dtype = DTYPES[f]
    rng = np.random.default_rng(seed)
    integer = np.dtype(f"u{np.dtype(dtype).itemsize}")
    numbers = rng.integers(0, np.iinfo(integer).max, count, integer, endpoint=True).view(dtype)
    numbers[::2] = rng.standard_normal(len(numbers[::2])) * 2.0 ** rng.integers(-3, 4, len(numbers[::2]))
    finest = np.finfo(dtype).smallest_subnormal
    ends = [0.0, 1.0, math.inf, math.nan, np.finfo(dtype).max, np.finfo(dtype).tiny, finest, 3 * finest]
    numbers[::7] = rng.choice(np.array([*ends, *(-end for end in ends)], dtype), len(numbers[::7]))
    # Subnormals.
    numbers[3::11] = np.ldexp(rng.integers(-1000, 1000, len(numbers[3::11])).astype(dtype), int(np.log2(finest)))
    rng.shuffle(numbers)
    return numbers


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
}


@formats
@pytest.mark.parametrize("name", BINARY)
def test_two_operands_against_numpy(f: Format, name: str) -> None:
    a, b = random_bits(f, 1, 20_000), random_bits(f, 2, 20_000)
    with np.errstate(all="ignore"):
        expected = BINARY[name](a, b)
    operation = getattr(f, name)
    for x, y, z in zip(a.tolist(), b.tolist(), expected.tolist(), strict=True):
        assert same(operation(x, y), z), (x.hex(), y.hex())


@formats
def test_sqrt_against_numpy(f: Format) -> None:
    a = random_bits(f, 3, 20_000)
    with np.errstate(all="ignore"):
        expected = np.sqrt(a)
    for x, z in zip(a.tolist(), expected.tolist(), strict=True):
        assert same(f.sqrt(x), z), x.hex()


def test_rounding_to_binary32_against_numpy() -> None:
    # Any binary64 number, and those beside the middle of two binary32 numbers.
    with np.errstate(all="ignore"):
        near = random_bits(BINARY32, 4, 10_000).astype(np.float64)
        middle = near * (1 + 2.0**-24)
        a = np.concatenate([random_bits(BINARY64, 5, 10_000), middle, np.nextafter(middle, np.inf), near])
        expected = a.astype(np.float32)
    for x, z in zip(a.tolist(), expected.tolist(), strict=True):
        assert same(BINARY32.round(x), z), x.hex()


def libm_fma(name: str, kind: Any) -> Callable[[float, float, float], float]:
    function = getattr(ctypes.CDLL(ctypes.util.find_library("m")), name)
    function.argtypes, function.restype = [kind] * 3, kind
    return function


#: Correctly rounded in every C library that calls them so; Python's own math.fma, from 3.13 on, is the second.
FMA = {BINARY32: libm_fma("fmaf", ctypes.c_float), BINARY64: libm_fma("fma", ctypes.c_double)}


@formats
def test_fma_against_the_c_library(f: Format) -> None:
    a, b, c = (random_bits(f, seed, 30_000) for seed in (6, 7, 8))
    with np.errstate(all="ignore"):
        # Half of the sums nearly cancel, or lie next to the middle of two numbers.
        c[::4] = -(a * b)[::4]
        c[1::4] = np.ldexp(a * b, f.precision)[1::4]
    for triple in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        assert same(f.fma(*triple), FMA[f](*triple)), [x.hex() for x in triple]
