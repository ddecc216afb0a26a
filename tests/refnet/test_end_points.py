"""How far end points are apart, and how many roundings lie behind them: by hand, and by exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import refnet
from refnet.evidence.end_points import compare, in_network_order, roundings
from refnet_kernels.conv import reference
from tests.support.arrays import random_images
from tests.support.nets import lively_weights, small_blocks

FLOATS = arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_equal_bits() -> None:
    values = array(1, -0.0, np.inf, np.nan)
    other = values.copy()
    other.view(np.uint32)[3] ^= 0x80000001
    for found in (values, other, values.astype(np.float64)):
        difference = compare("x", values, found, 7)
        assert difference[:4] == ("x", (4,), 7, True)
        assert str(difference) == "x [4]: the same bits"


@pytest.mark.parametrize(
    ("expected", "found", "elements", "where", "ulps"),
    [
        (array(1, 2, 3.5), array(1, 2 + 2**-22, 3.5), 1, (1,), 1),  # the ULP of 3.5, and of 2
        (array(1, 2, 3.5), array(1 + 2**-23, 2, 3.5 - 2**-22), 2, (2,), 1),
        (array(1e-30, 1), array(2e-30, 1), 1, (0,), np.float64(array(1e-30)[0]) / 2**-23),  # lost beside the 1
        (array(0, 1), array(-0.0, 1), 1, (0,), 0),
        (array(0, 0), array(2**-149, 0), 1, (0,), 1),
        (array(1, np.nan), array(1, 1), 1, (1,), np.inf),
        (array(1, np.inf), array(1, -np.inf), 1, (1,), np.inf),
        (array(3.4028235e38), array(0), 1, (0,), 2**24 - 1),  # the largest number has no larger neighbour
        (array(np.inf, 1), array(np.inf, 1 + 2**-23), 1, (1,), 1),
    ],
)  # fmt: skip
def test_distances(expected: np.ndarray, found: np.ndarray, elements: int, where: tuple[int, ...], ulps: float) -> None:
    difference = compare("x", expected, found)
    assert not difference.same
    assert (difference.elements, difference.where) == (elements, where)
    assert difference.ulps == pytest.approx(ulps, rel=1e-6)


@given(FLOATS, FLOATS)
def test_the_distance_is_that_of_exact_arithmetic(expected: np.ndarray, found: np.ndarray) -> None:
    difference = compare("x", expected, found)
    if difference.same:
        assert expected.tobytes() == found.tobytes()
        return
    largest = float(np.abs(expected).max())
    exponent = max(math.frexp(largest)[1] if largest else -200, -125)
    distances = [
        abs(Fraction(a) - Fraction(b)) for a, b in zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True)
    ]
    exact = max(distances) / Fraction(2) ** (exponent - 24)
    assert difference.ulps == pytest.approx(float(exact), rel=1e-15)


def test_another_shape_is_said_and_nothing_else() -> None:
    difference = compare("x", np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32))
    assert (difference.same, difference.found_shape, difference.ulps) == (False, (2, 1), None)
    assert str(difference) == "x [1, 2]: found the shape [2, 1]"


def test_a_difference_in_words() -> None:
    difference = compare("net", array(1, 2), array(1, 2.5), 1234)
    assert str(difference) == (
        "net [2]: 1 of 2 elements differ, most at [1]: expected 2.0, found 2.5, 2.1e+06 ULPs of the largest value "
        "(roundings on the way: 1,234)"
    )


def test_the_net_comes_before_the_predictions() -> None:
    assert list(in_network_order({"a": 0, "predictions": 1}, 2)) == ["a", "net", "predictions"]
    assert list(in_network_order({"a": 0}, 2)) == ["a", "net"]


def test_roundings_of_a_network_counted_by_hand() -> None:
    net, end_points = refnet.Engine(lively_weights(blocks=small_blocks(units=1))).trace((1, 33, 33, 3))
    counts = {name: roundings(net)[tensor.index] for name, tensor in end_points.items()}
    unit = "resnet_v2/block1/unit_1/bottleneck_v2"
    root = 64 + 3 + 1  # 147 products in three runs, and the bias
    preact = root + 3
    conv1 = preact + 64 + 1 + 3  # one run of 64 products
    conv2 = conv1 + 27 + 1 + 3  # 3 x 3 x 3 products
    conv3 = conv2 + 3 + 1 + 1
    assert counts["resnet_v2/conv1"] == counts["resnet_v2/pool1"] == root
    assert counts[f"{unit}/preact"] == preact
    assert counts[f"{unit}/shortcut"] == preact + 64 + 1 + 1
    assert counts[f"{unit}/conv1"] == conv1
    assert counts[f"{unit}/conv2"] == conv2
    assert counts[f"{unit}/conv3"] == conv3
    assert counts[unit] == conv3 + 1
    features = counts["resnet_v2/postnorm"]
    assert counts["resnet_v2/pool5"] == features + 1
    assert counts["resnet_v2/logits"] == counts["resnet_v2/spatial_squeeze"] == features + 1 + 20 + 1 + 1
    assert counts["predictions"] == counts["resnet_v2/logits"] + 1


def test_another_order_of_the_sums_is_near_on_the_scale_of_the_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, images = lively_weights(), random_images(1, 33, 34, 3)
    _, end_points = refnet.forward(weights, images, end_points=True)
    monkeypatch.setattr(reference, "RUN", 10**9)  # one chain for each sum
    _, others = refnet.forward(weights, images, device="reference", end_points=True)
    traced, order = refnet.Engine(weights).trace(images.shape)
    counts = roundings(traced)
    rows = [compare(name, value, others[name], counts[order[name].index]) for name, value in end_points.items()]
    assert all(row.ulps is not None and row.ulps < row.roundings / 2 for row in rows)
    assert not all(row.same for row in rows)
    # Another function is not: here the batch's own statistics.
    _, others = refnet.forward(weights, images, end_points=True, is_training=True)
    row = compare("predictions", end_points["predictions"], others["predictions"], counts[order["predictions"].index])
    assert row.ulps is not None
    assert row.ulps > 100 * row.roundings
