"""Random small networks, and what it takes to run them in refnet and to compare them with the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import refnet
from refnet.network.networks import BY_UNIT
from tests.slim import error_bound
from tests.slim.oracle import BlockSpec, Net, Slim, block, draw_weights
from tests.support.arrays import random_images

#: Beyond this, atrous rates pass the size of every image here.
LARGEST_STRIDE = 24

EPSILONS = st.sampled_from([1e-5, 1.001e-5, 1e-3])
VERSIONS = st.sampled_from([1, 2])

#: Of so many errors the maximum is a statistic, not a draw: of 100 normal ones it is 2.2 to 3.5 deviations in nine of
#: ten trials; a single one is 0.06 to 2 deviations.
ENOUGH = 100


def examples(count: int) -> settings:
    """So many examples, since TensorFlow takes half a second to build a graph; in the thorough profile more."""
    factor = max(settings().max_examples // 25, 1)
    return settings(max_examples=count * factor, suppress_health_check=[HealthCheck.too_slow])


class Case(NamedTuple):
    """A network, the shape of its images and the seed of its weights and images."""

    net: Net
    shape: tuple[int, int, int, int]
    seed: int


def strides(net: Net) -> list[int]:
    """The stride of each unit, in network order."""
    return [unit["stride"] for _, units in net.blocks for unit in units]


def output_strides(net: Net) -> list[int]:
    """The output strides that can be reached: the products of the first unit strides, times 4 after a root block."""
    root = 4 if net.include_root_block else 1
    return sorted({root * stride for stride in accumulate(strides(net), mul, initial=1)})


@st.composite
def _plain_blocks(draw: st.DrawFn) -> list[BlockSpec]:
    """What ``resnet_v2_block`` makes."""
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
    return [block(f"block{i + 1}", *size) for i, size in enumerate(draw(st.lists(sizes, min_size=1, max_size=4)))]


@st.composite
def _free_blocks(draw: st.DrawFn) -> list[BlockSpec]:
    """Units of any depth and stride; few depths, so that identity shortcuts are common."""
    unit = st.fixed_dictionaries(
        {"depth": st.sampled_from([4, 5, 64]), "depth_bottleneck": st.integers(1, 9), "stride": st.integers(1, 3)}
    )
    blocks = draw(st.lists(st.lists(unit, min_size=1, max_size=3), min_size=1, max_size=3))
    return [(f"block{i + 1}", units) for i, units in enumerate(blocks)]


@st.composite
def cases(draw: st.DrawFn, /, **options: st.SearchStrategy[Any]) -> Case:
    """Small networks with and without root block, of every shape and output stride; ``options`` of `Net` besides."""
    blocks = draw((_plain_blocks() | _free_blocks()).filter(lambda b: np.prod(strides(Net(b))) <= LARGEST_STRIDE))
    root = draw(st.booleans())
    net = Net(
        blocks,
        include_root_block=root,
        num_classes=draw(st.none() | st.integers(1, 13)),
        global_pool=draw(st.booleans()),
        **{name: draw(strategy) for name, strategy in options.items()},
    )
    net = net.replace(output_stride=draw(st.none() | st.sampled_from(output_strides(net))))
    side = st.integers(17, 70) if root else st.integers(3, 20)
    channels = st.sampled_from([1, 3, 3, 4] if root else [1, 3, 4, 5, 8])
    return Case(net, (draw(st.integers(1, 3)), draw(side), draw(side), draw(channels)), draw(st.integers(0, 2**32 - 1)))


def refnet_blocks(blocks: Sequence[BlockSpec], unit_name: str = "bottleneck_v2") -> list[refnet.Block]:
    """The same blocks for refnet."""
    unit = BY_UNIT[unit_name].unit
    return [refnet.Block(scope, unit, units) for scope, units in blocks]


def run_refnet(net: Net, variables: Mapping[str, np.ndarray], images: np.ndarray, **options: Any) -> Any:
    """refnet's net and end points, of rank 4 as tf_slim 1.1.0 returns them."""
    options = net.options() | {"end_points": True, "spatial_squeeze": False} | options
    return refnet.forward(variables, images, blocks=refnet_blocks(net.blocks, net.unit_name), **options)


def compare_with_slim(case: Case) -> None:
    """Run a case in tf_slim, in both precisions, and in refnet, and compare every end point in network order."""
    slim = Slim(case.net, case.shape)
    variables = draw_weights(slim.shapes, case.seed)
    images = random_images(*case.shape, seed=case.seed + 1)
    _, slim32 = slim.run(variables, images)
    truth, slim64 = Slim(case.net, case.shape, "float64").run(variables, images)
    got, end_points = run_refnet(case.net, variables, images)
    assert [name for name in end_points if name in slim.slim_end_points] == slim.slim_end_points
    # "global_pool" is the models repository's name for pool5.
    assert [name for name in end_points if name != "global_pool"] == list(slim64)
    last = f"{case.net.scope}/logits" if case.net.num_classes is not None else list(slim64)[-1]
    assert got.shape == truth.shape
    np.testing.assert_array_equal(got, end_points[last])
    assert_close_to_truth(case.net, variables, images, end_points, slim32, slim64)
    assert_is_the_truth(case.net, variables, images, slim64)


def assert_close_to_truth(
    net: Net,
    variables: Mapping[str, np.ndarray],
    images: np.ndarray,
    end_points: Mapping[str, np.ndarray],
    slim32: Mapping[str, np.ndarray],
    slim64: Mapping[str, np.ndarray],
) -> None:
    """Hold every end point to the derived bounds, and to TensorFlow's own error, in network order.

    The bounds' own values are held to TensorFlow's binary64 first. An error relative to the tensor's maximum may be
    twice the largest that TensorFlow's binary32 has made up to here (rounding noise travels along the network), and
    a rounding. Where ReLU leaves few values, the larger of two errors is a matter of luck: the bounds alone hold there.
    """
    running = error_bound.end_points(net, variables, images)
    layer = error_bound.end_points(net, variables, images, end_points)
    slim_error = 0.0
    for name, truth in slim64.items():
        got = end_points[name]
        assert got.dtype == np.float32, name
        assert got.shape == truth.shape, name
        checker = np.abs(running[name].value - truth).max()
        assert checker <= 2.0**-20 * running[name].bound.max(), f"{name}: the bound is not about TensorFlow's values"
        assert_within(f"{name}, from refnet's own inputs", got, layer[name])
        assert_within(name, got, running[name])
        largest = np.abs(truth).max() or 1.0
        slim_error = max(slim_error, np.abs(slim32[name] - truth).max() / largest)
        error = np.abs(got - truth).max() / largest
        allowed = 2 * slim_error + error_bound.BINARY32.u
        assert error <= allowed or np.count_nonzero(truth) < ENOUGH, (
            f"{name}: error {error:.2e}, TensorFlow's is {slim_error:.2e}"
        )


def assert_is_the_truth(
    net: Net, variables: Mapping[str, np.ndarray], images: np.ndarray, slim64: Mapping[str, np.ndarray]
) -> None:
    """Hold every end point of refnet in float64 to the bounds of binary64, and to TensorFlow's float64.

    TensorFlow's order of the sums is its own: where the contract has 64 roundings in a run it may have one for each
    product, and its batch norm subtracts products with the mean. 2**9 times the bound is room for both.
    """
    _, end_points = run_refnet(net, variables, images, dtype="float64")
    precision = error_bound.BINARY64
    running = error_bound.end_points(net, variables, images, precision=precision)
    layer = error_bound.end_points(net, variables, images, end_points, precision)
    for name, truth in slim64.items():
        got = end_points[name]
        assert got.dtype == np.float64, name
        assert_within(f"{name}, from refnet's own inputs", got, layer[name])
        assert_within(name, got, running[name])
        assert np.abs(got - truth).max() <= 2.0**9 * running[name].bound.max(), name


def assert_all_within(got: Mapping[str, np.ndarray], bounds: Mapping[str, error_bound.Bounded]) -> None:
    """Every end point within its bound, in network order."""
    for name, expected in bounds.items():
        assert_within(name, got[name], expected)


def assert_within(name: str, got: np.ndarray, expected: error_bound.Bounded) -> None:
    """Every element within its bound; the message names the one that is furthest out."""
    error = np.abs(got - expected.value)
    outside = ~(error <= expected.bound)
    if outside.any():
        worst = np.unravel_index(np.argmax(np.where(outside, error - expected.bound, -np.inf)), got.shape)
        raise AssertionError(
            f"{name}: {outside.sum()} of {got.size} elements are out of bounds; at {tuple(map(int, worst))} "
            f"got {got[worst]}, exact is {expected.value[worst]} +- {expected.bound[worst]:.3g}"
        )
