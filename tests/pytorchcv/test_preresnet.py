"""pytorchcv's PreResNet: its files, and every layer against the same function in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import errors
from tests.pytorchcv.networks import Description, draw_state, run, run_pytorchcv
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth
from tests.support.arrays import random_images
from tests.timm.networks import TensorFlow, Torch
from tests.timm.test_resnet_v2 import write

#: preresnet18_wd4 has 16 channels at its root.
DESCRIPTIONS = {
    "bottleneck": Description(((12, 2), (20, 1), (16, 2)), 7),
    "bottleneck b": Description(((12, 2), (20, 1), (16, 2)), 7, conv1_stride=False),
    "basic": Description(((16, 2), (5, 1), (4, 2)), 7, basic=True, root=16),
}
KINDS = pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def load(description: Description, path: Path, seed: int = 3) -> tuple[dict[str, np.ndarray], refnet.Weights]:
    """A state, and the weights of its file, with what only the user knows."""
    state = draw_state(description, seed)
    weights = refnet.load_weights(write(path / "a.safetensors", state), strict=True)
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_conv"}
    if not description.conv1_stride:
        weights = weights.replace(options={**weights.options, "stride_place": "first_unit"})
    return state, weights


@KINDS
def test_every_tensor_has_its_place(description: Description, tmp_path: Path) -> None:
    state, weights = load(description, tmp_path)
    assert set(weights.conversion.renamed.values()) == state.keys()
    assert weights.keys() - weights.conversion.renamed.keys() == set(weights.conversion.added)
    assert all(not weights[name].any() for name in weights.conversion.added)
    assert "resnet_v2/conv1/BatchNorm/gamma" in weights
    assert "resnet_v2/conv1/biases" not in weights
    assert weights["resnet_v2/conv1/weights"].shape == (7, 7, 3, description.root)
    assert [(block.scope, list(block.args)) for block in weights.architecture.blocks] == description.blocks()
    assert any('stride_place="first_unit"' in note for note in weights.notes)


@KINDS
@pytest.mark.parametrize("framework", ["tensorflow", "torch", "pytorchcv"])
def test_float64_is_the_truth(framework: str, description: Description, tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, weights = load(description, tmp_path)
    images = random_images(2, 33, 40, 3, seed=4)
    if framework == "pytorchcv":
        truth = run_pytorchcv(description, state, images, "resnet_v2", "float64")
    else:
        truth = run(
            (TensorFlow if framework == "tensorflow" else Torch)("float64"), description, state, images, "resnet_v2"
        )
    assert_is_the_truth(description.net("resnet_v2"), weights, images, truth)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("conv1_stride", [True, False])
def test_every_layer(depth: int, conv1_stride: bool, tmp_path: Path) -> None:
    pytest.importorskip("pytorchcv")
    widths, units = ((64, 128, 256, 512), (2, 2, 2, 2)) if depth == 18 else ((256, 512, 1024, 2048), (3, 4, 6, 3))
    description = Description(tuple(zip(widths, units, strict=True)), 1000, depth == 18, conv1_stride)
    state, weights = load(description, tmp_path)
    images, scope = random_images(2, 97, 64, 3, seed=2), f"resnet_v2_{depth}"
    truth, theirs = (run_pytorchcv(description, state, images, scope, dtype) for dtype in ("float64", "float32"))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert_close_to_truth(description.net(scope), weights, images, end_points, theirs, truth)


def test_groups_are_refused(tmp_path: Path) -> None:
    state = draw_state(DESCRIPTIONS["bottleneck"], 1)
    state["features.stage1.unit1.body.conv2.conv.weight"] = np.ones((4, 2, 3, 3), np.float32)
    with pytest.raises(errors.MissingTensorError, match="refnet does not have, with convolutions in groups"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))
