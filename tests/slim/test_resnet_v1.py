"""The first version of the network: random ones against the real tf_slim, as `test_oracle` does for the second."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from tests.slim import error_bound
from tests.slim.networks import (
    EPSILONS,
    Case,
    assert_all_within,
    cases,
    compare_with_slim,
    examples,
    refnet_blocks,
    run_refnet,
)
from tests.slim.oracle import Net, block, draw_weights, slim_variables
from tests.support.arrays import random_images

FIRST = st.just(1)


@examples(12)
@given(cases(version=FIRST, batch_norm_epsilon=EPSILONS, batch_norm_scale=st.booleans()))
def test_inference(case: Case) -> None:
    compare_with_slim(case)


@examples(6)
@given(cases(version=FIRST, is_training=st.just(True), batch_norm_epsilon=EPSILONS, batch_norm_scale=st.booleans()))
def test_training(case: Case) -> None:
    compare_with_slim(case)


def ends_in_an_end_point(case: Case) -> bool:
    """Whether what is returned has a name: the stride after the last block's stored activations has none."""
    return case.net.num_classes is not None or case.net.global_pool


@examples(10)
@given(
    cases(
        version=FIRST,
        is_training=st.booleans(),
        activation_fn=st.sampled_from(["relu", None]),
        use_batch_norm=st.booleans(),
        store_non_strided_activations=st.booleans(),
    ).filter(ends_in_an_end_point)
)
def test_options_of_the_models_repository(case: Case) -> None:
    compare_with_slim(case)


NET = Net([block("block1", 2, 2, 2), block("block2", 3, 2, 1)], num_classes=4, version=1)
SHAPE = (2, 40, 37, 3)


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    return draw_weights(slim_variables(NET, SHAPE), 5)


def test_resnet_v1_is_the_network_of_forward(variables: dict[str, np.ndarray]) -> None:
    images = random_images(*SHAPE, seed=6)
    expected, expected_ends = run_refnet(NET, variables, images)
    got, ends = refnet.resnet_v1(
        images, refnet_blocks(NET.blocks, NET.unit_name), 4, spatial_squeeze=False, scope="resnet", variables=variables
    )
    np.testing.assert_array_equal(got, expected)
    assert list(ends) == list(expected_ends)
    for name, value in ends.items():
        np.testing.assert_array_equal(value, expected_ends[name], err_msg=name)


def test_the_version_is_read_off_the_names(variables: dict[str, np.ndarray]) -> None:
    images = random_images(*SHAPE, seed=6)
    expected, _ = run_refnet(NET, variables, images)
    np.testing.assert_array_equal(refnet.forward(variables, images, spatial_squeeze=False), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_norm_epsilon": 1e-3},
        {"is_training": True},
        {"activation_fn": None},
        {"batch_norm_scale": False},
        {"bias_before_batch_norm": True},
    ],
)
def test_another_option_is_out_of_bounds(variables: dict[str, np.ndarray], change: dict[str, Any]) -> None:
    images = random_images(*SHAPE, seed=6)
    bounds = error_bound.end_points(NET, variables, images)
    _, run = run_refnet(NET, variables, images)
    assert_all_within(run, bounds)
    biases = {name.replace("weights", "biases"): np.full(a.shape[-1], 0.1, np.float32) for name, a in variables.items()}
    _, other = run_refnet(NET.replace(**change), biases | variables, images)
    with pytest.raises(AssertionError, match="out of bounds"):
        assert_all_within(other, bounds)


@pytest.mark.parametrize(
    ("part", "layer"),
    [
        ("conv1/weights", "conv1"),
        ("block1/unit_1/bottleneck_v1/shortcut/BatchNorm/beta", "block1/unit_1/bottleneck_v1/shortcut"),
        ("block1/unit_2/bottleneck_v1/conv3/BatchNorm/moving_mean", "block1/unit_2/bottleneck_v1/conv3"),
    ],
)
def test_a_last_bit_of_binary32_is_out_of_the_bounds_of_binary64(
    variables: dict[str, np.ndarray], part: str, layer: str
) -> None:
    changed = variables | {f"resnet/{part}": np.nextafter(variables[f"resnet/{part}"], np.float32(np.inf))}
    images = random_images(*SHAPE, seed=6)
    _, run = run_refnet(NET, changed, images, dtype="float64")
    precision = error_bound.BINARY64
    assert_all_within(run, error_bound.end_points(NET, changed, images, run, precision))
    with pytest.raises(AssertionError, match=f"^resnet/{layer}: .* out of bounds"):
        assert_all_within(run, error_bound.end_points(NET, variables, images, run, precision))


def test_without_a_root_block_the_images_have_the_first_units_channels() -> None:
    net = NET.replace(include_root_block=False)
    variables = draw_weights(slim_variables(net, (1, 9, 9, 5)), 0) | {"resnet/conv1/weights": np.ones((7, 7, 3, 64))}
    assert run_refnet(net, variables, random_images(1, 9, 9, 5, seed=1))[0].shape == (1, 1, 1, 4)
