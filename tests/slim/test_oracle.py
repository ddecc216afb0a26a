"""Random networks: refnet against the real tf_slim, end point by end point."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from refnet.errors import ConfigError
from tests.slim import error_bound
from tests.slim.networks import (
    EPSILONS,
    VERSIONS,
    Case,
    assert_all_within,
    cases,
    compare_with_slim,
    examples,
    output_strides,
    refnet_blocks,
    run_refnet,
)
from tests.slim.oracle import Net, Slim, block, draw_weights, run_slim, slim_variables
from tests.support.arrays import random_images


@examples(16)
@given(cases(batch_norm_epsilon=EPSILONS, batch_norm_scale=st.booleans()))
def test_inference(case: Case) -> None:
    compare_with_slim(case)


@examples(10)
@given(cases(is_training=st.just(True), batch_norm_epsilon=EPSILONS, batch_norm_scale=st.booleans()))
def test_training(case: Case) -> None:
    compare_with_slim(case)


@examples(12)
@given(
    cases(
        is_training=st.booleans(),
        activation_fn=st.sampled_from(["relu", None]),
        use_batch_norm=st.booleans(),
        store_non_strided_activations=st.booleans(),
    )
)
def test_options_of_the_models_repository(case: Case) -> None:
    compare_with_slim(case)


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (31, 34)])
@pytest.mark.parametrize("output_stride", [None, 4, 8, 16, 32])
def test_every_output_stride_of_the_published_strides(size: tuple[int, int], output_stride: int | None) -> None:
    net = Net(
        [
            block(f"block{i + 1}", depth, 2, stride)
            for i, (depth, stride) in enumerate([(2, 2), (3, 2), (4, 2), (5, 1)])
        ],
        num_classes=7,
        global_pool=False,
        output_stride=output_stride,
    )
    compare_with_slim(Case(net, (1, *size, 3), seed=0))


@st.composite
def multi_grids(draw: st.DrawFn) -> Case:
    """Rates above 1 for the units of the last block, but those that stride."""
    case = draw(cases(version=VERSIONS, is_training=st.booleans()))
    grid = [1 if unit["stride"] > 1 else draw(st.integers(1, 4)) for unit in case.net.blocks[-1][1]]
    return case._replace(net=case.net.replace(multi_grid=grid))


@examples(6)
@given(multi_grids())
def test_multi_grid(case: Case) -> None:
    compare_with_slim(case)


@examples(2)
@given(multi_grids())
def test_a_multi_grid_is_the_unit_rates_of_the_last_block(case: Case) -> None:
    variables = draw_weights(slim_variables(case.net, case.shape), case.seed)
    images = random_images(*case.shape, seed=case.seed)
    expected, _ = run_refnet(case.net, variables, images)
    rated = case.net.replace(blocks=case.net.rated_blocks(), multi_grid=None)
    np.testing.assert_array_equal(run_refnet(rated, variables, images)[0], expected)


def test_a_multi_grid_has_as_many_rates_as_the_last_block_has_units() -> None:
    net = Net([block("block1", 2, 1, 1), block("block2", 3, 3, 1)])
    variables = draw_weights(slim_variables(net, (1, 20, 20, 3)), 0)
    images = random_images(1, 20, 20, 3, seed=1)
    for wrong in ((1, 2), (1, 2, 4, 1), ()):
        with pytest.raises(ConfigError, match=r"^Expect multi_grid to have length 3\.$"):
            refnet.forward(variables, images, blocks=refnet_blocks(net.blocks), multi_grid=wrong)
    with pytest.raises(ConfigError, match="multi_grid is 2; it is a sequence of rates"):
        refnet.forward(variables, images, blocks=refnet_blocks(net.blocks), multi_grid=2)
    with pytest.raises(ConfigError, match="multi_grid is 0; it is a whole number of 1 or more"):
        refnet.forward(variables, images, blocks=refnet_blocks(net.blocks), multi_grid=(1, 0, 2))


@examples(20)
@given(cases(), st.integers(-4, 100))
def test_output_strides_that_cannot_be_reached_fail_as_in_slim(case: Case, output_stride: int) -> None:
    net = case.net.replace(output_stride=output_stride)
    if output_stride in output_strides(net):
        return
    with pytest.raises(ValueError, match="output_stride") as expected:
        Slim(net, case.shape)
    variables = draw_weights(slim_variables(case.net, case.shape), case.seed)
    with pytest.raises(ConfigError) as found:
        run_refnet(net, variables, random_images(*case.shape, seed=case.seed))
    assert str(found.value) == str(expected.value)


def test_spatial_squeeze() -> None:
    net = Net([block("block1", 2, 1, 2)], num_classes=5)
    shape = (2, 20, 20, 3)
    variables = draw_weights(slim_variables(net, shape), 0)
    images = random_images(*shape, seed=1)
    expected, ends = run_slim(net, variables, images)
    options: dict[str, Any] = {"blocks": refnet_blocks(net.blocks)}
    kept, kept_ends = refnet.forward(variables, images, **options, spatial_squeeze=False, end_points=True)
    squeezed, squeezed_ends = refnet.forward(variables, images, **options, spatial_squeeze=True, end_points=True)
    assert kept.shape == expected.shape
    assert kept_ends["predictions"].shape == ends["predictions"].shape
    for found in (squeezed, refnet.forward(variables, images, **options)):
        np.testing.assert_array_equal(found, kept.reshape(2, 5))
    np.testing.assert_array_equal(squeezed_ends["resnet/spatial_squeeze"], squeezed)
    np.testing.assert_array_equal(squeezed_ends["predictions"], kept_ends["predictions"].reshape(2, 5))
    assert "resnet/spatial_squeeze" not in kept_ends


def test_dense_logits_cannot_be_squeezed() -> None:
    net = Net([block("block1", 2, 1, 1)], num_classes=5, global_pool=False)
    variables = draw_weights(slim_variables(net, (1, 20, 20, 3)), 0)
    images = random_images(1, 20, 20, 3, seed=1)
    assert refnet.forward(variables, images, blocks=refnet_blocks(net.blocks), global_pool=False).shape == (1, 5, 5, 5)
    with pytest.raises(ConfigError, match="squeeze"):
        run_refnet(net, variables, images, spatial_squeeze=True)


def test_resnet_v2_is_the_network_of_forward() -> None:
    net = Net([block("block1", 2, 2, 2), block("block2", 3, 1, 1)], num_classes=4, output_stride=4)
    variables = draw_weights(slim_variables(net, (2, 33, 30, 3)), 3)
    images = random_images(2, 33, 30, 3, seed=4)
    expected, expected_ends = run_refnet(net, variables, images)
    got, ends = refnet.resnet_v2(
        images,
        refnet_blocks(net.blocks),
        4,
        is_training=False,
        output_stride=4,
        spatial_squeeze=False,
        scope="resnet",
        variables=variables,
    )
    np.testing.assert_array_equal(got, expected)
    assert list(ends) == list(expected_ends)
    for name, value in ends.items():
        np.testing.assert_array_equal(value, expected_ends[name], err_msg=name)


# A bound that nothing exceeds proves nothing: it must refuse a network that is slightly another one.
BOUNDED_NET = Net([block("block1", 2, 2, 2), block("block2", 3, 2, 1)], num_classes=4)
BOUNDED_SHAPE = (2, 40, 37, 3)


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    return draw_weights(slim_variables(BOUNDED_NET, BOUNDED_SHAPE), 5)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_norm_epsilon": 1e-3},
        {"is_training": True},
        {"activation_fn": None},
        {"batch_norm_scale": False},
    ],
)
def test_another_option_is_out_of_bounds(variables: dict[str, np.ndarray], change: dict[str, Any]) -> None:
    images = random_images(*BOUNDED_SHAPE, seed=6)
    bounds = error_bound.end_points(BOUNDED_NET, variables, images)
    _, other = run_refnet(BOUNDED_NET.replace(**change), variables, images)
    with pytest.raises(AssertionError, match="out of bounds"):
        assert_all_within(other, bounds)


@pytest.mark.parametrize("part", ["conv1/weights", "block1/unit_2/bottleneck_v2/conv2/BatchNorm/beta", "logits/biases"])
def test_a_last_bit_of_binary32_is_out_of_the_bounds_of_binary64(variables: dict[str, np.ndarray], part: str) -> None:
    """The layer of one weight that is one ULP too large is named."""
    changed = variables | {f"resnet/{part}": np.nextafter(variables[f"resnet/{part}"], np.float32(np.inf))}
    images = random_images(*BOUNDED_SHAPE, seed=6)
    _, run = run_refnet(BOUNDED_NET, changed, images, dtype="float64")
    precision = error_bound.BINARY64
    assert_all_within(run, error_bound.end_points(BOUNDED_NET, changed, images, run, precision))
    layer = part.removesuffix("/BatchNorm/beta").rsplit("/", part.count("BatchNorm") == 0)[0]
    with pytest.raises(AssertionError, match=f"^resnet/{layer}: .* out of bounds"):
        assert_all_within(run, error_bound.end_points(BOUNDED_NET, variables, images, run, precision))


@pytest.mark.parametrize("part", ["conv1", "block1/unit_2/bottleneck_v2/conv2", "block2/unit_1/bottleneck_v2/conv1"])
def test_a_kernel_in_half_precision_is_out_of_bounds(variables: dict[str, np.ndarray], part: str) -> None:
    """The precision of TF32 in one layer: the bound layer by layer is narrow enough to see it, and names the layer."""
    name = f"resnet/{part}"
    changed = variables | {f"{name}/weights": variables[f"{name}/weights"].astype(np.float16).astype(np.float32)}
    images = random_images(*BOUNDED_SHAPE, seed=6)
    _, run = run_refnet(BOUNDED_NET, changed, images)
    assert_all_within(run, error_bound.end_points(BOUNDED_NET, changed, images, run))
    with pytest.raises(AssertionError, match=f"^{name}: .* out of bounds"):
        assert_all_within(run, error_bound.end_points(BOUNDED_NET, variables, images, run))
