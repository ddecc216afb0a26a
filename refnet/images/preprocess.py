"""From raw pixels to the network's input: TF-Slim's Inception recipe, which its ResNetV2 weights were trained with, its
VGG recipe, which its ResNet v1 weights were trained with, and Keras' three modes.

Every operation is elementwise, in IEEE-754 binary32, rounded to nearest even, with no fused multiply-add and no sum
over a varying number of terms. No value of the recipe is subnormal, so flushing to zero would not change a bit. The
docstrings state the operations in their order; an implementation that follows them gives the same bits.

Sources: TF-Slim's ``inception_preprocessing.preprocess_for_eval`` and ``vgg_preprocessing.preprocess_for_eval``
(``tensorflow/models``, ``research/slim/preprocessing``).
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from refnet.checks import as_int, check_choice, check_fraction, check_positive, shown
from refnet.errors import ConfigError, InputError
from refnet.resources import check_room, for_images
from refnet_kernels.system.float_mode import contract_mode

Float32 = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

#: For each output index along a side: the lower index, the upper index, and the weight of the upper one.
Interpolation = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float32]

#: How values can be scaled: TF-Slim's two ways, and Keras' three.
MODES = ("inception", "vgg", "tf", "caffe", "torch")

#: An image with more pixels than this is refused, before anything of its size is allocated.
MAX_PIXELS = 100_000_000
#: The largest size in a recipe; a file can hold any number. A square of it has as many pixels as an image can have.
MAX_SIDE = math.isqrt(MAX_PIXELS)


class Recipe(NamedTuple):
    """How raw uint8 pixels become the network's input.

    Attributes
    ----------
    height, width : int or None
        Size of the result; None keeps the size of what is resized.
    central_fraction : float
        The fraction of each side that the central crop keeps, in (0, 1]; with a ``resize_side`` it is 1.
    mode : {"inception", "vgg", "tf", "caffe", "torch"}
        How values are scaled, see `preprocess`: by TF-Slim's recipe, or Keras' mode, of that name.
    resize_side : int or None
        None: the central crop is resized to ``height`` and ``width``, whatever the aspect ratio. A number: the shorter
        side is resized to it and the longer one in proportion, and ``height`` and ``width`` are cut out of the middle;
        neither may be larger.
    """

    height: int | None = 299
    width: int | None = 299
    central_fraction: float = 0.875
    mode: str = "inception"
    resize_side: int | None = None


#: TF-Slim's, for its ResNet v1.
VGG = Recipe(224, 224, 1.0, "vgg", 256)


@for_images
def preprocess(images: npt.NDArray[np.uint8], recipe: Recipe | None = None) -> Float32:
    """Scale, crop, resize and centre raw pixels, as TF-Slim does in evaluation.

    The arithmetic, operation by operation:

    1. ``central_crop`` (a copy of values, so it may come before or after the next step);
    2. ``x = float32(pixel) * s`` with ``s = float32(1 / 255) = 0x1.010102p-8``, one rounded product
       (``tf.image.convert_image_dtype``);
    3. ``resize_bilinear``;
    4. ``(x - 0.5) * 2``, two rounded operations.

    With a ``resize_side`` the other crop comes last, and step 3 is TF-Slim's ``_aspect_preserving_resize``, in binary32
    too: ``scale = float32(resize_side) / float32(shorter side)``; each side becomes ``rint(float32(side) * scale)``, a
    tie going to the even number; ``resize_bilinear`` to that size; and ``(new side - height or width) // 2`` values are
    cut off before those that are kept.

    In mode "vgg" step 2 is ``x = float32(pixel)``, and step 4 is ``x - (123.68, 116.78, 103.94)``, RGB, each constant
    rounded to binary32.

    In Keras' modes step 2 is ``x = float32(pixel)``, and step 4 is what ``preprocess_input`` of Keras Applications does
    to an image that its caller has resized, each operation rounded, each constant rounded to binary32:

    - "tf": ``x / 127.5 - 1``;
    - "caffe": the channels in reverse order, BGR, and ``x - (103.939, 116.779, 123.68)``;
    - "torch": ``(x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)``.

    Parameters
    ----------
    images : numpy.ndarray of uint8
        RGB pixels, [H, W, 3] or [N, H, W, 3].
    recipe : Recipe, optional
        By default TF-Slim's: the central 87.5 %, resized to 299 x 299 whatever the aspect ratio.

    Returns
    -------
    numpy.ndarray of float32
        A new array of the same rank, with values in [-1, 1]; in mode "torch" up to 2.64 from 0, in modes "vgg" and
        "caffe" up to 151.1.

    Raises
    ------
    InputError
        The images are not a uint8 array of such a shape, are empty or too large, or would be too large after the
        resize of the shorter side.
    ConfigError
        A size or the fraction of the recipe is out of range, or they do not fit together.
    """
    return preprocessing(images, recipe)[1]()


@contract_mode()
def preprocessing(
    images: npt.NDArray[np.uint8], recipe: Recipe | None = None
) -> tuple[tuple[int, ...], Callable[[], Float32]]:
    """The shape of what `preprocess` gives, after all checks, and the work itself."""
    recipe = check_recipe(Recipe() if recipe is None else recipe)
    _check_images(images)
    cropped = central_crop(np.asarray(images), recipe.central_fraction)
    batch, y, x = _sampling(cropped if cropped.ndim == 4 else cropped[np.newaxis], recipe)
    count, height, width = batch.shape[:3]
    shape = count, y[0].size, x[0].size, 3
    # Of one image at a time: as float32, between the interpolation of its rows and its columns, and interpolated.
    row = 12 * x[0].size
    one, each = 12 * height * width + 2 * row * height + 3 * row * y[0].size, row * y[0].size
    check_room(each, f"Preprocessing of {count} images", count, lambda number: one + number * each)

    @contract_mode()
    def work() -> Float32:
        result = np.empty(shape, np.float32)
        for image, out in zip(batch, result, strict=True):  # one by one: only one is float32 at its full size
            values = image.astype(np.float32)
            if recipe.mode == "inception":
                np.multiply(values, np.float32(1 / 255), out=values)
            _centre(_interpolate(values[np.newaxis], y, x)[0], recipe.mode, out)
        return result if images.ndim == 4 else result[0]

    return shape[4 - images.ndim :], work


def _sampling(batch: npt.NDArray[T], recipe: Recipe) -> tuple[npt.NDArray[T], Interpolation, Interpolation]:
    """The pixels that are read, and how they are interpolated along the height and along the width."""
    height, width = batch.shape[1:3]
    if recipe.resize_side is None:
        y, x = _interpolation(height, recipe.height or height), _interpolation(width, recipe.width or width)
        return batch, y, x
    new_height, new_width = _with_shorter_side(height, width, recipe.resize_side)
    rows, y = _middle(_interpolation(height, new_height), recipe.height or new_height)
    columns, x = _middle(_interpolation(width, new_width), recipe.width or new_width)
    return batch[:, rows, columns], y, x


def _with_shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """The size after the shorter side is resized to ``side``."""
    scale = np.float32(side) / np.float32(min(height, width))
    new_height, new_width = (int(np.rint(np.float32(size) * scale)) for size in (height, width))
    if new_height * new_width > MAX_PIXELS:
        raise InputError(
            f"An image of {height} x {width} would be {new_height:,} x {new_width:,} with a shorter side of {side}, "
            f"more than {MAX_PIXELS:,} pixels: cut it first."
        )
    return new_height, new_width


def _middle(interpolation: Interpolation, size: int) -> tuple[slice, Interpolation]:
    """The part of a side that its middle resized values read, and the interpolation of those values within it."""
    start = (interpolation[0].size - size) // 2
    kept = slice(start, start + size)
    lower, upper, weight = interpolation
    first, last = int(lower[kept][0]), int(upper[kept][-1])
    return slice(first, last + 1), (lower[kept] - first, upper[kept] - first, weight[kept])


def for_size(recipe: Recipe, height: int | None, width: int | None) -> Recipe:
    """The recipe for images of another size; None leaves a side as it is.

    A ``resize_side`` stays in proportion to the larger side, so that the same part of the image is seen.
    """
    height, width = height or recipe.height, width or recipe.width
    side = recipe.resize_side
    if side is not None:
        before, after = (max(size or side, other or side) for size, other in (recipe[:2], (height, width)))
        side = side * after // before
    return recipe._replace(height=height, width=width, resize_side=side)


#: The mean of each colour, in the network's order: BGR for "caffe".
with contract_mode():
    VGG_MEAN = np.array([123.68, 116.78, 103.94], np.float32)
    CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
    _TORCH_MEAN, _TORCH_DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def _centre(image: Float32, mode: str, out: Float32) -> None:
    """The last step of `preprocess`."""
    if mode == "inception":
        np.subtract(image, np.float32(0.5), out=out)
        np.multiply(out, np.float32(2), out=out)
    elif mode == "tf":
        np.divide(image, np.float32(127.5), out=out)
        np.subtract(out, np.float32(1), out=out)
    elif mode == "vgg":
        np.subtract(image, VGG_MEAN, out=out)
    elif mode == "caffe":
        np.subtract(image[..., ::-1], CAFFE_MEAN, out=out)
    else:
        np.divide(image, np.float32(255), out=out)
        np.subtract(out, _TORCH_MEAN, out=out)
        np.divide(out, _TORCH_DEVIATION, out=out)


@contract_mode()
def central_crop(image: npt.NDArray[T], central_fraction: float) -> npt.NDArray[T]:
    """Keep the central part of each side, as ``tf.image.central_crop``.

    In binary64: ``start = int((size - size * central_fraction) / 2)`` values are cut off at each end of a side.

    Parameters
    ----------
    image : numpy.ndarray
        [H, W, C] or [N, H, W, C].
    central_fraction : float
        In (0, 1].

    Returns
    -------
    numpy.ndarray
        A view of ``image``.

    Raises
    ------
    ConfigError
        The fraction is out of range, or so small that nothing would be left.
    InputError
        The array is not of rank 3 or 4.
    """
    central_fraction = _checked_fraction(central_fraction)
    if image.ndim not in (3, 4):
        raise InputError(f"central_crop takes [H, W, C] or [N, H, W, C]; the image has shape {image.shape}.")
    sides = []
    for size in image.shape[-3:-1]:
        start = int((float(size) - float(size) * central_fraction) / 2)
        if size and size == 2 * start:
            raise ConfigError(f"central_fraction {central_fraction!r} leaves nothing of a side of {size} pixels.")
        sides.append(slice(start, size - start))
    return image[..., sides[0], sides[1], :]


@for_images
@contract_mode()
def resize_bilinear(images: Float32, height: int, width: int) -> Float32:
    """Resize as ``tf.compat.v1.image.resize_bilinear`` does by default, bit for bit.

    That is TensorFlow 1's sampling: ``align_corners=False``, ``half_pixel_centers=False``, no antialiasing. For output
    index i of a side of ``size`` pixels, each operation rounded to binary32::

        position = float32(i) * (float32(size) / float32(new_size))
        lower    = min(floor(position), size - 1)
        upper    = min(ceil(position), size - 1)
        lerp     = position - floor(position)

    and for an output pixel, with t/b the lower/upper row and l/r the lower/upper column::

        top    = tl + (tr - tl) * x_lerp
        bottom = bl + (br - bl) * x_lerp
        out    = top + (bottom - top) * y_lerp

    Where neither side changes, the values are copied.

    Parameters
    ----------
    images : numpy.ndarray of float32
        [N, H, W, C], H and W at least 1.
    height, width : int
        The new size, at least 1.

    Returns
    -------
    numpy.ndarray of float32
        [N, height, width, C], a new array.

    Raises
    ------
    InputError
        The array is not float32, not of rank 4, or has no pixels.
    ConfigError
        A size is not a whole number of 1 or more.
    """
    height, width = _checked_size("height", height), _checked_size("width", width)
    if images.dtype != np.float32 or images.ndim != 4:
        raise InputError(
            f"resize_bilinear takes float32 [N, H, W, C]; the images are {images.dtype} of shape {images.shape}."
        )
    if 0 in images.shape[1:3]:
        raise InputError(f"Images of {images.shape[1]} x {images.shape[2]} pixels cannot be resized: they are empty.")
    return _interpolate(images, _interpolation(images.shape[1], height), _interpolation(images.shape[2], width))


def _interpolate(images: Float32, y: Interpolation, x: Interpolation) -> Float32:
    """`resize_bilinear`, given the interpolation along both sides."""
    (y_lower, y_upper, y_lerp), (x_lower, x_upper, x_lerp) = y, x
    if images.shape[1:3] == (y_lerp.size, x_lerp.size) and not (y_lerp.any() or x_lerp.any()):
        return np.array(images, np.float32, order="C")
    # Along the rows first, then between rows: top and bottom of neighbouring output rows are shared.
    rows = _lerp(images[:, :, x_lower], images[:, :, x_upper], x_lerp[:, np.newaxis])
    return _lerp(rows[:, y_lower], rows[:, y_upper], y_lerp[:, np.newaxis, np.newaxis])


def _interpolation(size: int, new_size: int) -> Interpolation:
    scale = np.float32(size) / np.float32(new_size)
    position = np.arange(new_size).astype(np.float32) * scale
    floor = np.floor(position)
    lower = np.minimum(floor.astype(np.intp), size - 1)
    upper = np.minimum(np.ceil(position).astype(np.intp), size - 1)
    return lower, upper, position - floor


def _lerp(lower: Float32, upper: Float32, weight: Float32) -> Float32:
    """Return ``lower + (upper - lower) * weight``, overwriting ``upper``."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN propagate, as in TF
        np.subtract(upper, lower, out=upper)
        np.multiply(upper, weight, out=upper)
        return np.add(lower, upper, out=upper)


def is_masked(images: Any) -> bool:
    """Whether it is a masked array. `numpy.ma` is not imported for this, as that takes longer than importing refnet."""
    ma = sys.modules.get("numpy.ma")
    return ma is not None and isinstance(images, ma.MaskedArray)


def _check_images(images: Any) -> None:
    """Raise an InputError unless ``images`` are uint8 [H, W, 3] or [N, H, W, 3], with pixels and not too many."""
    if not isinstance(images, np.ndarray) or is_masked(images):
        raise InputError(f"The raw images are a {type(images).__name__}; pass a plain NumPy array, by numpy.asarray.")
    shape = images.shape
    if images.dtype != np.uint8:
        raise InputError(
            f"The raw images are {images.dtype}; they are uint8 (0 to 255), and float images count as preprocessed.",
            expected="uint8",
            found=str(images.dtype),
        )
    if images.ndim not in (3, 4) or shape[-1] != 3:
        looks_like_chw = images.ndim in (3, 4) and shape[-3] == 3
        hint = " It looks like CHW: move the channels last." if looks_like_chw else ""
        raise InputError(
            f"The raw images have shape {list(shape)}; it is [H, W, 3] or [N, H, W, 3].{hint}",
            expected="[H, W, 3] or [N, H, W, 3]",
            found=shape,
        )
    height, width = shape[-3:-1]
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(
            f"An image of {height} x {width} has {height * width:,} pixels; it can have 1 to {MAX_PIXELS:,}."
        )


def check_recipe(recipe: object) -> Recipe:
    """The recipe with plain numbers.

    Raises
    ------
    ConfigError
        It is not a recipe, or has values that a recipe cannot have.
    """
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"recipe is {shown(recipe)}; it is a refnet.Recipe.", found=recipe)
    check_choice("mode", recipe.mode, MODES)
    checked = Recipe(
        height=None if recipe.height is None else _checked_size("height", recipe.height),
        width=None if recipe.width is None else _checked_size("width", recipe.width),
        central_fraction=_checked_fraction(recipe.central_fraction),
        mode=recipe.mode,
        resize_side=None if recipe.resize_side is None else _checked_size("resize_side", recipe.resize_side),
    )
    side = checked.resize_side
    if side is None:
        return checked
    if side < max(checked.height or side, checked.width or side):
        raise ConfigError(
            f"A height of {checked.height} and a width of {checked.width} cannot be cut out of an image with a shorter "
            f"side of {side}: make resize_side at least as large.",
            found=side,
        )
    if checked.central_fraction != 1:
        raise ConfigError(
            f"central_fraction is {checked.central_fraction}; with resize_side={side} it is 1, as "
            "the crop is of height and width.",
            found=checked.central_fraction,
        )
    return checked


def _checked_size(name: str, size: Any) -> int:
    size = as_int(size)
    check_positive(**{name: size})
    if size > MAX_SIDE:
        raise ConfigError(
            f"{name} is {reprlib.repr(size)}; it can be 1 to {MAX_SIDE:,}.", expected=MAX_SIDE, found=size
        )
    return int(size)


def _checked_fraction(fraction: Any) -> float:
    check_fraction(central_fraction=fraction)
    return float(fraction)
