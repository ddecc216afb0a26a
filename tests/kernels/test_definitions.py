"""The definitions in NumPy against arithmetic from first principles: exact rationals, and scalars in plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rational
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import (
    KINDS,
    BatchNormProblem,
    ConvProblem,
    MaxPoolProblem,
    MeanProblem,
    ResidualProblem,
    SoftmaxProblem,
    StatisticsProblem,
    SubsampleProblem,
    assert_same_bits,
    conv_problem,
    conv_same,
    norm,
    numbers,
    pool_same,
)

from refnet_kernels import exact, softmax
from refnet_kernels.contract import ConvGeometry, Float32Array, PoolGeometry, norm_scale
from refnet_kernels.softmax.reference import exp


def float32(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def scaled(significand: int, exponent: int) -> np.float32:
    return rational.rounded(Fraction(significand) * Fraction(2) ** exponent)


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
    assert_same_bits({"fma": found}, {"fma": np.array([rational.fma(a, b, c)])})


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
    assert twice != rational.fma(a, b, c)
    assert_fma(a, b, c)


@given(st.sampled_from(KINDS), st.integers(0, 999))
def test_fma_of_arrays(kind: str, seed: int) -> None:
    a, b, c = (numbers(kind, seed + i, 300) for i in range(3))
    truth = np.array([rational.fma(*triple) for triple in zip(a, b, c, strict=True)])
    assert_same_bits({"fma": exact.fma(a, b, c)}, {"fma": truth})


@given(st.fractions(-(2**130), 2**130) | st.fractions(-1, 1).map(lambda value: value / 2**124))
def test_the_truth_itself_rounds_to_the_nearest(value: Fraction) -> None:
    found = rational.rounded(value)
    assert math.isinf(found) == (abs(value) >= Fraction(2) ** 128 - Fraction(2) ** 103)
    if math.isinf(found):
        return
    distance = abs(Fraction(float(found)) - value)
    for direction in (-np.inf, np.inf):
        neighbour = np.nextafter(found, np.float32(direction))
        if math.isfinite(neighbour):
            other = abs(Fraction(float(neighbour)) - value)
            assert distance < other or (distance == other and found.view(np.uint32) % 2 == 0)


def conv_truth(x: Float32Array, weights: Float32Array, g: ConvGeometry, bias: Float32Array | None) -> Float32Array:
    out = np.zeros((g.batch, g.out_height, g.out_width, g.out_channels), np.float32)
    for n, y, x_, o in np.ndindex(out.shape):
        t = s = np.float32(0)
        k = 0
        for kh in range(g.kernel_height):
            for kw in range(g.kernel_width):
                row, column = y * g.stride + kh * g.rate - g.pad_top, x_ * g.stride + kw * g.rate - g.pad_left
                inside = 0 <= row < g.height and 0 <= column < g.width
                for c in range(g.channels):
                    value = x[n, row, column, c] if inside else np.float32(0)
                    s = rational.fma(value, weights[kh, kw, c, o], s)
                    k += 1
                    if k % 64 == 0:
                        t, s = rational.add(t, s), np.float32(0)
        if k % 64:
            t = rational.add(t, s)
        out[n, y, x_, o] = t if bias is None else rational.add(t, bias[o])
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "geometry",
    [
        conv_same(2, 3, 4, 3, 2, 3, 1),
        conv_same(1, 5, 5, 1, 1, 7, 2),
        ConvGeometry(1, 4, 5, 15, 2, 3, 2, 3, 3, 2, 2, 2, 2),
        conv_same(1, 1, 2, 64, 2, 1, 1),
        conv_same(1, 1, 2, 129, 2, 1, 1),
        ConvGeometry(1, 2, 2, 2, 3, 2, 2, 2, 1, 3, 3, 4, 0),
    ],
    ids=str,
)
def test_conv(geometry: ConvGeometry, kind: str) -> None:
    problem = conv_problem("truth", geometry, kind, "bias")
    truth = conv_truth(problem.x, problem.weights, geometry, problem.bias)
    assert_same_bits(problem.defined(), {"out": truth})


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm(kind: str, relu: bool) -> None:
    problem = BatchNormProblem("truth", numbers(kind, 1, 2, 3, 4, 9), norm(kind, 2, 9), relu)
    truth = np.zeros_like(problem.x)
    for index in np.ndindex(problem.x.shape):
        mean, scale, beta = (values[index[-1]] for values in problem.norm)
        value = rational.fma(rational.subtract(problem.x[index], mean), scale, beta)
        truth[index] = rational.relu(value) if relu else value
    assert_same_bits(problem.defined(), {"out": truth})


@pytest.mark.parametrize("gamma", [False, True])
@pytest.mark.parametrize("kind", ["normal", "far from 0", "small integers", "tiny", "huge"])
def test_batch_statistics(kind: str, gamma: bool) -> None:
    x = numbers(kind, 1, 2, 3, 4, 5)
    problem = StatisticsProblem("truth", x, numbers("normal", 2, 5) if gamma else None, 1e-5)
    means, scales = [], []
    for c in range(5):
        values = [float(x[n, h, w, c]) for n, h, w in np.ndindex(2, 3, 4)]
        total = 0.0
        for value in values:
            total += value
        mean = total / 24
        squares = 0.0
        for value in values:
            squares += (value - mean) * (value - mean)
        numerator = 1.0 if problem.gamma is None else float(problem.gamma[c])
        means.append(rational.rounded(Fraction(mean)))
        scales.append(rational.rounded(Fraction(numerator / math.sqrt(squares / 24 + 1e-5))))
    assert_same_bits(problem.defined(), {"mean": np.array(means), "scale": np.array(scales)})


@given(st.integers(0, 999), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_norm_scale(seed: int, epsilon: float) -> None:
    variance = np.abs(numbers("normal", seed, 20))
    gamma = numbers("normal", seed + 1, 20)
    truth = [
        rational.rounded(Fraction(float(g) / math.sqrt(float(v) + epsilon)))
        for g, v in zip(gamma, variance, strict=True)
    ]
    assert_same_bits({"scale": norm_scale(variance, gamma, epsilon)}, {"scale": np.array(truth)})


@pytest.mark.parametrize("factor", [1, 2, 3, 9])
def test_subsample(factor: int) -> None:
    x = numbers("special", 1, 2, 5, 6, 3)
    picked = [[[x[n, h, w] for w in range(0, 6, factor)] for h in range(0, 5, factor)] for n in range(2)]
    assert_same_bits(SubsampleProblem("truth", x, factor).defined(), {"out": np.array(picked)})


@pytest.mark.parametrize("kind", KINDS)
def test_residual(kind: str) -> None:
    problem = ResidualProblem("truth", numbers(kind, 1, 3, 50), numbers(kind, 2, 3, 50))
    pairs = zip(problem.shortcut.flat, problem.x.flat, strict=True)
    truth = np.array([rational.add(*pair) for pair in pairs]).reshape(3, 50)
    assert_same_bits(problem.defined(), {"out": truth})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "geometry",
    [pool_same(2, 6, 7, 3, 3, 2), PoolGeometry(2, 6, 7, 3, 4, 5, 2, 3, 2, 2), pool_same(2, 6, 7, 3, 1, 2)],
    ids=str,
)
def test_max_pool(geometry: PoolGeometry, kind: str) -> None:
    g = geometry
    x = numbers(kind, 1, g.batch, g.height, g.width, g.channels)
    truth = np.zeros((g.batch, g.out_height, g.out_width, g.channels), np.float32)
    for n, y, x_, c in np.ndindex(truth.shape):
        rows = range(y * g.stride - g.pad_top, y * g.stride - g.pad_top + g.window)
        columns = range(x_ * g.stride - g.pad_left, x_ * g.stride - g.pad_left + g.window)
        inside = [x[n, h, w, c] for h in rows for w in columns if 0 <= h < g.height and 0 <= w < g.width]
        # Python's max keeps the first of equals.
        nan = any(math.isnan(value) for value in inside)
        truth[n, y, x_, c] = math.nan if nan else max([np.float32(-np.inf), *inside], key=float)
    assert_same_bits(MaxPoolProblem("truth", x, g).defined(), {"out": truth})


@pytest.mark.parametrize("kind", ["normal", "small integers", "tiny", "huge"])
def test_mean(kind: str) -> None:
    x = numbers(kind, 1, 2, 5, 7, 6)
    truth = np.zeros((2, 1, 1, 6), np.float32)
    for n, c in np.ndindex(2, 6):
        total = 0.0
        for h, w in np.ndindex(5, 7):
            total += float(x[n, h, w, c])
        truth[n, 0, 0, c] = rational.rounded(Fraction(total / 35))
    assert_same_bits(MeanProblem("truth", x).defined(), {"out": truth})


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


#: Which test holds the definition of an op to an independent truth.
TRUTHS: dict[str, Callable[..., Any]] = {
    "conv": test_conv,
    "batch_norm": test_batch_norm,
    "batch_statistics": test_batch_statistics,
    "subsample": test_subsample,
    "residual": test_residual,
    "max_pool": test_max_pool,
    "mean": test_mean,
    "softmax": test_softmax,
}
