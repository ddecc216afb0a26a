"""What the definitions in NumPy are made of, against exact and 50-digit arithmetic: fma, the scale, exp and softmax.

`test_exact.py` holds each op's definition, as every other kernel, to exact arithmetic.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import (
    KINDS,
    ConvProblem,
    MeanProblem,
    SoftmaxProblem,
    assert_same_bits,
    conv_same,
    numbers,
)

from refnet_kernels import exact, softmax
from refnet_kernels.contract import norm_scale
from refnet_kernels.softmax.reference import exp
from tests.exact import ops
from tests.exact.arithmetic import BINARY32


def float32(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def scaled(significand: int, exponent: int) -> np.float32:
    return np.float32(BINARY32.rounded(significand, exponent))


def exact_fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    return np.float32(BINARY32.fma(a.item(), b.item(), c.item()))


MANY = settings(max_examples=40 * settings.default.max_examples)

any_bits = st.builds(float32, st.integers(0, 2**32 - 1))
finite = st.builds(scaled, st.integers(-(2**24), 2**24), st.integers(-149, 104))


@st.composite
def near_a_tie(draw: st.DrawFn) -> tuple[np.float32, np.float32, np.float32]:
    """A product that is half the distance of c's neighbours, or a little more or less: about what binary64 can tell."""
    exponent = draw(st.integers(-149, 80))
    c = scaled(draw(st.integers(2**23, 2**24)), exponent)
    i = draw(st.integers(-3, 3) | st.integers(-1000, 1000))
    j = draw(st.integers(-1, 1)) - i
    half = exponent - 1 - 46
    a = scaled(draw(st.sampled_from([1, -1])) * (2**23 + i), half // 2)
    return a, scaled(2**23 + j, half - half // 2), c


def assert_fma(a: np.float32, b: np.float32, c: np.float32) -> None:
    found = exact.fma(*(np.array([value], np.float32) for value in (a, b, c)))
    assert_same_bits({"fma": found}, {"fma": np.array([exact_fma(a, b, c)])})


@MANY
@given(any_bits, any_bits, any_bits)
def test_fma_of_any_bits(a: np.float32, b: np.float32, c: np.float32) -> None:
    assert_fma(a, b, c)


@MANY
@given(finite, finite, finite)
def test_fma_of_finite_numbers(a: np.float32, b: np.float32, c: np.float32) -> None:
    assert_fma(a, b, c)


@MANY
@given(near_a_tie())
# The sum in binary64 is next to a tie, and already odd.
@example((scaled(2**23 + 400, -35), scaled(2**23 - 400, -35), scaled(2**23 + 1, -23)))
# Results at the ends of the range, and zeros.
@example((scaled(1, -75), scaled(1, -75), scaled(1, -149)))
@example((scaled(1, -75), scaled(-1, -75), scaled(1, -149)))
@example((np.float32(3.4028235e38), np.float32(1), scaled(1, 103)))
@example((np.float32(3.4028235e38), np.float32(1), scaled(2**24 - 1, 79)))
@example((np.float32(-0.0), np.float32(5), np.float32(-0.0)))
@example((np.float32(-0.0), np.float32(5), np.float32(0.0)))
@example((np.float32(2), np.float32(3), np.float32(-6)))
def test_fma_near_a_tie(triple: tuple[np.float32, np.float32, np.float32]) -> None:
    assert_fma(*triple)


@pytest.mark.parametrize("sign", [1, -1])
def test_fma_does_not_round_twice(sign: int) -> None:
    # c + a b lies 2^-70 from a tie of binary32. Binary64 cannot hold that; the tie's even side is the wrong one.
    a, b, c = scaled(sign * (2**23 + 1), -35), scaled(2**23 - 1, -35), scaled(2**23 + 1, -23)
    with np.errstate(all="raise"):
        twice = np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    assert twice != exact_fma(a, b, c)
    assert_fma(a, b, c)


@given(st.sampled_from(KINDS), st.integers(0, 999))
def test_fma_of_arrays(kind: str, seed: int) -> None:
    a, b, c = (numbers(kind, seed + i, 300) for i in range(3))
    truth = np.array([exact_fma(*triple) for triple in zip(a, b, c, strict=True)])
    assert_same_bits({"fma": exact.fma(a, b, c)}, {"fma": truth})


@given(st.integers(0, 999), st.sampled_from(KINDS), st.booleans(), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_norm_scale(seed: int, kind: str, with_gamma: bool, epsilon: float) -> None:
    variance, gamma = numbers(kind, seed, 20), numbers(kind, seed + 1, 20) if with_gamma else None
    gammas = [None] * 20 if gamma is None else gamma.tolist()
    truth = [ops.scale(BINARY32, g, v, epsilon) for g, v in zip(gammas, variance.tolist(), strict=True)]
    found = norm_scale(variance, gamma, epsilon)
    assert_same_bits({"scale": found}, {"scale": np.array(truth, np.float32)})


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


@given(st.integers(0, 999), st.integers(1, 12), st.sampled_from([1e-3, 1, 30, 1000]))
def test_softmax(seed: int, classes: int, spread: float) -> None:
    x = numbers("normal", seed, classes) * np.float32(spread)
    found = SoftmaxProblem("drawn", x).defined()["out"]
    with localcontext() as context:
        context.prec = 50
        powers = [Decimal(float(value) - float(x.max())).exp() for value in x]
        truth = [power / sum(powers) for power in powers]
        # Two units of each exp, half a unit of each addition and of the division; then one rounding to binary32,
        # or to its subnormals.
        relative = Decimal(UNIT * (4 + classes / 2 + 1) + 2.0**-24)
        for value, exactly in zip(found, truth, strict=True):
            assert abs(Decimal(float(value)) - exactly) <= relative * exactly + Decimal(2.0**-150)


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
