"""torchvision's ResNet v1.5: its files, and every layer against the same function in float64, in three frameworks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnet
from refnet import errors
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth
from tests.slim.oracle import Net
from tests.support.arrays import random_images
from tests.timm.networks import STAGES
from tests.torchvision.networks import (
    Stages,
    TensorFlowV1,
    TorchV1,
    blocks_of,
    draw_state,
    published,
    run,
    run_torchvision,
    shapes_of,
)

SHAPE = (2, 97, 64, 3)
SMALL = ((3, 2), (5, 1), (4, 2))

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def write(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """A state dict as PyTorch's save_file leaves it: with the counters of batches."""
    norms = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    save_file({**state, **{f"{name}.num_batches_tracked": np.array(3) for name in norms}}, path)
    return path


def net_of(stages: Stages, classes: int, scope: str) -> Net:
    return Net(blocks_of(stages), classes, pool_mode="torch", scope=scope, version=1)


def test_every_tensor_has_its_place(tmp_path: Path) -> None:
    state = draw_state(published(50), 1000, 1)
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit"}
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, "torch", 256)
    assert weights.conversion.renamed.keys() == weights.keys()
    assert set(weights.conversion.renamed.values()) == state.keys()
    for slim, name in weights.conversion.renamed.items():
        same = weights[slim].transpose(3, 2, 0, 1) if slim.endswith("/weights") else weights[slim]
        assert same.tobytes() == state[name].tobytes(), slim
    assert len(weights.conversion.left_out) == 53
    found = weights.architecture
    assert found.scope == "resnet_v1_50"
    assert [(block.scope, list(block.args)) for block in found.blocks] == blocks_of(published(50))


def layers_of(framework: str, depth: int, state: Mapping[str, np.ndarray], images: np.ndarray, dtype: str) -> Any:
    """Every layer of a published network; skipped where the framework is missing."""
    pytest.importorskip(framework)
    if framework == "torchvision":
        return run_torchvision(depth, state, images, f"resnet_v1_{depth}", dtype)
    operations = TensorFlowV1(dtype) if framework == "tensorflow" else TorchV1(dtype)
    return run(operations, published(depth), state, images, f"resnet_v1_{depth}")


@pytest.mark.parametrize("framework", ["tensorflow", "torch", "torchvision"])
@pytest.mark.parametrize("depth", [50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152))])
def test_every_layer(framework: str, depth: int, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    state, images = draw_state(published(depth), 1000, 1), random_images(*SHAPE, seed=2)
    truth, theirs = (layers_of(framework, depth, state, images, dtype) for dtype in ("float64", "float32"))
    assert all(value.dtype == np.float64 for value in truth.values())
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert end_points.keys() - truth.keys() == {"global_pool", "predictions"} | {
        f"resnet_v1_{depth}/block{i}" for i in range(1, 5)
    }
    net = net_of(published(depth), 1000, f"resnet_v1_{depth}")
    assert_close_to_truth(net, weights, images, end_points, theirs, truth)


@pytest.mark.parametrize("shape", [(2, 33, 40, 3), (1, 48, 35, 3)])
@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_float64_is_the_truth(framework: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, images = draw_state(SMALL, 7, 3), random_images(*shape, seed=4)
    operations = TensorFlowV1("float64") if framework == "tensorflow" else TorchV1("float64")
    truth = run(operations, SMALL, state, images, "resnet_v1")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    assert_is_the_truth(net_of(SMALL, 7, "resnet_v1"), weights, images, truth)


def test_names_and_shapes_are_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision")
    for depth in STAGES:
        state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
        found = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert found == shapes_of(published(depth), 1000)


VARIANTS = {
    "resnet18": ({"layer1.0.conv1.weight": (64, 64, 3, 3)}, ".conv3.weight", "two convolutions"),
    "resnext50_32x4d": ({"layer1.0.conv2.weight": (128, 4, 3, 3)}, "", "ResNeXt"),
    "resnet50d": ({"conv1.0.weight": (32, 3, 3, 3)}, "", "stem of three"),
    "seresnet50": ({"layer1.0.se.fc1.weight": (8, 8, 1, 1)}, "", "squeeze"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_refused_by_name(variant: str, tmp_path: Path) -> None:
    more, drop, words = VARIANTS[variant]
    state = {name: value for name, value in draw_state(SMALL, 7, 1).items() if not drop or not name.endswith(drop)}
    state |= {name: np.ones(shape, np.float32) for name, shape in more.items()}
    with pytest.raises(errors.MissingTensorError, match=f"refnet does not have, with.*{words}.*resnet50"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))
