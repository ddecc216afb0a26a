"""Directories that timm and transformers write: the pixels of their transforms, and the logits of their models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet
from tests.torchvision.test_pixels import assert_same_pixels

#: No model is downloaded, and nobody is asked for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def assert_same_logits(weights: refnet.Weights, model: Any, pixels: Any, standardized: bool = False) -> None:
    """Within a few roundings of the largest, for models of few layers; and one of binary32 per standardised kernel."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = model.double().eval()(pixels.double())
    expected = np.asarray(getattr(expected, "logits", expected))
    found = refnet.forward(weights, np.asarray(pixels, np.float32).transpose(0, 2, 3, 1), dtype="float64")
    kernels = sum(value.ndim == 4 for value in weights.values()) if standardized else 0
    atol = (1e-9 + kernels * 2.0**-24) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("resnetv2_18", {}), ("resnet18", {"in_chans": 1}), ("resnet18", {}), ("resnetv2_34d", {}), ("resnet26d", {})],
)
def test_timm(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    model = timm.create_model(name, num_classes=7, **arguments)
    labels = [f"class {i}" for i in range(7)]
    timm.models.save_for_hf(model, tmp_path, model_config={"label_names": labels}, safe_serialization="both")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    channels = arguments.get("in_chans", 3)
    weights = refnet.load_weights(tmp_path, strict=True)
    assert weights.labels == tuple(labels)
    if channels == 3:
        assert_same_pixels(transform, weights.recipe)
    assert weights.architecture.channels == channels == len(weights.recipe.mean or ())
    assert_same_logits(weights, model, torch.rand((1, channels, 64, 64), generator=torch.Generator().manual_seed(1)))
    assert refnet.load_weights(tmp_path / "pytorch_model.bin").recipe == weights.recipe


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "resnetv2_50d_gn"])
def test_timms_group_norm(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=7)
    timm.models.save_for_hf(model, tmp_path, safe_serialization="both")
    weights = refnet.load_weights(tmp_path, strict=True)
    assert not any("was taken for" in note for note in weights.notes)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    assert_same_pixels(transform, weights.recipe)
    pixels = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    assert_same_logits(weights, model, pixels, standardized="bit" in name)


def test_transformers_bit(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    labels = {0: "cat", 1: "dog", 2: "cow"}
    torch.manual_seed(1)
    config = transformers.BitConfig(depths=[1, 2], hidden_sizes=[128, 256], id2label=labels)
    model = transformers.BitForImageClassification(config)
    model.save_pretrained(tmp_path)
    values = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 448}, "resample": 2}
    processor = transformers.BitImageProcessorPil(crop_size={"height": 448, "width": 448}, **values)
    processor.save_pretrained(tmp_path)
    weights = refnet.load_weights(tmp_path, strict=True)
    assert weights.labels == tuple(labels.values())
    assert_same_pixels(lambda image: processor(image, return_tensors="np")["pixel_values"][0], weights.recipe)
    pixels = torch.rand((1, 3, 63, 61), generator=torch.Generator().manual_seed(2))
    assert_same_logits(weights, model, pixels, standardized=True)


@pytest.mark.parametrize("number", ["18", "34", "50", "101", "50d", "34d"])
def test_without_a_configuration_timms_default_of_each_network(number: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch_file = pytest.importorskip("safetensors.torch")
    model = timm.create_model(f"resnetv2_{number}", num_classes=2)
    torch_file.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    assert_same_pixels(transform, refnet.load_weights(tmp_path / "weights.safetensors").recipe)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("in_bottleneck", [False, True])
def test_transformers(layer_type: str, in_bottleneck: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    labels = {0: "cat", 1: "dog", 2: "cow"}
    config = transformers.ResNetConfig(
        depths=[1, 2], hidden_sizes=[64, 32], embedding_size=64, layer_type=layer_type, id2label=labels,
        downsample_in_bottleneck=in_bottleneck,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path)
    values = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.9, **values)
    processor.save_pretrained(tmp_path)
    weights = refnet.load_weights(tmp_path, strict=True)
    assert weights.labels == tuple(labels.values())
    assert_same_pixels(lambda image: processor(image, return_tensors="np")["pixel_values"][0], weights.recipe)
    # Of an odd size, so that it matters which convolution strides.
    assert_same_logits(weights, model, torch.rand((1, 3, 63, 61), generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("processor", ["ViTImageProcessorPil", "BitImageProcessorPil", "ConvNextImageProcessorPil"])
def test_processors_by_their_defaults(processor: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic")
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    made = getattr(transformers, processor)()
    made.save_pretrained(tmp_path)

    def transform(image: Image.Image) -> Any:
        return made(image, return_tensors="np")["pixel_values"][0]

    assert_same_pixels(transform, refnet.load_weights(tmp_path).recipe)
