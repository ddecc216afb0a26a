"""What is allowed and looks wrong is said: by the project's own warning, once, and where it is so only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.images import doubts
from refnet.images.preprocess import MODES
from refnet.weights.formats.npz import write_npz
from tests.support.arrays import random_images
from tests.support.nets import lively_weights, small_blocks


def warned(weights: Any, images: np.ndarray, **options: Any) -> list[str]:
    """The messages of all warnings of a forward pass; all are refnet's own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refnet.forward(weights, images, **options)
    assert all(warning.category is refnet.RefnetWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def doubt(images: np.ndarray, mode: str) -> str | None:
    return doubts.pixels(images, images.min(), images.max(), mode)


UNIFORM = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "modes", "words"),
    [
        (UNIFORM * 255, MODES, "as raw pixels are: pass those as uint8"),
        (UNIFORM * 255 - 120, ("inception", "tf", "torch"), "but these are -120 to 135."),
        (UNIFORM * 600 - 300, MODES, "but these are -300 to 300."),
        (UNIFORM, MODES, "as if scaled to 0..1"),
        (2 * UNIFORM - 1, ("vgg", "caffe"), "as if scaled to about -1..1"),
    ],
)
def test_images_that_are_not_normalised(images: np.ndarray, modes: tuple[str, ...], words: str) -> None:
    for mode in MODES:
        weights = refnet.Weights(lively_weights(), recipe=refnet.Recipe(None, None, mode=mode))
        messages = warned(weights, images)
        assert len(messages) == (mode in modes), (mode, messages)
        assert all(words in message for message in messages)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_recipe_makes_is_normalised(mode: str) -> None:
    for pixels in (np.arange(24 * 24 * 3) % 256, np.full(24 * 24 * 3, 255), np.zeros(24 * 24 * 3)):
        images = pixels.reshape(24, 24, 3).astype(np.uint8)
        assert doubt(refnet.preprocess(images, refnet.Recipe(None, None, 1.0, mode)), mode) is None


@pytest.mark.parametrize(
    "images",
    [
        2 * UNIFORM - 1,
        UNIFORM - 1,
        UNIFORM * 0.4,
        np.zeros((24, 24, 3), np.float32),
        np.ones((24, 24, 3), np.float32),
        np.zeros((0, 24, 24, 3), np.float32),
        np.full((24, 24, 3), np.nan, np.float32),
    ],
    ids=["-1 to 1", "dark", "near grey", "grey", "white", "none", "NaN"],
)
def test_images_that_may_be_normalised(images: np.ndarray) -> None:
    assert warned(lively_weights(), images) == []


@pytest.mark.parametrize(("mode", "other"), [("vgg", "caffe"), ("caffe", "vgg")])
def test_channels_in_the_other_order(mode: str, other: str) -> None:
    images = (UNIFORM * 255.999).astype(np.uint8)
    prepared = refnet.preprocess(images, refnet.Recipe(None, None, 1.0, other))
    assert "these look like {}: reverse the last axis".format("BGR" if mode == "vgg" else "RGB") in str(
        doubt(prepared, mode)
    )
    assert doubt(prepared, other) is None
    # Without dark and light pixels nobody can tell; and four channels are no colours of an image.
    assert doubt(prepared / 2, mode) is None
    assert doubt(np.concatenate([prepared, prepared[..., :1]], axis=-1), mode) is None


def test_what_is_no_image_is_not_looked_at() -> None:
    weights = refnet.random_weights(small_blocks(), 3, include_root_block=False)
    assert warned(weights, 100 * UNIFORM, include_root_block=False) == []


def saved(path: Path, recipe: refnet.Recipe | None, classes: int = 7, scope: str = "resnet_v2") -> refnet.Weights:
    weights = lively_weights(num_classes=classes, scope=scope)
    refnet.save_weights(path, refnet.Weights(weights, recipe=recipe))
    return refnet.load_weights(path)


def test_images_of_another_size_than_the_recipe_says(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.npz", refnet.Recipe(40, 32))
    engine = refnet.Engine(weights)

    def messages() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for shape in ((24, 24, 3), (2, 24, 24, 3), (40, 32, 3), (32, 40, 3)):
                engine(random_images(*shape))
        return [str(warning.message) for warning in caught]

    said = "The images are {}, but the recipe of these weights says 40 x 32."
    assert messages() == [said.format("24 x 24"), said.format("32 x 40")]
    assert messages() == []


@pytest.mark.parametrize(
    "options", [{"global_pool": False}, {"num_classes": None}, {"output_stride": 4}], ids=lambda o: next(iter(o))
)
def test_features_and_dense_logits_may_have_any_size(options: dict[str, Any], tmp_path: Path) -> None:
    assert warned(saved(tmp_path / "w.npz", refnet.Recipe(40, 32)), random_images(24, 24, 3), **options) == []


def test_a_recipe_that_nobody_gave_says_nothing(tmp_path: Path) -> None:
    for name in ("w.npz", "w.safetensors", "w.ckpt"):
        assert warned(saved(tmp_path / name, None), random_images(24, 24, 3)) == []
    assert warned(refnet.random_weights(small_blocks(), 3), random_images(24, 24, 3)) == []
    assert warned(saved(tmp_path / "a.npz", refnet.Recipe(None, None)), random_images(24, 24, 3)) == []


def test_the_released_checkpoints_are_known_by_their_classes(tmp_path: Path) -> None:
    """TF-Slim's own recipe, 299 x 299, though a checkpoint says none; and it travels on."""
    weights = saved(tmp_path / "w.ckpt", None, 1001, "resnet_v2_50")
    for _ in range(2):
        assert weights.image_size == (299, 299)
        assert warned(weights, random_images(24, 24, 3)) == [
            "The images are 24 x 24, but the recipe of these weights says 299 x 299."
        ]
        refnet.save_weights(tmp_path / "w.npz", weights)
        weights = refnet.load_weights(tmp_path / "w.npz")
    assert saved(tmp_path / "w.ckpt", None, 1000, "resnet_v2_50").image_size is None


def test_summary_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = refnet.Recipe(40, 40)
    weights = refnet.Weights(lively_weights(), recipe=recipe, labels=list("abcdefg"))
    refnet.save_weights(tmp_path / "w.npz", weights)
    assert main(["summary", str(tmp_path / "w.npz"), "--size", "24"]) == 0
    out = capsys.readouterr().out
    assert "warning: The images are 24 x 24, but the recipe of these weights says 40 x 40." in out
    assert "labels: 7" in out
    for size, count in ((24, 1), (40, 0)):
        assert main(["summary", str(tmp_path / "w.npz"), "--size", str(size), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["warnings"]) == count


def test_labels_without_the_background_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refnet.save_weights(tmp_path / "w.npz", lively_weights(num_classes=1001))
    labels = [str(i) for i in range(1000)]
    with pytest.raises(refnet.RefnetError, match=r"1000 labels, but .* 1001 classes.*background class"):
        refnet.load_weights(tmp_path / "w.npz", labels=labels)
    weights = refnet.Weights(lively_weights(num_classes=1001), labels=labels)
    with pytest.raises(refnet.RefnetError, match=r"1000 labels, but .* 1001 classes.*background class"):
        refnet.save_weights(tmp_path / "w.npz", weights)
    write_npz(tmp_path / "w.npz", weights, {"labels": labels})
    assert main(["summary", str(tmp_path / "w.npz")]) == 2
    assert "background class" in capsys.readouterr().err


def test_biases_that_are_all_zero_are_noted(tmp_path: Path) -> None:
    weights = lively_weights()
    for name, value in weights.items():
        if name.endswith(("conv1/biases", "conv3/biases", "shortcut/biases")):
            weights[name] = np.zeros_like(value)
    np.savez(tmp_path / "w.npz", **weights)
    assert any("as if the weights came from PyTorch" in note for note in refnet.load_weights(tmp_path / "w.npz").notes)
    # The caller, or the file, knows.
    refnet.save_weights(tmp_path / "w.npz", refnet.Weights(weights, options={"stride_place": "last_unit"}))
    assert refnet.load_weights(tmp_path / "w.npz").notes == []
    # Weights that were never trained, and biases that were.
    for others in (refnet.random_weights(small_blocks(), 3), lively_weights()):
        refnet.save_weights(tmp_path / "w.npz", others)
        assert refnet.load_weights(tmp_path / "w.npz").notes == []
