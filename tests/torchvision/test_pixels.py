"""Pixels against torchvision's, timm's and transformers' own transforms, bit by bit, where these are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet

SIZES = [(427, 640), (640, 427), (500, 375), (333, 501), (224, 224), (256, 259), (100, 70), (1000, 300), (9, 11)]


def assert_same_pixels(transform: Callable[[Image.Image], Any], recipe: refnet.Recipe, channels: int = 3) -> None:
    for seed, (height, width) in enumerate(SIZES):
        image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
        expected = np.asarray(transform(Image.fromarray(image if channels == 3 else image[..., 0]))).transpose(1, 2, 0)
        found = refnet.preprocess(image, recipe)
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


@pytest.mark.parametrize(
    ("network", "version", "resize_side"),
    [("ResNet18", "V1", 256), ("ResNet50", "V1", 256), ("ResNet50", "V2", 232), ("ResNet152", "V2", 232)],
)
def test_torchvision(network: str, version: str, resize_side: int) -> None:
    models = pytest.importorskip("torchvision.models")
    transforms = getattr(models, f"{network}_Weights")[f"IMAGENET1K_{version}"].transforms()
    assert_same_pixels(transforms, refnet.Recipe(224, 224, 1.0, "torch", resize_side, "bilinear"))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 1.0])
def test_timm(interpolation: str, crop_pct: float) -> None:
    data = pytest.importorskip("timm.data")
    values = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.1)}
    transform = data.create_transform((3, 160, 160), interpolation=interpolation, crop_pct=crop_pct, **values)
    recipe = refnet.Recipe(160, 160, 1.0, "torch", int(160 / crop_pct), interpolation, **values)
    assert_same_pixels(transform, recipe)


def test_timm_grey() -> None:
    data = pytest.importorskip("timm.data")
    values = {"mean": (0.449,), "std": (0.226,)}
    transform = data.create_transform((1, 160, 160), interpolation="bicubic", crop_pct=0.9, **values)
    assert_same_pixels(transform, refnet.Recipe(160, 160, 1.0, "torch", 177, "bicubic", **values), channels=1)


@pytest.mark.parametrize("side", [224, 384])
def test_transformers(side: int) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    values = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    processor = transformers.ConvNextImageProcessorPil(
        size={"shortest_edge": side}, image_mean=values["mean"], image_std=values["std"]
    )
    resize_side = 256 if side < 384 else None
    recipe = refnet.Recipe(side, side, 1.0, "torch", resize_side, "bicubic", **values, crop_offset="down")
    assert_same_pixels(lambda image: processor(image, return_tensors="np")["pixel_values"][0], recipe)
