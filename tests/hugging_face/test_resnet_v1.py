"""Hugging Face's ResNet: its files, and every layer against the same function in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import errors
from tests.hugging_face.networks import renamed, run_transformers
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth
from tests.support.arrays import digest, random_images
from tests.torchvision.networks import Description, TensorFlowV1, TorchV1, draw_state, published, run
from tests.torchvision.test_resnet_v1 import SMALL, SMALL_BASIC, write

OPTIONS = {"pool_mode": "torch", "stride_place": "first_unit"}
KINDS = pytest.mark.parametrize("description", [SMALL, SMALL_BASIC], ids=["bottleneck", "basic"])

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def test_every_tensor_has_its_place(tmp_path: Path) -> None:
    state = draw_state(published(18), 1)
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", renamed(state)), strict=True)
    by_torch = refnet.load_weights(write(tmp_path / "b.safetensors", state), strict=True)
    recipe = refnet.Recipe(224, 224, 1.0, "torch", 256, "bicubic", crop_offset="down")
    assert (weights.options, weights.recipe) == (OPTIONS, recipe)
    assert any("downsample_in_bottleneck" in note for note in weights.notes)
    assert weights.keys() == by_torch.keys()
    assert digest(*(weights[name] for name in by_torch)) == digest(*by_torch.values())
    assert set(weights.conversion.renamed.values()) == renamed(state).keys()


@KINDS
def test_the_model_without_its_classifier(description: Description, tmp_path: Path) -> None:
    """``ResNetModel`` and ``ResNetBackbone`` have no prefix."""
    state = {
        name.removeprefix("resnet."): value
        for name, value in renamed(draw_state(description, 1)).items()
        if not name.startswith("classifier")
    }
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.architecture.num_classes is None
    assert refnet.forward(weights, random_images(33, 33, 3, seed=1), global_pool=False).ndim == 3


@KINDS
@pytest.mark.parametrize("framework", ["tensorflow", "torch", "transformers"])
def test_float64_is_the_truth(framework: str, description: Description, tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, images = draw_state(description, 3), random_images(2, 33, 40, 3, seed=4)
    if framework == "transformers":
        truth = run_transformers(description, renamed(state), images, "resnet_v1", "float64")
    else:
        operations = TensorFlowV1("float64") if framework == "tensorflow" else TorchV1("float64")
        truth = run(operations, description, state, images, "resnet_v1")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", renamed(state)), strict=True)
    assert_is_the_truth(description.net("resnet_v1"), weights, images, truth)


def test_strides_in_the_first_convolution(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    description = SMALL._replace(in_1x1=True)
    state, images = draw_state(description, 3), random_images(2, 33, 40, 3, seed=4)
    truth = run_transformers(description, renamed(state), images, "resnet_v1", "float64")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", renamed(state)))
    weights = weights.replace(options={**weights.options, "stride_place": "first_conv"})
    assert_is_the_truth(description.net("resnet_v1"), weights, images, truth)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_layer(depth: int, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    pytest.importorskip("transformers")
    description, scope = published(depth), f"resnet_v1_{depth}"
    state, images = draw_state(description, 1), random_images(2, 97, 64, 3, seed=2)
    truth, theirs = (
        run_transformers(description, renamed(state), images, scope, dtype) for dtype in ("float64", "float32")
    )
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", renamed(state)))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert_close_to_truth(description.net(scope), weights, images, end_points, theirs, truth)


def test_a_first_stage_that_strides_is_refused(tmp_path: Path) -> None:
    """Only a convolution that keeps the depth shows it, since nothing else needs one there."""
    state = renamed(draw_state(SMALL_BASIC, 1))
    state["resnet.encoder.stages.0.layers.0.shortcut.convolution.weight"] = np.ones((64, 64, 1, 1), np.float32)
    with pytest.raises(errors.MissingTensorError, match="refnet does not have, with a first stage that strides"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))
