"""Recipes of torchvision, timm and transformers, bit by bit against their operations in Pillow and NumPy.

The libraries themselves are compared where they are installed: `tests/torchvision/test_pixels.py`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import refnet
from refnet.cli import main
from refnet.errors import ConfigError, InputError
from refnet.evidence.golden_file import read_golden
from refnet.images.preprocess import INTERPOLATIONS, Recipe, for_size, preprocess, resize_bilinear
from tests.refnet.formats import bad_configs
from tests.refnet.test_preprocess import assert_same_bits, pixels, seeds, side
from tests.support.nets import small_blocks

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PILLOW = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def transformed(
    image: np.ndarray, side: int, height: int, width: int, name: str, values: Any, down: bool = False
) -> np.ndarray:
    """torchvision's Resize(side), CenterCrop((height, width)), ToTensor() and Normalize(*values)."""
    shorter, longer = sorted(image.shape[:2])
    new = [side if length == shorter else int(side * longer / shorter) for length in image.shape[:2]]
    grey = image.shape[2] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize(
        (new[1], new[0]), getattr(Image.Resampling, name.upper())
    )
    left, top = ((a - b) // 2 if down else round((a - b) / 2) for a, b in zip(new[::-1], (width, height), strict=True))
    crop = np.array(resized.crop((left, top, left + width, top + height))).reshape(height, width, -1)
    mean, std = np.float32(values)
    result: np.ndarray = (crop.astype(np.float32) / np.float32(255) - mean) / std
    return result


@settings(deadline=None, max_examples=150)
@given(
    seed=seeds, n=st.integers(0, 2), h=side, w=side, resize_side=side, name=st.sampled_from(PILLOW),
    channels=st.sampled_from([1, 3]), down=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_middle_by_pillow(
    seed: int, n: int, h: int, w: int, resize_side: int, name: str, channels: int, down: bool, data: st.DataObject
) -> None:
    images = pixels(seed, *([n] if n else []), h, w, channels)
    height, width = (data.draw(st.integers(1, resize_side)) for _ in range(2))
    values = data.draw(
        st.sampled_from([IMAGENET, HALVES, ((0.0,) * 3, (1.0,) * 3), ((-0.1, 2, 1e-6), (3, 0.017, 4e5))])
    )
    mean, std = (tuple(part[:channels]) for part in values)
    recipe = Recipe(height, width, 1.0, "torch", resize_side, name, mean, std, "down" if down else None)
    found = preprocess(images, recipe)
    for image, row in zip(images, found, strict=True) if n else [(images, found)]:
        assert_same_bits(row, transformed(image, resize_side, height, width, name, (mean, std), down))


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (500, 375), (333, 501), (224, 224), (256, 259), (100, 70)])
@pytest.mark.parametrize(
    ("recipe", "name", "values"),
    [
        (Recipe(224, 224, 1.0, "torch", 256, "bilinear"), "bilinear", IMAGENET),
        (Recipe(224, 224, 1.0, "torch", 232, "bilinear"), "bilinear", IMAGENET),
        (Recipe(224, 224, 1.0, "torch", 235, "bicubic", *HALVES), "bicubic", HALVES),
    ],
)
def test_recipes_of_released_weights(size: tuple[int, int], recipe: Recipe, name: str, values: Any) -> None:
    image = pixels(3, *size, 3)
    assert recipe.resize_side is not None
    assert_same_bits(preprocess(image, recipe), transformed(image, recipe.resize_side, 224, 224, name, values))


def test_a_half_of_a_pixel_is_rounded_as_asked() -> None:
    """A strip of which 3 of 7 columns are cut off: one and a half on each side."""
    image = np.repeat(np.arange(7, dtype=np.uint8)[np.newaxis, :, np.newaxis], 3, axis=2)
    image = np.repeat(image, 4, axis=0)
    recipe = Recipe(4, 4, 1.0, "torch", 4, "bicubic", (0.0,) * 3, (1.0,) * 3)
    for offset, first in ((None, 2), ("even", 2), ("down", 1)):
        found = preprocess(image, recipe._replace(crop_offset=offset))
        assert_same_bits(found[0, :, 0], np.arange(first, first + 4, dtype=np.float32) / np.float32(255))
    tensorflow = recipe._replace(interpolation="tensorflow1")
    assert_same_bits(preprocess(image, tensorflow), preprocess(image, recipe._replace(crop_offset="down")))
    assert_same_bits(preprocess(image, tensorflow._replace(crop_offset="even")), preprocess(image, recipe))


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("size", [(9, 31), (60, 20)])
def test_the_whole_by_pillow(name: str, size: tuple[int, int]) -> None:
    """Whatever the aspect ratio, after a central crop."""
    image = pixels(4, 40, 32, 3)
    expected = Image.fromarray(image[5:35, 4:28]).resize(size[::-1], getattr(Image.Resampling, name.upper()))
    found = preprocess(image, Recipe(*size, 0.75, "tf", None, name))
    assert_same_bits(found, np.asarray(expected, np.float32) / np.float32(127.5) - np.float32(1))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_pillow_resizes_any_number_of_channels_each_by_itself(channels: int) -> None:
    weights = refnet.random_weights(small_blocks(), 7, channels=channels)
    weights = weights.replace(recipe=Recipe(24, 20, 1.0, "tf", 32, "bicubic"))
    image = pixels(5, 40, 50, channels)
    planes = [preprocess(image[..., i : i + 1], weights.recipe) for i in range(channels)]
    expected = refnet.forward(weights, np.concatenate(planes, axis=-1))
    np.testing.assert_array_equal(refnet.forward(weights, image), expected)


@settings(deadline=None, max_examples=100)
@given(seed=seeds, h=side, w=side, height=side, width=side)
def test_half_pixel_centers_have_tensorflows_bits(tf: Any, seed: int, h: int, w: int, height: int, width: int) -> None:
    image = pixels(seed, h, w, 3)
    expected = tf.image.resize(image, [height, width], method="bilinear").numpy()
    assert_same_bits(resize_bilinear(image[np.newaxis].astype(np.float32), height, width, True)[0], expected)
    found = preprocess(image, Recipe(height, width, 1.0, "vgg", None, "tensorflow2"))
    assert_same_bits(found, expected - np.float32([123.68, 116.78, 103.94]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_bits_depend_on_nothing_else(interpolation: str) -> None:
    images = pixels(9, 3, 33, 47, 3)
    recipe = Recipe(20, 24, 1.0, "torch", 28, interpolation)
    expected = preprocess(images, recipe)
    wide = np.zeros((3, 66, 94, 3), np.uint8)
    wide[:, ::2, ::2] = images
    for same in (np.asfortranarray(images), wide[:, ::2, ::2], images[:, ::-1].copy()[:, ::-1]):
        assert_same_bits(preprocess(same, recipe), expected)
    for image, row in zip(images, expected, strict=True):
        assert_same_bits(preprocess(image, recipe), row)
    assert preprocess(images[:0], recipe).shape == (0, 20, 24, 3)


@pytest.mark.parametrize("mode", ["inception", "tf"])
def test_grey_is_a_channel_of_colour(mode: str) -> None:
    image = pixels(6, 30, 40, 3)
    for recipe in (Recipe(21, 22, 0.9, mode), Recipe(21, 22, 1.0, mode, 24, "bilinear")):
        assert_same_bits(preprocess(image[..., 1:2], recipe), preprocess(image, recipe)[..., 1:2])


@pytest.mark.parametrize("mode", ["vgg", "caffe", "torch"])
def test_means_of_three_channels_are_not_for_grey(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"has means of 3 channels .*, but the images have 1. Take mode"):
        preprocess(pixels(6, 30, 40, 1), Recipe(20, 20, 1.0, mode))


def test_values_of_one_channel_are_not_for_colour() -> None:
    recipe = Recipe(20, 20, 1.0, "torch", mean=(0.4,), std=(0.2,))
    assert preprocess(pixels(6, 30, 40, 1), recipe).shape == (20, 20, 1)
    with pytest.raises(ConfigError, match="means of 1 channels"):
        preprocess(pixels(6, 30, 40, 3), recipe)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; it can be 'tensorflow1', .* or 'lanczos'"),
        (
            {"mode": "tf", "mean": (0.5,) * 3, "std": (0.5,) * 3},
            "mean and std belong to mode 'torch', but mode is 'tf'",
        ),
        ({"mean": (0.5,) * 3}, "only one is given"),
        ({"std": (0.5,) * 3}, "only one is given"),
        ({"mean": (0.5,) * 3, "std": (0.5,)}, "mean has 3 values, and std 1"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0, 0.5)}, "std is .*; each value is from 1e-06 to 1,000,000"),
        ({"mean": (0.5,) * 3, "std": (0.5, -1, 0.5)}, "std is .*; each value is from 1e-06 to 1,000,000"),
        ({"mean": (1e-40,) * 3, "std": (0.5,) * 3}, "mean is .*; each value is 0, or from 1e-06 to 1,000,000 in size"),
        ({"mean": (), "std": ()}, "finite numbers"),
        ({"crop_offset": "up"}, "crop_offset is 'up'; it can be 'down' or 'even'"),
    ],
)
def test_recipes_that_are_none(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        preprocess(pixels(0, 30, 30, 3), Recipe(**{"mode": "torch", **fields}))


def test_a_strip_that_would_be_too_large_for_pillow() -> None:
    with pytest.raises(InputError, match="1526 x 1 would be 390,656 x 256 with a shorter side of 256, more than"):
        preprocess(pixels(5, 1526, 1, 3), Recipe(224, 224, 1.0, "torch", 256, "bilinear"))


def test_another_size_keeps_the_new_fields() -> None:
    recipe = Recipe(224, 224, 1.0, "torch", 256, "bicubic", *HALVES, "down")
    assert for_size(recipe, 448, 448) == recipe._replace(height=448, width=448, resize_side=512)


NEW = Recipe(20, 20, 1.0, "torch", 24, "bicubic", (0.5, 0.25, 0.125), (0.1, 0.2, 0.3), "down")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.ckpt"])
def test_every_field_travels(name: str, tmp_path: Path) -> None:
    weights = refnet.random_weights(small_blocks(), 7)
    refnet.save_weights(tmp_path / name, weights.replace(recipe=NEW))
    assert refnet.load_weights(tmp_path / name).recipe == NEW


def test_a_golden_keeps_every_field(tmp_path: Path) -> None:
    weights = refnet.random_weights(small_blocks(), 7).replace(recipe=NEW)
    golden = refnet.golden.record(tmp_path / "g.safetensors", weights, pixels(1, 30, 40, 3))
    assert golden.recipe == NEW
    assert not refnet.golden.check(tmp_path / "g.safetensors", weights, pixels(1, 30, 40, 3)).differing


def test_files_of_older_recipes_stay_as_they_are(tmp_path: Path) -> None:
    """An older version refuses a recipe with a field that it does not know."""
    weights = refnet.random_weights(small_blocks(), 7).replace(recipe=Recipe(20, 20, 1.0, "torch", 24))
    refnet.save_weights(tmp_path / "w.safetensors", weights)
    content = (tmp_path / "w.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    stored = json.loads(header["__metadata__"]["__refnet__"])["recipe"]
    assert stored == {"height": 20, "width": 20, "central_fraction": 1.0, "mode": "torch", "resize_side": 24}


def test_floats_are_held_to_the_range_of_the_recipe() -> None:
    weights = refnet.random_weights(small_blocks(), 7)
    narrow = weights.replace(recipe=Recipe(None, None, 1.0, "torch", None, "bicubic", (0.5,) * 3, (0.05,) * 3))
    images = np.linspace(-10, 10, 24 * 24 * 3, dtype=np.float32).reshape(24, 24, 3)
    refnet.forward(narrow, images)
    with pytest.warns(refnet.RefnetWarning, match=r"normalised \(-1 to 1\), but these are -10 to 10"):
        refnet.forward(weights, images)
    with pytest.warns(refnet.RefnetWarning, match=r"normalised \(-10 to 10\), but these are -30 to 30"):
        refnet.forward(narrow, images * 3)


GREY_RECIPE = Recipe(24, 24, 1.0, "tf", 28, "bilinear")


@pytest.fixture(scope="module")
def grey_network() -> refnet.Weights:
    return refnet.random_weights(small_blocks(), 7, channels=1).replace(recipe=GREY_RECIPE)


def saved(image: np.ndarray | Image.Image, path: Path) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def test_a_grey_file_for_a_grey_network(grey_network: refnet.Weights, tmp_path: Path) -> None:
    grey = pixels(8, 30, 40)
    image = refnet.load_image(saved(grey, tmp_path / "grey.png"), channels=1)
    np.testing.assert_array_equal(image, grey[..., np.newaxis])
    expected = refnet.forward(grey_network, transformed_tf(grey))
    np.testing.assert_array_equal(refnet.forward(grey_network, image), expected)
    np.testing.assert_array_equal(refnet.forward(grey_network, image[np.newaxis])[0], expected)


def transformed_tf(grey: np.ndarray) -> np.ndarray:
    resized = np.asarray(Image.fromarray(grey).resize((37, 28), Image.Resampling.BILINEAR), np.float32)[2:26, 6:30]
    result: np.ndarray = resized[..., np.newaxis] / np.float32(127.5) - np.float32(1)
    return result


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16", "CMYK"])
def test_any_file_as_grey(mode: str, tmp_path: Path) -> None:
    rgb = pixels(9, 12, 14, 3)
    image = Image.fromarray(rgb).convert("L").convert("I;16") if mode == "I;16" else Image.fromarray(rgb).convert(mode)
    path = saved(image, tmp_path / ("image.jpg" if mode == "CMYK" else "image.png"))
    as_colour, found = refnet.load_image(path), refnet.load_image(path, channels=1)
    assert found.shape == (12, 14, 1)
    red, green, blue = np.moveaxis(as_colour.astype(np.int64), -1, 0)
    np.testing.assert_array_equal(found[..., 0], (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16)


@pytest.mark.parametrize("channels", [0, 2, 4, 1.0, True, "L", None])
def test_other_numbers_of_channels(channels: Any, tmp_path: Path) -> None:
    path = saved(pixels(1, 5, 5, 3), tmp_path / "a.png")
    with pytest.raises(ConfigError, match="channels is"):
        refnet.load_image(path, channels=channels)


def test_images_of_the_other_kind(grey_network: refnet.Weights) -> None:
    with pytest.raises(InputError, match=r"have 3 channels; the network takes 1. Read files as grey, by .*channels=1"):
        refnet.forward(grey_network, pixels(1, 30, 40, 3))
    colour = refnet.random_weights(small_blocks(), 7).replace(recipe=GREY_RECIPE)
    with pytest.raises(InputError, match=r"have 1 channels; the network takes 3. To take grey .* numpy.repeat"):
        refnet.forward(colour, pixels(1, 30, 40, 1))


def test_predict_reads_files_as_the_network_takes_them(
    grey_network: refnet.Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refnet.save_weights(tmp_path / "grey.npz", grey_network)
    grey = pixels(8, 30, 40)
    path = saved(grey, tmp_path / "grey.png")
    arguments = ["predict", str(path), "--weights", str(tmp_path / "grey.npz"), "--top", "7", "--json"]
    assert main(arguments) == 0
    found = json.load(io.StringIO(capsys.readouterr().out))["images"][0]["predictions"]
    _, end_points = refnet.forward(grey_network, transformed_tf(grey), end_points=["predictions"])
    assert {entry["class"]: np.float32(entry["probability"]) for entry in found} == dict(
        enumerate(end_points["predictions"])
    )
    golden = str(tmp_path / "g.safetensors")
    inputs = ["--weights", str(tmp_path / "grey.npz"), "--image", str(path)]
    assert main(["golden", "record", golden, *inputs]) == 0
    assert main(["golden", "check", golden, *inputs]) == 0


RECORDED = {
    "by name": (["torchvision"], refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")),
    "by fields": (
        ["resize_side=40", "height=32", "width=30", "central_fraction=1"],
        refnet.Recipe(32, 30, 1.0, resize_side=40),
    ),
    "by both": (["vgg", "height=50"], refnet.Recipe(50, 224, 1.0, "vgg", 256)),
}  # fmt: skip


@pytest.mark.parametrize("how", RECORDED)
def test_golden_record_takes_a_recipe(how: str, tmp_path: Path) -> None:
    """It is kept in the golden, so that `golden check` needs none."""
    texts, recipe = RECORDED[how]
    image, path = pixels(9, 60, 70, 3), str(tmp_path / "w.npz")
    weights = refnet.random_weights(small_blocks(), 7)
    refnet.save_weights(path, weights)
    golden = str(tmp_path / "g.safetensors")
    inputs = ["--weights", path, "--image", str(saved(image, tmp_path / "a.png"))]
    chosen = [argument for text in texts for argument in ("--recipe", text)]
    assert main(["golden", "record", golden, *inputs, *chosen]) == 0
    assert read_golden(golden).recipe == recipe
    assert main(["golden", "check", golden, *inputs]) == 0
    assert main(["golden", "record", golden, *inputs, "--force"]) == 0
    assert read_golden(golden).recipe == refnet.Recipe()


def test_goldens_of_networks_by_name_take_a_recipe(tmp_path: Path) -> None:
    golden = str(tmp_path / "g.safetensors")
    inputs = ["--weights", "resnet_v2_18", "--image", str(saved(pixels(9, 60, 70, 3), tmp_path / "a.png"))]
    assert main(["golden", "record", golden, *inputs, "--hashes-only", "--recipe", "keras", "--size", "33"]) == 0
    assert read_golden(golden).recipe == refnet.Recipe(33, 33, 1.0, "tf")


def test_a_golden_does_not_ask_what_recipe_the_weights_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside them stands one that refnet does not have."""
    directory = bad_configs.BAD["config.json"]["timm: a crop with a border"].write(tmp_path)
    golden = str(tmp_path / "g.safetensors")
    inputs = ["--weights", str(directory), "--image", str(saved(pixels(9, 60, 70, 3), tmp_path / "a.png"))]
    assert main(["golden", "record", golden, *inputs]) == 4
    assert "(recipe=, --recipe)" in capsys.readouterr().err
    assert main(["golden", "record", golden, *inputs, "--recipe", "timm", "--size", "40"]) == 0
    assert main(["golden", "check", golden, *inputs]) == 0


def test_predict_refuses_a_network_that_takes_what_no_file_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refnet.save_weights(tmp_path / "w.npz", refnet.random_weights(small_blocks(), 7, channels=4))
    path = saved(pixels(1, 30, 40, 3), tmp_path / "a.png")
    assert main(["predict", str(path), "--weights", str(tmp_path / "w.npz")]) == 2
    assert "takes 4 channels, and image files have 1 or 3" in capsys.readouterr().err
