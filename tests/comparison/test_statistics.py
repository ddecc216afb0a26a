"""The figures of a comparison against their definitions in binary64, and the precision that values show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refnet.comparison.statistics import (
    BFLOAT16,
    FACTOR,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    PRECISIONS,
    Precision,
    dead_channels,
    errors,
    off_by,
    patch,
    precision_of,
    scale_of,
    top_1,
)

GENERATOR = np.random.default_rng(0)
EXPECTED = GENERATOR.standard_normal((2, 5, 4, 6)).astype(np.float32)
FOUND = (EXPECTED + 1e-3 * GENERATOR.standard_normal(EXPECTED.shape)).astype(np.float32)


def test_figures_have_their_definitions() -> None:
    found = errors(EXPECTED, FOUND)
    a, b = EXPECTED.astype(np.float64).ravel(), FOUND.astype(np.float64).ravel()
    off, size = np.abs(b - a), np.abs(a).max()
    assert found.size == size
    assert found.largest == pytest.approx(off.max() / size, rel=1e-14)
    assert found.median == pytest.approx(np.sort(off)[(off.size - 1) // 2] / size, rel=1e-14)
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    ulp = np.spacing(np.float32(size)).astype(np.float64)
    expected = [np.quantile(off, q, method="inverted_cdf") / ulp for q in (0.5, 0.9, 0.99, 1)]
    assert found.ulps == pytest.approx(expected, rel=1e-14)
    assert found.where == np.unravel_index(off.argmax(), EXPECTED.shape)
    assert (found.expected, found.found) == (EXPECTED[found.where], FOUND[found.where])
    assert found.differing == np.count_nonzero(a != b)
    assert not found.same


def test_equal_bits() -> None:
    assert errors(EXPECTED, EXPECTED.copy()).same
    zeros = np.zeros((1, 3), np.float32)
    assert not errors(zeros, -zeros).same
    assert errors(zeros, -zeros).largest == 0
    assert not errors(EXPECTED, EXPECTED.astype(np.float64)).same


def test_nan_and_infinity() -> None:
    odd = EXPECTED.copy()
    odd[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    both = errors(odd, odd.copy())
    assert (both.same, both.largest, both.nan_both, both.nan_one) == (True, 0, 1, 0)
    one = errors(EXPECTED, odd)
    assert (one.largest, one.nan_both, one.nan_one) == (math.inf, 0, 1)
    assert not one.same
    assert one.correlation is not None
    assert one.correlation > 0.999


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_a_constant_side_has_no_correlation(value: float) -> None:
    assert errors(np.full_like(EXPECTED, value), FOUND).correlation is None


@pytest.mark.parametrize("factor", [1e-42, 1e-38, 1e38])
def test_extreme_sizes(factor: float) -> None:
    """Their squares would overflow, or vanish."""
    with np.errstate(all="ignore"):
        small, other = ((EXPECTED * np.float32(0.5)).astype(np.float64) * factor for _ in range(2))
    found = errors(small.astype(np.float32), other.astype(np.float32))
    assert found.largest == 0
    assert found.correlation is not None
    assert found.correlation == pytest.approx(1)


def test_a_dead_reference_is_measured_by_the_other_side() -> None:
    found = errors(np.zeros((1, 4), np.float32), np.array([[0, 1, 2, 4]], np.float32))
    assert (found.size, found.largest) == (4, 1)


def test_nothing_finite_to_measure_by() -> None:
    zeros, nan = np.zeros((1, 4), np.float32), np.full((1, 4), np.nan, np.float32)
    assert errors(zeros, nan).largest == off_by(zeros, nan) == math.inf
    assert errors(zeros, zeros).largest == off_by(zeros, zeros) == 0
    assert errors(nan, nan).largest == off_by(nan, nan) == 0


@given(st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_correlation_and_relative_error_do_not_depend_on_the_scale(factor: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((2, 1, 50))
    first, second = errors(a, b), errors(a * factor, b * factor)
    assert second.largest == pytest.approx(first.largest, rel=1e-9)
    assert second.correlation == pytest.approx(first.correlation, abs=1e-9)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_show_their_precision_whatever_their_dtype(precision: Precision, dtype: str) -> None:
    values = GENERATOR.standard_normal(1000)
    digits = np.ldexp(1.0, precision.bits)
    mantissa, exponent = np.frexp(values)
    rounded = np.ldexp(np.round(mantissa * digits) / digits, exponent)
    if precision is FLOAT64 and dtype == "float32":
        assert precision_of(rounded.astype(dtype)) is FLOAT32
    else:
        assert precision_of(rounded.astype(dtype)) is precision


def test_few_values_show_nothing() -> None:
    assert precision_of(np.array([[1.0, 0.5, 2.0]], np.float32)) is None
    assert precision_of(np.zeros((1, 1000), np.float32)) is None
    assert precision_of(np.zeros((1, 1000), np.float16)) is FLOAT16


def test_the_unit_roundoff_is_numpys() -> None:
    for precision, dtype in ((FLOAT16, np.float16), (FLOAT32, np.float32), (FLOAT64, np.float64)):
        assert precision.u == np.finfo(dtype).eps / 2
    assert BFLOAT16.u == 2.0**-8


def test_the_scale_is_measured_and_never_below_the_estimate() -> None:
    assert scale_of(400, FLOAT32).relative == 20 * 2.0**-24
    assert scale_of(400, FLOAT32, 1e-12).relative == 20 * 2.0**-24
    assert scale_of(400, FLOAT32, 1e-3).relative == 1e-3
    assert scale_of(400, FLOAT32, 1e-3).tolerance == FACTOR * 1e-3
    assert scale_of(400, FLOAT64, 2e-3).relative == pytest.approx(2e-3 * 2.0**-29)
    assert scale_of(400, FLOAT16).relative > 2.0**-11 > scale_of(400, FLOAT32).relative


def test_half_precision_is_within_its_scale() -> None:
    """A chain of products with a matrix, whose values are stored in half precision, as networks are run in it."""
    generator = np.random.default_rng(0)
    layers = 20
    exact = half = generator.standard_normal((4, 72))
    for _ in range(layers):
        matrix = generator.standard_normal((72, 72)) / np.sqrt(72)
        exact, half = exact @ matrix, (half @ matrix).astype(np.float16).astype(np.float64)
    found = errors(exact, half)
    assert found.largest > scale_of(layers * 72, FLOAT32).tolerance
    assert found.largest < scale_of(layers * 72, FLOAT16).tolerance


def test_dead_channels_and_top_1() -> None:
    array = EXPECTED.copy()
    array[..., 2] = 0
    assert dead_channels(array).tolist() == [False, False, True, False, False, False]
    assert top_1(np.array([[1, 2], [3, 0]]), np.array([[1, 5], [0, 3]])) == (1, 2)


@pytest.mark.parametrize(
    ("shape", "where"),
    [((2, 30, 20, 3), (1, 29, 0, 2)), ((1, 3, 2, 4), (0, 1, 1, 3)), ((2, 50), (1, 49)), ((1, 1, 1, 7), (0, 0, 0, 5))],
)
def test_the_neighbourhood_holds_the_element(shape: tuple[int, ...], where: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    found = patch(array, -array, where)
    values = np.array(found.expected)
    assert array[where] in values
    assert np.array_equal(np.array(found.found), -values)
    assert values.size <= 121
    assert values.ravel()[0] == array[found.corner]
