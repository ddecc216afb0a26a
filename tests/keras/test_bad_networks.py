"""Small networks in Keras' names and their damages, of both versions; the format's own are in tests/refnet/formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import refnet
from refnet.errors import CorruptError, DtypeError, MissingTensorError, RefnetError, ShapeMismatchError, WeightsError
from tests.refnet.formats.test_keras import write

pytestmark = pytest.mark.filterwarnings("ignore:The images are .* recipe")

Tensors = dict[str, np.ndarray]
IMAGE = np.zeros((32, 40, 3), np.float32)


def network(version: int) -> Tensors:
    """Two stages, of two units and of one, by ``layer/role``."""
    rng = np.random.default_rng(version)
    tensors: Tensors = {}

    def conv(layer: str, size: int, inputs: int, outputs: int, bias: bool = True) -> None:
        tensors[f"{layer}_conv/kernel"] = rng.normal(0, 0.1, (size, size, inputs, outputs)).astype(np.float32)
        if bias:
            tensors[f"{layer}_conv/bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)

    def norm(layer: str, channels: int) -> None:
        for role in ("gamma", "beta", "moving_mean", "moving_variance"):
            tensors[f"{layer}_bn/{role}"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)

    first = version == 1
    conv("conv1", 7, 3, 64)
    norm("conv1", 64) if first else None
    inputs = 64
    for unit, base, projected in (("conv2_block1", 4, True), ("conv2_block2", 4, False), ("conv3_block1", 5, True)):
        if not first:
            norm(f"{unit}_preact", inputs)
        if projected:
            conv(f"{unit}_0", 1, inputs, 4 * base)
            norm(f"{unit}_0", 4 * base) if first else None
        conv(f"{unit}_1", 1, inputs, base, bias=first)
        norm(f"{unit}_1", base)
        conv(f"{unit}_2", 3, base, base, bias=first)
        norm(f"{unit}_2", base)
        conv(f"{unit}_3", 1, base, 4 * base)
        norm(f"{unit}_3", 4 * base) if first else None
        inputs = 4 * base
    norm("post", inputs) if not first else None
    tensors["predictions/kernel"] = rng.normal(0, 0.1, (inputs, 10)).astype(np.float32)
    tensors["predictions/bias"] = rng.normal(0, 0.1, 10).astype(np.float32)
    return tensors


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def load_and_run(tensors: Tensors, path: Path) -> refnet.Weights:
    weights = refnet.load_weights(write(path, tensors))
    refnet.forward(weights, IMAGE)
    return weights


def test_a_sound_one(version: int, tmp_path: Path) -> None:
    weights = load_and_run(network(version), tmp_path / "a.h5")
    assert all(name.startswith(f"resnet_v{version}/") for name in weights)
    assert len(weights) == len(network(version))


Damage = Callable[[Tensors], object]


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda tensors: tensors.update({name: change(tensors[name])})


def drop(pattern: str) -> Damage:
    def damage(tensors: Tensors) -> None:
        for name in [name for name in tensors if re.search(pattern, name)]:
            del tensors[name]

    return damage


def not_finite(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[:2] = np.nan, np.inf
    return values


UNIT = r"block1/unit_1/bottleneck_v\d"
BAD: dict[str, tuple[Damage, type[RefnetError], str]] = {
    "no conv1": (drop("conv2_block2_1_conv"), MissingTensorError, "unit_2/.*/conv1/.* is missing"),
    "no 3x3 convolution": (drop("conv2_block1_2_conv/kernel"), MissingTensorError, f"lack 1 .*{UNIT}/conv2/weights"),
    "no batch norm": (drop("conv2_block1_2_bn"), MissingTensorError, f"lack 4 .*{UNIT}/conv2/BatchNorm"),
    "no shortcut": (drop("conv2_block1_0_conv"), MissingTensorError, f"lack 2 .*{UNIT}/shortcut"),
    "no biases": (drop("conv2_block1_._conv/bias"), MissingTensorError, f"lack [24] .*{UNIT}/shortcut/biases"),
    "no root": (drop("^conv1_"), RefnetError, "no root block"),
    "no unit in the middle": (drop("conv2_block1"), MissingTensorError, f"{UNIT}/conv1/weights is missing"),
    "no units at all": (drop("conv._block"), MissingTensorError, "not the weights of Keras' ResNets"),
    "nothing": (drop(""), MissingTensorError, "not the weights of Keras' ResNets; the layers are none"),
    "another shape": (
        put("conv3_block1_2_conv/kernel", lambda a: a[..., :-1]), ShapeMismatchError, "conv2/weights should have shape",
    ),
    "another rank": (put("conv3_block1_3_conv/kernel", np.ravel), ShapeMismatchError, "conv3/weights has shape"),
    "a root of another rank": (put("conv1_conv/kernel", np.ravel), ShapeMismatchError, "conv1/weights has shape"),
    "a top of another rank": (put("predictions/kernel", np.ravel), ShapeMismatchError, "logits/weights has shape"),
    "one class more": (
        put("predictions/bias", lambda a: np.append(a, a[:1])), ShapeMismatchError, "is there a background class",
    ),
    "a kernel as PyTorch has it": (
        put("conv2_block1_1_conv/kernel", lambda a: a.transpose(3, 2, 0, 1)), ShapeMismatchError, "an OIHW kernel",
    ),
    "NaN": (put("conv2_block2_1_bn/beta", not_finite), CorruptError, r"unit_2/.*/conv1/BatchNorm/beta \(2\)"),
    "integers": (put("conv1_conv/bias", lambda a: a.astype(int)), DtypeError, "conv1/biases has dtype int64"),
    "a negative variance": (
        put("conv2_block1_1_bn/moving_variance", np.negative), RefnetError, f"{UNIT}/conv1/BatchNorm/moving_variance",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_networks(version: int, name: str, tmp_path: Path) -> None:
    damage, error, message = BAD[name]
    tensors = network(version)
    damage(tensors)
    with pytest.raises(error, match=message):
        load_and_run(tensors, tmp_path / "a.h5")


def test_a_file_of_both_versions(tmp_path: Path) -> None:
    """It is taken for the second, and what only the first has would be left over: batch norm, biases."""
    path = write(tmp_path / "a.h5", network(1) | network(2))
    with pytest.raises(WeightsError, match="within the network that refnet does not have: conv2_block1_0_bn/beta"):
        refnet.load_weights(path)


def test_layers_of_another_network_are_named(version: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", network(version) | {"dense_1/kernel": np.zeros((2, 2), np.float32)})
    with pytest.warns(UserWarning, match="1 tensors are not part of the network: dense_1/kernel"):
        refnet.load_weights(path)
    with pytest.raises(RefnetError, match="not part of the network: dense_1/kernel"):
        refnet.load_weights(path, strict=True)


def test_half_precision_is_converted_with_a_note(version: int, tmp_path: Path) -> None:
    halves = {name: a.astype(np.float16) for name, a in network(version).items()}
    weights = load_and_run(halves, tmp_path / "a.h5")
    assert len(weights.conversion.converted) == len(halves)


def test_both_versions_below_one_scope() -> None:
    blocks = [refnet.resnet_v1_block("block1", 2, 1, 1)], [refnet.resnet_v2_block("block1", 2, 1, 1)]
    first, second = (refnet.random_weights(b, 10, scope="resnet") for b in blocks)
    with pytest.raises(RefnetError, match="units of both versions below 'resnet'"):
        refnet.forward({**first, **second}, IMAGE)


@pytest.mark.parametrize("layer", ["scale2a_branch2a", "res4b22_branch2a", "scale_conv1"])
def test_larger_networks_by_the_names_of_keras_2(layer: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"res2a_branch2a/kernel": np.zeros((1, 1, 64, 64)), f"{layer}/gamma": np.zeros(9)})
    with pytest.raises(MissingTensorError, match=f"layers that refnet does not have.*: {layer}\\. refnet has"):
        refnet.load_weights(path)


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.99])
def test_cut_off(version: int, keep: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", network(version))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CorruptError, match="damaged"):
        refnet.load_weights(path)


def test_numbered_layers_without_names(version: int, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for i, array in enumerate(network(version).values()):
            file[f"layers/conv2d_{i}/vars/0"] = array
    with pytest.raises(MissingTensorError, match="no layer names"):
        refnet.load_weights(tmp_path / "a.weights.h5")
