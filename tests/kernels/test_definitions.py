"""What the definitions in NumPy are made of, against exact and 50-digit arithmetic: fma, the scale, exp and softmax.

`test_exact.py` holds each op's definition, as every other kernel, to exact arithmetic.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refnet_kernels import exact, softmax
from refnet_kernels.contract import norm_scale
from refnet_kernels.softmax.reference import exp
from tests.exact import ops
from tests.exact.arithmetic import BINARY32, BINARY64
from tests.problems.base import KINDS, numbers
from tests.problems.conv import ConvProblem, conv_same
from tests.problems.mean import MeanProblem
from tests.problems.softmax import SoftmaxProblem
from tests.support.arrays import assert_same_bits

MANY = settings(max_examples=40 * settings.default.max_examples)

Triple = tuple[float, float, float]

FORMATS = {np.dtype(np.float32): BINARY32, np.dtype(np.float64): BINARY64}
formats = pytest.mark.parametrize("dtype", FORMATS, ids=str)


def of_bits(dtype: np.dtype[Any], bits: int) -> float:
    return float(np.array(bits, f"u{dtype.itemsize}").view(dtype))


def any_bits(dtype: np.dtype[Any]) -> st.SearchStrategy[float]:
    return st.integers(0, 2 ** (8 * dtype.itemsize) - 1).map(lambda bits: of_bits(dtype, bits))


def finite(dtype: np.dtype[Any]) -> st.SearchStrategy[float]:
    f = FORMATS[dtype]
    largest = 2**f.precision
    exponents = st.integers(2 - f.emax - f.precision, f.emax + 1 - f.precision)
    return st.builds(f.rounded, st.integers(-largest, largest), exponents)


@st.composite
def near_a_tie(draw: st.DrawFn, dtype: np.dtype[Any]) -> Triple:
    """A product that is half the distance of c's neighbours, or a little more or less."""
    f = FORMATS[dtype]
    half_way = 2 ** (f.precision - 1)
    exponent = draw(st.integers(2 - f.emax - f.precision, f.emax - 2 * f.precision))
    c = f.rounded(draw(st.integers(half_way, 2 * half_way)), exponent)
    i = draw(st.integers(-3, 3) | st.integers(-1000, 1000))
    j = draw(st.integers(-1, 1)) - i
    half = exponent - 1 - 2 * (f.precision - 1)
    a = f.rounded(draw(st.sampled_from([1, -1])) * (half_way + i), half // 2)
    return a, f.rounded(half_way + j, half - half // 2), c


def assert_fma(dtype: np.dtype[Any], triple: Triple) -> None:
    found = exact.fma(*(np.array([value], dtype) for value in triple))
    assert_same_bits({"fma": found}, {"fma": np.array([FORMATS[dtype].fma(*triple)], dtype)})


@formats
@MANY
@given(data=st.data())
def test_fma_of_any_bits(dtype: np.dtype[Any], data: st.DataObject) -> None:
    assert_fma(dtype, data.draw(st.tuples(*[any_bits(dtype)] * 3)))


@formats
@MANY
@given(data=st.data())
def test_fma_of_finite_numbers(dtype: np.dtype[Any], data: st.DataObject) -> None:
    assert_fma(dtype, data.draw(st.tuples(*[finite(dtype)] * 3)))


@formats
@MANY
@given(data=st.data())
def test_fma_near_a_tie(dtype: np.dtype[Any], data: st.DataObject) -> None:
    assert_fma(dtype, data.draw(near_a_tie(dtype)))


@formats
def test_fma_at_the_ends_of_the_range_and_of_zeros(dtype: np.dtype[Any]) -> None:
    info = np.finfo(dtype)
    smallest, largest = float(info.smallest_subnormal), float(info.max)
    # Their square is half the smallest number, or a quarter of it.
    root = 2.0 ** (math.frexp(smallest)[1] // 2)
    last = largest * float(info.epsneg)
    numbers = [0.0, 1.0, smallest, 3 * smallest, root, root / 2, 3 * root, float(info.smallest_normal), largest, last]
    numbers += [last / 2, math.nextafter(last / 2, 0), math.inf, math.nan, 2.0, 3.0, 6.0]
    numbers = [number for number in numbers if float(dtype.type(number)) == number or number != number]
    triples = list(itertools.product([sign * number for number in numbers for sign in (1, -1)], repeat=3))
    truth = np.array([FORMATS[dtype].fma(*triple) for triple in triples], dtype)
    assert_same_bits({"fma": exact.fma(*np.array(triples, dtype).T)}, {"fma": truth})


@pytest.mark.parametrize("sign", [1, -1])
def test_fma_does_not_round_twice(sign: int) -> None:
    # c + a b lies 2^-70 from a tie of binary32. Binary64 cannot hold that; the tie's even side is the wrong one.
    a, b, c = sign * (2.0**23 + 1) * 2.0**-35, (2.0**23 - 1) * 2.0**-35, (2.0**23 + 1) * 2.0**-23
    assert float(np.float32(a * b + c)) != BINARY32.fma(a, b, c)
    assert_fma(np.dtype(np.float32), (a, b, c))


def test_a_subnormal_fma_does_not_round_twice() -> None:
    # A little less than the middle of two subnormals of 52 bits. Both roundings to 53 bits, to nearest and to odd, give
    # the middle itself, whose even side is the wrong one.
    a, b, c = (1 - 2.0**-52) * 2.0**-500, 2.0**-575, 2.0**-1023 + 2.0**-1074
    assert BINARY64.fma(a, b, c) == c
    assert_fma(np.dtype(np.float64), (a, b, c))
    assert_fma(np.dtype(np.float64), (-a, b, -c))


def test_fma_of_a_far_smaller_addend() -> None:
    # The product is 2^-105 less than the middle of 1 and its neighbour; the addend leaves it there.
    triple = (1 + 2.0**-52, 1 - 2.0**-53, 2.0**-130)
    assert BINARY64.fma(*triple) == 1
    assert_fma(np.dtype(np.float64), triple)


@formats
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 999))
def test_fma_of_arrays(dtype: np.dtype[Any], kind: str, seed: int) -> None:
    a, b, c = (numbers(kind, seed + i, 300, dtype=dtype) for i in range(3))
    triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    truth = np.array([FORMATS[dtype].fma(*triple) for triple in triples], dtype)
    assert_same_bits({"fma": exact.fma(a, b, c)}, {"fma": truth})


def test_fma_against_the_c_library() -> None:
    """100,000 triples of binary64, most of them next to a cancellation, a tie or the end of the range."""
    function = ctypes.CDLL(ctypes.util.find_library("m")).fma
    function.argtypes, function.restype = [ctypes.c_double] * 3, ctypes.c_double
    rng = np.random.default_rng(0)
    count = 20_000
    a, b, c = rng.integers(0, 2**64 - 1, (3, 5 * count), np.uint64, endpoint=True).view(np.float64)
    cancel, tie, small, subnormal = (slice(i * count, (i + 1) * count) for i in range(1, 5))
    with np.errstate(all="ignore"):
        c[cancel] = -(a * b)[cancel]
        c[tie] = np.ldexp((a * b)[tie], rng.integers(52, 56, count))
        c[small] = np.ldexp((a * b)[small], rng.integers(-56, -50, count))
        a[subnormal] = np.ldexp(rng.integers(-(2**53), 2**53, count).astype(np.float64), -592)
        b[subnormal] = np.ldexp(
            rng.integers(-(2**53), 2**53, count).astype(np.float64), rng.integers(-590, -530, count)
        )
        c[subnormal] = np.ldexp(rng.integers(-(2**53), 2**53, count).astype(np.float64), -1074)
    truth = np.array([function(*triple) for triple in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)])
    assert_same_bits({"fma": exact.fma(a, b, c)}, {"fma": truth})


@formats
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(KINDS),
    with_gamma=st.booleans(),
    epsilon=st.sampled_from([0.0, 1e-5, 1e-3]),
)
def test_norm_scale(dtype: np.dtype[Any], seed: int, kind: str, with_gamma: bool, epsilon: float) -> None:
    variance, gamma = numbers(kind, seed, 20), numbers(kind, seed + 1, 20) if with_gamma else None
    gammas = [None] * 20 if gamma is None else gamma.tolist()
    truth = [ops.scale(FORMATS[dtype], g, v, epsilon) for g, v in zip(gammas, variance.tolist(), strict=True)]
    found = norm_scale(variance, gamma, epsilon, dtype)
    assert_same_bits({"scale": found}, {"scale": np.array(truth, dtype)})


UNIT = 2.0**-52


@MANY
@given(st.floats(-708, 0))
@example(-708.0)
@example(-0.0)
@example(-1e-310)
@example(math.nextafter(-math.log(2) / 2, 0))
@example(math.nextafter(-math.log(2) / 2, -1))
def test_exp_is_within_two_units_in_the_last_place(x: float) -> None:
    with localcontext() as context:
        context.prec = 50
        truth = Decimal(x).exp()
        found = float(exp(np.array([x]))[0])
        assert abs(Decimal(found) - truth) <= 2 * Decimal(math.ulp(found))


def test_exp_of_the_ends() -> None:
    found = exp(np.array([0.0, -0.0, math.nextafter(-708, -math.inf), -1e300, -math.inf, math.nan]))
    np.testing.assert_array_equal(found, [1, 1, 0, 0, 0, math.nan])


@formats
@given(seed=st.integers(0, 999), classes=st.integers(1, 12), spread=st.sampled_from([1e-3, 1, 30, 1000]))
def test_softmax(dtype: np.dtype[Any], seed: int, classes: int, spread: float) -> None:
    x = numbers("normal", seed, classes, dtype=dtype) * dtype.type(spread)
    found = SoftmaxProblem("drawn", x).defined()["out"]
    with localcontext() as context:
        context.prec = 50
        powers = [(Decimal(float(value)) - Decimal(float(x.max()))).exp() for value in x]
        truth = [power / sum(powers) for power in powers]
        # Half a unit of each difference, two of each exp, half a unit of each addition and of the division.
        relative = UNIT * (float(np.ptp(x)) + 4 + classes / 2 + 1)
        # A power below exp(-708) is 0.
        absolute = 2.0**-1021
        if dtype == np.float32:
            # One rounding more, or to a subnormal.
            relative, absolute = relative + 2.0**-24, 2.0**-150
        for value, exactly in zip(found, truth, strict=True):
            assert abs(Decimal(float(value)) - exactly) <= Decimal(relative) * exactly + Decimal(absolute)


def test_softmax_of_special_values() -> None:
    inf, nan = math.inf, math.nan
    rows = [[0, -inf], [5, 5], [inf, 0], [nan, 0], [0, nan], [-inf, -inf], [0, -800]]
    expected = [[1, 0], [0.5, 0.5], [nan, nan], [nan, nan], [nan, nan], [nan, nan], [1, 0]]
    found = SoftmaxProblem("special", np.array(rows, np.float32)).defined()["out"]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_the_contract_states_the_constants_of_the_exp() -> None:
    contract = (Path(softmax.__file__).parents[2] / "README.md").read_text()
    for constant in (softmax.LOG2_E, softmax.LN2_HIGH, softmax.LN2_LOW):
        assert constant.hex() in contract
    for n, coefficient in enumerate(reversed(softmax.COEFFICIENTS)):
        assert Fraction(coefficient) == Fraction(float(Fraction(1, math.factorial(n))))
        assert f"| {n} | `{coefficient.hex()}` |" in contract
    # So that k * LN2_HIGH is exact for every k from -1021 on.
    assert (Fraction(softmax.LN2_HIGH) * 2**32).denominator == 1
    with localcontext() as context:
        context.prec = 60
        missing = Decimal(2).ln() - Decimal(softmax.LN2_HIGH) - Decimal(softmax.LN2_LOW)
        assert abs(missing) <= Decimal(math.ulp(softmax.LN2_LOW)) / 2


def test_infinities_and_nan_pass_through_sums() -> None:
    x = np.array([np.inf, 1, np.nan, -np.inf, np.inf, -np.inf], np.float32).reshape(1, 2, 1, 3)
    found = MeanProblem("special", x).defined()["out"].ravel()
    np.testing.assert_array_equal(found, np.array([np.nan, np.inf, np.nan], np.float32))
    assert np.isnan(
        ConvProblem(
            "a zero pixel beside an infinite weight",
            np.zeros((1, 1, 1, 1), np.float32),
            np.full((1, 1, 1, 1), np.inf, np.float32),
            conv_same(1, 1, 1, 1, 1, 1, 1),
        ).defined()["out"]
    ).all()
