"""The preprocessing against TensorFlow's own operations, bit by bit, and against its docstrings."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from refnet.errors import ConfigError, InputError
from refnet.images.preprocess import (
    MAX_PIXELS,
    VGG,
    Recipe,
    _with_shorter_side,
    central_crop,
    for_size,
    preprocess,
    resize_bilinear,
)

side = st.integers(1, 40)
fractions = st.floats(0.05, 1.0)
seeds = st.integers(0, 2**32 - 1)


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def tf_recipe(tf: Any, images: np.ndarray, height: int, width: int, fraction: float) -> np.ndarray:
    """TF-Slim's preprocess_for_eval, each step the TensorFlow operation that it calls."""
    batch = tf.constant(images if images.ndim == 4 else images[np.newaxis])
    x = tf.image.convert_image_dtype(batch, tf.float32)
    x = tf.image.central_crop(x, fraction)
    x = tf.compat.v1.image.resize_bilinear(x, [height, width], align_corners=False)
    result: np.ndarray = tf.multiply(tf.subtract(x, 0.5), 2.0).numpy()
    return result if images.ndim == 4 else result[0]


@settings(deadline=None, max_examples=300)
@given(seed=seeds, n=st.integers(1, 3), c=st.integers(1, 5), h=side, w=side, height=side, width=side)
def test_resize_has_tensorflows_bits(
    tf: Any, seed: int, n: int, c: int, h: int, w: int, height: int, width: int
) -> None:
    images = np.random.default_rng(seed).standard_normal((n, h, w, c), dtype=np.float32)
    expected = tf.compat.v1.image.resize_bilinear(images, [height, width]).numpy()
    assert_same_bits(resize_bilinear(images, height, width), expected)


@pytest.mark.parametrize(
    ("size", "new_size"),
    [((437, 350), (299, 299)), ((299, 299), (299, 299)), ((100, 1500), (299, 299)), ((7, 3), (1000, 999))],
)
def test_resize_of_ordinary_sizes_has_tensorflows_bits(
    tf: Any, size: tuple[int, int], new_size: tuple[int, int]
) -> None:
    images = np.random.default_rng(1).random((1, *size, 3), dtype=np.float32)
    expected = tf.compat.v1.image.resize_bilinear(images, new_size).numpy()
    assert_same_bits(resize_bilinear(images, *new_size), expected)


def test_resize_positions_have_tensorflows_bits(tf: Any) -> None:
    # A ramp makes index and weight visible; a height of 1 costs little.
    for size in (1, 2, 3, 7, 299, 437, 4000):
        ramp = np.arange(size, dtype=np.float32).reshape(1, 1, size, 1)
        for new_size in (1, 2, 5, 97, 224, 299, 513, 10_000):
            expected = tf.compat.v1.image.resize_bilinear(ramp, [1, new_size]).numpy()
            assert_same_bits(resize_bilinear(ramp, 1, new_size), expected)


def test_resize_passes_on_infinities_nan_and_signed_zero_as_tensorflow_does(tf: Any) -> None:
    special = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, 3e38, -3e38], np.float32)
    images = np.random.default_rng(3).choice(special, (1, 9, 9, 3))
    for new_size in ((9, 9), (9, 10), (5, 5), (18, 20)):
        expected = tf.compat.v1.image.resize_bilinear(images, new_size).numpy()
        found = resize_bilinear(images, *new_size)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found)[found == 0], np.signbit(expected)[expected == 0])


def test_resize_rounds_each_stated_operation_once() -> None:
    """The docstring's formulas in exact rational arithmetic, rounded to binary32 after each operation."""

    def rounded(x: Fraction) -> Fraction:
        exponent = math.frexp(float(x))[1]
        ulp = Fraction(2) ** (exponent - 24)
        return round(x / ulp) * ulp  # round() of a Fraction goes to even

    images = np.random.default_rng(5).integers(0, 256, (1, 5, 7, 1)).astype(np.float32)
    exact = [[Fraction(float(v)) for v in row] for row in images[0, :, :, 0]]
    height, width = 11, 4

    def position(i: int, size: int, new_size: int) -> tuple[int, int, Fraction]:
        p = rounded(i * rounded(Fraction(size, new_size)))
        floor = p.numerator // p.denominator
        ceil = -(-p.numerator // p.denominator)
        return min(floor, size - 1), min(ceil, size - 1), rounded(p - floor)

    def lerp(a: Fraction, b: Fraction, weight: Fraction) -> Fraction:
        return rounded(a + rounded(rounded(b - a) * weight))

    expected = np.empty((1, height, width, 1), np.float32)
    for i in range(height):
        top, bottom, y = position(i, 5, height)
        for j in range(width):
            left, right, x = position(j, 7, width)
            upper = lerp(exact[top][left], exact[top][right], x)
            lower = lerp(exact[bottom][left], exact[bottom][right], x)
            expected[0, i, j, 0] = float(lerp(upper, lower, y))
    assert_same_bits(resize_bilinear(images, height, width), expected)


@settings(deadline=None, max_examples=200)
@given(h=st.integers(1, 700), w=st.integers(1, 700), fraction=fractions)
def test_central_crop_keeps_tensorflows_rows_and_columns(tf: Any, h: int, w: int, fraction: float) -> None:
    rows = np.broadcast_to(np.arange(h, dtype=np.int32)[:, np.newaxis, np.newaxis], (h, w, 1))
    columns = np.broadcast_to(np.arange(w, dtype=np.int32)[:, np.newaxis], (h, w, 1))
    for image in (rows, columns):
        expected = tf.image.central_crop(image, fraction).numpy()
        np.testing.assert_array_equal(central_crop(image, fraction), expected)
        np.testing.assert_array_equal(central_crop(image[np.newaxis], fraction)[0], expected)


def test_mode_tf_resizes_pixels_and_then_scales(tf: Any) -> None:
    images = pixels(3, 2, 31, 40, 3)
    resized = tf.compat.v1.image.resize_bilinear(images.astype(np.float32), [24, 24])
    expected = tf.subtract(tf.divide(resized, 127.5), 1.0).numpy()
    assert_same_bits(preprocess(images, Recipe(24, 24, 1.0, "tf")), expected)
    with pytest.raises(ConfigError, match="mode is 'mxnet'; it can be 'inception', 'vgg', 'tf', 'caffe' or 'torch'"):
        preprocess(images, Recipe(24, 24, 1.0, "mxnet"))


def test_every_pixel_value_is_scaled_as_tensorflow_does(tf: Any) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(256, 1, 1).repeat(3, axis=2)
    scaled = tf.image.convert_image_dtype(values, tf.float32)
    expected = tf.multiply(tf.subtract(scaled, 0.5), 2.0).numpy()
    found = preprocess(values, Recipe(height=None, width=None, central_fraction=1))
    assert_same_bits(found, expected)
    assert float(np.float32(1 / 255)) == float.fromhex("0x1.010102p-8")
    assert (found[0, 0, 0], found[255, 0, 0]) == (-1, 1)


@settings(deadline=None, max_examples=200)
@given(seed=seeds, n=st.integers(0, 2), h=side, w=side, height=side, width=side, fraction=fractions)
def test_the_recipe_has_tensorflows_bits(
    tf: Any, seed: int, n: int, h: int, w: int, height: int, width: int, fraction: float
) -> None:
    images = pixels(seed, *([n] if n else []), h, w, 3)  # n = 0 stands for a single image, of rank 3
    expected = tf_recipe(tf, images, height, width, fraction)
    assert_same_bits(preprocess(images, Recipe(height, width, fraction)), expected)


@pytest.mark.parametrize("shape", [(400, 500, 3), (2, 299, 299, 3), (300, 200, 3), (1, 1, 3)])
def test_the_default_recipe_is_tf_slims(tf: Any, shape: tuple[int, ...]) -> None:
    images = pixels(7, *shape)
    assert_same_bits(preprocess(images), tf_recipe(tf, images, 299, 299, 0.875))


def tf_vgg(tf: Any, image: np.ndarray, height: int, width: int, side: int) -> np.ndarray:
    """TF-Slim's vgg_preprocessing.preprocess_for_eval, each step the TensorFlow operation that it calls."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.cast(side, tf.float32) / tf.cond(shape[0] > shape[1], lambda: shape[1], lambda: shape[0])
    size = tf.cast(tf.math.rint(shape * scale), tf.int32)
    x = tf.compat.v1.image.resize_bilinear(tf.expand_dims(image, 0), size, align_corners=False)[0]
    offsets = tf.cast((size - [height, width]) / 2, tf.int32)
    x = tf.cast(tf.slice(x, [offsets[0], offsets[1], 0], [height, width, 3]), tf.float32)
    channels = [channel - mean for channel, mean in zip(tf.split(x, 3, axis=2), [123.68, 116.78, 103.94], strict=True)]
    result: np.ndarray = tf.concat(channels, 2).numpy()
    return result


@settings(deadline=None, max_examples=200)
@given(seed=seeds, n=st.integers(0, 2), h=side, w=side, resize_side=side, data=st.data())
def test_the_vgg_recipe_has_tensorflows_bits(
    tf: Any, seed: int, n: int, h: int, w: int, resize_side: int, data: st.DataObject
) -> None:
    images = pixels(seed, *([n] if n else []), h, w, 3)
    height, width = (data.draw(st.integers(1, resize_side)) for _ in range(2))
    found = preprocess(images, Recipe(height, width, 1.0, "vgg", resize_side))
    for image, row in zip(images, found, strict=True) if n else [(images, found)]:
        assert_same_bits(row, tf_vgg(tf, image, height, width, resize_side))


@settings(deadline=None, max_examples=30)
@given(seed=seeds, h=st.integers(1, 700), w=st.integers(1, 700))
@example(seed=0, h=1080, w=1920)  # cut off, and not rounded, the shorter side would be 223 for 224
@example(seed=1, h=256, w=256)
@example(seed=2, h=512, w=640)
@example(seed=3, h=90, w=60)
def test_the_vgg_recipe_of_released_weights_has_tensorflows_bits(tf: Any, seed: int, h: int, w: int) -> None:
    if max(h, w) > 20 * min(h, w):
        h = w = max(h, w)  # what TensorFlow makes of a strip is large
    image = pixels(seed, h, w, 3)
    assert_same_bits(preprocess(image, VGG), tf_vgg(tf, image, 224, 224, 256))


@settings(deadline=None, max_examples=300)
@given(h=st.integers(1, 5000), w=st.integers(1, 5000), resize_side=st.integers(1, 512))
@example(h=1080, w=1920, resize_side=224)
def test_the_shorter_side_becomes_the_one_asked_for(h: int, w: int, resize_side: int) -> None:
    """And the other side the exact proportion, to the nearest number but for float32's error."""
    assume(max(h, w) * resize_side**2 < 0.99 * min(h, w) * MAX_PIXELS)
    height, width = _with_shorter_side(h, w, resize_side)
    assert min(height, width) == (height if h <= w else width) == resize_side
    exact = Fraction(max(h, w) * resize_side, min(h, w))
    # Two roundings, of the quotient and of the product, before rint.
    assert abs(max(height, width) - exact) <= Fraction(1, 2) + exact * Fraction(2, 2**24) * (1 + Fraction(1, 2**24))


@pytest.mark.parametrize("side", [256, 235, 232])
@pytest.mark.parametrize("size", [(300, 600), (900, 451), (240, 230), (100, 70)])
def test_the_middle_is_torchvisions_within_two_pixels(size: tuple[int, int], side: int) -> None:
    """What ``Resize(side)`` and ``CenterCrop(224)`` see, by Pillow: a ramp shows where each pixel comes from."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    ramps = [x * 255 / (width - 1), y * 255 / (height - 1), 0 * x]
    image = np.stack(ramps, axis=-1).round().astype(np.uint8)
    new_height, new_width = (int(side * length / min(size)) for length in size)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    top, left = round((new_height - 224) / 2), round((new_width - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    found = preprocess(image, Recipe(224, 224, 1.0, "vgg", side)) + np.array([123.68, 116.78, 103.94], np.float32)
    for channel, length in ((0, new_width), (1, new_height)):
        # Two pixels' difference, where a ramp has 255 / (its length - 1); the ramp and Pillow's result are rounded.
        assert np.abs(found - expected)[..., channel].max() <= 2 * 255 / (length - 1) + 1.5


def test_a_middle_needs_no_size() -> None:
    image = pixels(4, 30, 45, 3)
    whole = preprocess(image, Recipe(None, None, 1.0, "vgg", 20))
    assert whole.shape == (20, 30, 3)
    assert_same_bits(preprocess(image, Recipe(11, None, 1.0, "vgg", 20)), whole[4:15])
    assert_same_bits(preprocess(image, Recipe(None, 7, 1.0, "vgg", 20)), whole[:, 11:18])


def test_a_strip_that_would_be_too_large() -> None:
    assert preprocess(pixels(5, 1, 1525, 3), VGG).shape == (224, 224, 3)
    with pytest.raises(InputError, match=r"1526 x 1 would be 390,656 x 256 with a shorter side of 256, more than"):
        preprocess(pixels(5, 1526, 1, 3), VGG)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (VGG._replace(resize_side=223), "cannot be cut out of an image with a shorter side of 223"),
        (VGG._replace(width=300), "a width of 300 cannot be cut"),
        (VGG._replace(central_fraction=0.875), "central_fraction is 0.875; with resize_side=256 it is 1"),
        (VGG._replace(resize_side=0), "resize_side is .*; it is a whole number of 1 or more"),
        (VGG._replace(resize_side=256.0), "resize_side is .*; it is a whole number of 1 or more"),
    ],
)
def test_recipes_that_do_not_fit_together(recipe: Recipe, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        preprocess(pixels(0, 300, 300, 3), recipe)


def test_another_size_sees_as_much_of_the_image() -> None:
    assert for_size(VGG, 448, 448) == Recipe(448, 448, 1.0, "vgg", 512)
    assert for_size(VGG, 299, None) == Recipe(299, 224, 1.0, "vgg", 341)
    assert for_size(VGG, None, None) == VGG
    assert for_size(Recipe(), 32, None) == Recipe(32, 299)


def test_no_size_keeps_that_of_the_crop() -> None:
    assert preprocess(pixels(0, 80, 40, 3), Recipe(None, None)).shape == (70, 36, 3)
    assert preprocess(pixels(0, 80, 40, 3), Recipe(None, 11, 1.0)).shape == (80, 11, 3)


def test_an_empty_batch_gives_an_empty_batch() -> None:
    assert preprocess(pixels(0, 0, 40, 30, 3)).shape == (0, 299, 299, 3)


def test_bits_depend_neither_on_the_layout_nor_on_the_place_in_the_batch() -> None:
    images = pixels(9, 3, 33, 47, 3)
    expected = preprocess(images)
    wide = np.zeros((3, 66, 94, 3), np.uint8)
    wide[:, ::2, ::2] = images
    read_only = images.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(images), wide[:, ::2, ::2], images[:, ::-1].copy()[:, ::-1], read_only):
        assert_same_bits(preprocess(same), expected)
    for image, row in zip(images, expected, strict=True):
        assert_same_bits(preprocess(image), row)


def test_the_input_is_left_alone() -> None:
    images = pixels(2, 20, 20, 3)
    before = images.copy()
    preprocess(images)
    preprocess(images, Recipe(20, 20, 1.0))
    np.testing.assert_array_equal(images, before)
    same_size = np.ones((1, 4, 4, 3), np.float32)
    assert not np.shares_memory(resize_bilinear(same_size, 4, 4), same_size)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, "NoneType"),
        ([[[0, 0, 0]]], "list"),
        (np.ma.masked_array(np.zeros((4, 4, 3), np.uint8)), "MaskedArray"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.array(3, np.uint8), r"\[\]"),
        (np.zeros((4, 4), np.uint8), r"\[4, 4\]"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), r"\[1, 1, 4, 4, 3\]"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((3, 8, 9), np.uint8), "looks like CHW"),
        (np.zeros((2, 3, 8, 9), np.uint8), "looks like CHW"),
        (np.zeros((0, 4, 3), np.uint8), "0 x 4"),
        (np.zeros((2, 4, 0, 3), np.uint8), "4 x 0"),
        (np.broadcast_to(np.uint8(0), (10**9, 10**9, 3)), "1,000,000,000,000,000,000 pixels"),
        (np.broadcast_to(np.uint8(0), (MAX_PIXELS + 1, 1, 3)), "100,000,001 pixels"),
    ],
)
def test_bad_images(images: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        preprocess(images)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 2.5, "299", True])
def test_bad_sizes(size: object) -> None:
    for recipe in (Recipe(height=size), Recipe(width=size)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="whole number"):
            preprocess(pixels(0, 4, 4, 3), recipe)
    with pytest.raises(ConfigError, match="whole number"):
        resize_bilinear(np.zeros((1, 4, 4, 3), np.float32), size, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [0, -0.5, 1.0001, float("nan"), float("inf"), "0.875", None, True])
def test_bad_fractions(fraction: object) -> None:
    with pytest.raises(ConfigError, match="central_fraction"):
        preprocess(pixels(0, 4, 4, 3), Recipe(central_fraction=fraction))  # type: ignore[arg-type]


def test_a_crop_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        preprocess(pixels(0, 4, 4, 3), Recipe(central_fraction=1e-20))


def test_bad_arrays_of_the_steps() -> None:
    with pytest.raises(InputError, match="float64"):
        resize_bilinear(np.zeros((1, 4, 4, 3)), 2, 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shape"):
        resize_bilinear(np.zeros((4, 4, 3), np.float32), 2, 2)
    with pytest.raises(InputError, match="empty"):
        resize_bilinear(np.zeros((1, 0, 4, 3), np.float32), 2, 2)
    with pytest.raises(InputError, match="central_crop"):
        central_crop(np.zeros((4, 4)), 0.5)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "recipe",
    [None, VGG, Recipe(30, 20, 1.0, "torch", 32, "bicubic"), Recipe(9, 7, 0.5, "tf"), Recipe(8, 8, 1.0, "caffe")],
)
def test_a_list_of_images_of_any_sizes(recipe: Recipe | None, kind: type) -> None:
    images = [pixels(i, height, width, 3) for i, (height, width) in enumerate([(40, 50), (33, 60), (70, 41), (40, 50)])]
    found = preprocess(kind(images), recipe)
    assert_same_bits(found, np.stack([preprocess(image, recipe) for image in images]))
    assert_same_bits(preprocess(kind(images[:1]), recipe), preprocess(images[0][np.newaxis], recipe))


def test_lists_that_a_recipe_does_not_make_equal() -> None:
    images = [pixels(0, 8, 9, 3), pixels(1, 8, 10, 3)]
    with pytest.raises(InputError, match=r"different shapes: \(8, 9, 3\), \(8, 10, 3\). Give it a height and a width"):
        preprocess(images, Recipe(None, None, 1.0))
    with pytest.raises(InputError, match=r"raw images have shape \[8, 9, 2\]"):
        preprocess([images[0], images[0][..., :2]])
    for others in ([], [images[0], images[1].astype(np.float32)], [images[0], images[1][0]], [images[0], None]):
        with pytest.raises(InputError, match=r"raw images are a list; .* or a list of such"):
            preprocess(others)  # type: ignore[arg-type]
    huge = [np.broadcast_to(np.uint8(0), (10_000, 10_000, 3))] * 3
    assert preprocess([*huge, images[0]], Recipe(4, 4, 1.0, "tf", None, "nearest")).shape == (4, 4, 4, 3)


def test_while_another_thread_imports_masked_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the module is there without its class."""
    monkeypatch.setitem(sys.modules, "numpy.ma", ModuleType("numpy.ma"))
    assert preprocess(np.zeros((9, 9, 3), np.uint8)).shape == (299, 299, 3)
