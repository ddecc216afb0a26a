"""Networks with group norm in place of batch norm: what the variables decide, against tf_slim's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet.graph.graph import Graph
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth, run_refnet
from tests.slim.oracle import Net, Slim, block, draw_weights
from tests.support.arrays import digest, random_images
from tests.support.tensorflow import tf_slim

SHAPE = (2, 41, 36, 3)
V2 = Net([block("block1", 32, 2, 2), block("block2", 32, 1, 1)], 7, scope="resnet_v2")
V1 = V2.replace(version=1, scope="resnet_v1")
NETS = {"v2": V2, "v1": V1, "dense": V2.replace(output_stride=4, global_pool=False, is_training=True)}
Variables = dict[str, np.ndarray]


@contextmanager
def group_norms() -> Iterator[None]:
    """tf_slim's group norm wherever its networks have batch norm, which conv2d takes for its normalizer too."""
    lib = tf_slim()

    @lib.slim.add_arg_scope  # type: ignore[untyped-decorator]
    def group_norm(inputs: Any, epsilon: float, activation_fn: Any = None, scope: Any = None, **_: Any) -> Any:
        return lib.slim.group_norm(inputs, 32, epsilon=epsilon, activation_fn=activation_fn, scope=scope)

    with mock.patch.object(lib.resnet_v2.layers, "batch_norm", group_norm):
        yield


def slim(net: Net, dtype: str = "float32") -> Slim:
    with group_norms():
        return Slim(net, SHAPE, dtype)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_whole_networks(net: Net) -> None:
    """Every end point, by the names of tf_slim's own variables."""
    images = random_images(*SHAPE, seed=1)
    network = slim(net)
    assert not any("BatchNorm" in name or "moving" in name for name in network.shapes)
    variables = draw_weights(network.shapes, 2)
    _, slim32 = network.run(variables, images)
    _, slim64 = slim(net, "float64").run(variables, images)
    _, end_points = run_refnet(net, variables, images)
    assert [name for name in end_points if name in network.slim_end_points] == network.slim_end_points
    assert_close_to_truth(net, variables, images, end_points, slim32, slim64)
    assert_is_the_truth(net, variables, images, slim64)
    architecture = refnet.Weights(variables).architecture
    assert architecture.graph(variables).used == variables.keys()


@pytest.fixture(scope="module")
def variables() -> Variables:
    return draw_weights(slim(V2).shapes, 3)


IMAGES = random_images(*SHAPE, seed=4)


def test_group_norm_has_no_training(variables: Variables) -> None:
    """The statistics are those of the image, in training too."""
    expected = refnet.forward(variables, IMAGES)
    assert digest(refnet.forward(variables, IMAGES, is_training=True)) == digest(expected)
    assert digest(*(refnet.forward(variables, image) for image in IMAGES)) == digest(*expected)
    assert digest(refnet.forward(variables, IMAGES, device="reference", threads=2)) == digest(expected)


def test_dense_features_subsampled_are_not_the_nominal_ones(variables: Variables) -> None:
    """A denser grid has other statistics."""
    options = {"global_pool": False, "num_classes": None, "spatial_squeeze": False}
    nominal = refnet.forward(variables, IMAGES, **options)
    dense = refnet.forward(variables, IMAGES, output_stride=4, **options)
    assert dense[:, ::2, ::2].shape == nominal.shape
    assert digest(dense[:, ::2, ::2]) != digest(nominal)


def test_statistics_that_are_missing_do_not_make_a_group_norm() -> None:
    """A network of TF-Slim's names without its moving statistics is one with batch norm, as in training."""
    weights = refnet.random_weights([refnet.resnet_v2_block("block1", 32, 2, 1)], num_classes=3)
    left = {name: value for name, value in weights.items() if "moving" not in name}
    with pytest.raises(errors.MissingTensorError, match="preact/moving_mean"):
        refnet.forward(left, IMAGES)
    assert digest(refnet.forward(left, IMAGES, is_training=True)) == digest(
        refnet.forward(weights, IMAGES, is_training=True)
    )


UNIT = "resnet_v2/block1/unit_1/bottleneck_v2"


def test_batch_norm_and_group_norm_in_one_network(variables: Variables) -> None:
    """Each norm by its own variables."""
    ones = np.ones(64, np.float32)
    moving = {f"{UNIT}/preact/moving_{what}": ones for what in ("mean", "variance")}
    mixed = variables | moving
    graph = refnet.Weights(mixed).architecture.graph(mixed)
    ops = [tensor.op for tensor in graph.tensors if "norm" in tensor.op]
    assert ops == ["batch_norm"] + ["group_norm"] * 9
    assert graph.used == mixed.keys()
    _, ends = refnet.forward(mixed, IMAGES, end_points=True, dtype="float64")
    x, beta, gamma = (a.astype(np.float64) for a in (
        ends["resnet_v2/pool1"], variables[f"{UNIT}/preact/beta"], variables[f"{UNIT}/preact/gamma"],
    ))  # fmt: skip
    expected = np.maximum((x - 1) / np.sqrt(1 + 1e-5) * gamma + beta, 0)
    np.testing.assert_allclose(ends[f"{UNIT}/preact"], expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_a_norm_of_both_kinds_is_refused(variables: Variables, tmp_path: Path) -> None:
    more = {f"{UNIT}/conv1/BatchNorm/{role}": np.ones(32, np.float32) for role in ("beta", "gamma")}
    np.savez(tmp_path / "a.npz", **variables, **more)
    with pytest.raises(errors.WeightsError, match="layers within the network that refnet does not have"):
        refnet.load_weights(tmp_path / "a.npz")


@pytest.mark.parametrize("role", ["gamma", "beta"])
def test_a_missing_half_is_named(variables: Variables, role: str) -> None:
    for layer in (f"{UNIT}/preact", f"{UNIT}/conv2/GroupNorm", "resnet_v2/postnorm"):
        left = {name: value for name, value in variables.items() if name != f"{layer}/{role}"}
        with pytest.raises(errors.MissingTensorError, match=f"{layer}/{role}"):
            refnet.forward(left, IMAGES)


def test_a_root_with_a_group_norm(variables: Variables) -> None:
    """As with a batch norm, it is there if its variables are; and a ReLU follows."""
    more = {f"resnet_v2/conv1/GroupNorm/{role}": np.ones(64, np.float32) for role in ("beta", "gamma")}
    _, ends = refnet.forward(variables | more, IMAGES, end_points=True, dtype="float64")
    _, bare = refnet.forward(variables, IMAGES, end_points=True, dtype="float64")
    biases = variables["resnet_v2/conv1/biases"]
    assert biases.any()
    groups = bare["resnet_v2/conv1"].reshape(2, -1, 32, 2)
    centred = groups - groups.mean((1, 3), keepdims=True)
    expected = np.maximum(centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-5) + 1, 0)
    found = ends["resnet_v2/conv1"].reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("width", [1, 33, 48])
def test_channels_that_the_groups_do_not_divide(variables: Variables, width: int, tmp_path: Path) -> None:
    """An error of the file, which names the tensors."""
    shapes = {name: value.shape for name, value in variables.items()}
    for name in (f"{UNIT}/conv1/GroupNorm/gamma", f"{UNIT}/conv1/GroupNorm/beta"):
        shapes[name] = (width,)
    shapes[f"{UNIT}/conv1/weights"] = (1, 1, 64, width)
    shapes[f"{UNIT}/conv2/weights"] = (3, 3, width, 32)
    np.savez(tmp_path / "a.npz", **draw_weights(shapes, 1))
    message = f"conv1/GroupNorm/gamma has shape .{width},.; a group norm has 32 groups of the same number of channels"
    for use in (refnet.load_weights, lambda path: refnet.forward(dict(np.load(path)), IMAGES)):
        with pytest.raises(errors.ShapeMismatchError, match=message):
            use(tmp_path / "a.npz")


def test_eager_functions(variables: Variables) -> None:
    """A unit and a convolution alone, by their variables."""
    _, ends = refnet.forward(variables, IMAGES, end_points=True)
    pool1 = ends["resnet_v2/pool1"]
    unit = refnet.bottleneck(pool1, 128, 32, 1, scope=UNIT, variables=variables)
    assert digest(unit) == digest(ends[UNIT])
    net = refnet.conv2d_same(
        ends[f"{UNIT}/preact"], 32, 1, 1, scope=f"{UNIT}/conv1", normalizer_fn="batch_norm", variables=variables
    )
    assert digest(net) == digest(ends[f"{UNIT}/conv1"])
    with pytest.raises(errors.ConfigError, match="32"):
        Graph(variables).group_norm(Graph({}).placeholder((1, 2, 2, 33)), "x")
