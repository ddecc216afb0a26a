"""From raw pixels to the network's input: TF-Slim's Inception recipe, which its ResNetV2 weights were trained with, its
VGG recipe, which its ResNet v1 weights were trained with, Keras' three modes, and torchvision's and timm's transforms.

Every operation is elementwise, in IEEE-754 binary32, rounded to nearest even, with no fused multiply-add and no sum
over a varying number of terms. No value of the recipe is subnormal, so flushing to zero would not change a bit. The
docstrings state the operations in their order; an implementation that follows them gives the same bits. The one
exception is a resize by Pillow, from uint8 to uint8, which is whatever Pillow makes it (`refnet.images.pillow`).

Sources: TF-Slim's ``inception_preprocessing.preprocess_for_eval`` and ``vgg_preprocessing.preprocess_for_eval``
(``tensorflow/models``, ``research/slim/preprocessing``); torchvision's ``transforms``; timm's
``data/transforms_factory.py``; the ``image_processing_backends.py`` of Hugging Face's transformers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from refnet.checks import as_int, check_bool, check_choice, check_fraction, check_positive, listed, numbers_of, shown
from refnet.errors import ConfigError, InputError
from refnet.images import pillow
from refnet.resources import check_room, for_images
from refnet_kernels.system.float_mode import contract_mode

Float32 = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

#: For each output index along a side: the lower index, the upper index, and the weight of the upper one.
Interpolation = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float32]

#: How values can be scaled: TF-Slim's two ways, and Keras' three.
MODES = ("inception", "vgg", "tf", "caffe", "torch")

#: How images can be resized: as TensorFlow 1 and 2 do it, or by Pillow's filter of that name.
INTERPOLATIONS = ("tensorflow1", "tensorflow2", *pillow.FILTERS)

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
    interpolation : str
        How images are resized. "tensorflow1", "tensorflow2": bilinearly, between neighbouring pixels, counted from
        their corners or from their centres. "bilinear", "bicubic", "nearest", "box", "hamming", "lanczos": by Pillow,
        which smooths what it shrinks (except "nearest"), as torchvision, timm and transformers do.
    mean, std : tuple of float or None
        In mode "torch": one value per channel, of pixels in 0..1. None: ImageNet's.
    crop_offset : {"down", "even"} or None
        How half a pixel is rounded where the middle is cut out. "down": as TF-Slim and transformers do. "even": to the
        even number, as torchvision and timm do. None: "even" after a resize by Pillow, else "down".

    Examples
    --------
    torchvision's transforms of its IMAGENET1K_V1 weights, and timm's of its ``resnetv2_50``:

    >>> import refnet
    >>> torchvision = refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")
    >>> timm = refnet.Recipe(224, 224, 1.0, "torch", 235, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> refnet.preprocess(refnet.load_image("digit3.png"), timm).shape
    (224, 224, 3)
    """

    height: int | None = 299
    width: int | None = 299
    central_fraction: float = 0.875
    mode: str = "inception"
    resize_side: int | None = None
    interpolation: str = "tensorflow1"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_offset: str | None = None


#: TF-Slim's, for its ResNet v1.
VGG = Recipe(224, 224, 1.0, "vgg", 256)


@for_images
def preprocess(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]], recipe: Recipe | None = None
) -> Float32:
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
    - "torch": ``(x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)``, or the recipe's ``mean`` and ``std`` in
      place of these numbers.

    With the interpolation "tensorflow2" step 3 is ``tf.image.resize(..., "bilinear")`` without antialiasing (see
    `resize_bilinear`).

    With one of Pillow's interpolations step 3 is ``PIL.Image.Image.resize``, and comes first, from uint8 to uint8. A
    ``resize_side`` makes the longer side ``int(resize_side * longer / shorter)``, in binary64, and
    ``round((new side - height or width) / 2)`` values are cut off before those that are kept; a tie goes to the even
    number. So mode "torch" has the bits of torchvision's ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize`` on
    Pillow's images.

    Parameters
    ----------
    images : numpy.ndarray of uint8, or a list of them
        RGB pixels, [H, W, 3] or [N, H, W, 3]; or grey ones, [H, W, 1] or [N, H, W, 1]. In a list, [H, W, 3] or
        [H, W, 1] each, of any sizes that the recipe makes equal.
    recipe : Recipe, optional
        By default TF-Slim's: the central 87.5 %, resized to 299 x 299 whatever the aspect ratio.

    Returns
    -------
    numpy.ndarray of float32
        A new array of the same rank, for a list [N, H, W, C], with values in [-1, 1]; in mode "torch" up to 2.64 from
        0, in modes "vgg" and "caffe" up to 151.1. It has as many channels as the images.

    Raises
    ------
    InputError
        The images are not uint8 arrays of such a shape, are empty or too large, or would be too large after the
        resize of the shorter side; or the recipe gives those of a list different sizes.
    ConfigError
        A value of the recipe is out of range, or they do not fit together or to the number of channels.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> refnet.preprocess(image).shape
    (299, 299, 3)
    >>> recipe = refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")
    >>> refnet.preprocess([image, image], recipe).shape
    (2, 224, 224, 3)
    """
    return preprocessing(images, recipe)[1]()


@contract_mode()
def preprocessing(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    recipe: Recipe | None = None,
    channels: int | None = None,
) -> tuple[tuple[int, ...], Callable[[], Float32]]:
    """The shape of what `preprocess` gives, after all checks, and the work itself.

    Parameters
    ----------
    images : numpy.ndarray of uint8, or a list of them
    recipe : Recipe, optional
    channels : int, optional
        How many channels the images have; None: 3 or 1.

    Returns
    -------
    shape : tuple of int
    work : callable
    """
    recipe = check_recipe(Recipe() if recipe is None else recipe)
    if is_raw_list(images):
        return _one_by_one(images, recipe, channels)
    array = _checked_images(images, (3, 1) if channels is None else (channels,))
    count = array.shape[-1]
    _check_channels(recipe, count)
    cropped = central_crop(np.asarray(array), recipe.central_fraction)
    batch = cropped if cropped.ndim == 4 else cropped[np.newaxis]
    resize = _by_pillow if recipe.interpolation in pillow.FILTERS else _by_definition
    height, width, one, resized = resize(batch.shape, recipe)
    shape = len(batch), height, width, count
    each = 4 * count * width * height
    check_room(each, f"Preprocessing of {len(batch)} images", len(batch), lambda number: one + number * each)

    @contract_mode()
    def work() -> Float32:
        result = np.empty(shape, np.float32)
        for image, out in zip(batch, result, strict=True):  # one by one: only one is float32 at its full size
            _centre(resized(image), recipe, out)
        return result if array.ndim == 4 else result[0]

    return shape[4 - array.ndim :], work


def is_raw_list(images: Any) -> TypeGuard[Sequence[npt.NDArray[np.uint8]]]:
    """Whether this is a list of raw images [H, W, C], which can have different sizes.

    Parameters
    ----------
    images : Any

    Returns
    -------
    bool
    """
    return (
        isinstance(images, list | tuple)
        and len(images) > 0
        and all(
            isinstance(image, np.ndarray) and not is_masked(image) and image.dtype == np.uint8 and image.ndim == 3
            for image in images
        )
    )


def _one_by_one(
    images: Sequence[npt.NDArray[np.uint8]], recipe: Recipe, channels: int | None
) -> tuple[tuple[int, ...], Callable[[], Float32]]:
    """`preprocessing` of each image of a list."""
    parts = [preprocessing(image, recipe, channels) for image in images]
    sizes = list(dict.fromkeys(shape for shape, _ in parts))
    if len(sizes) > 1:
        raise InputError(
            f"With this recipe the raw images have different shapes: {listed(sizes)}. Give it a height and a width, "
            "or pass the images one by one.",
            found=sizes,
        )
    check_room(4 * math.prod(sizes[0]), f"Preprocessing of {len(parts)} images", len(parts))

    def work() -> Float32:
        result = np.empty((len(parts), *sizes[0]), np.float32)
        for (_, preprocessed), out in zip(parts, result, strict=True):
            out[...] = preprocessed()
        return result

    return (len(parts), *sizes[0]), work


#: The height and width of the result, the bytes that are taken for one image until it is resized, and how that is done.
Resize = tuple[int, int, int, Callable[[npt.NDArray[np.uint8]], Float32]]


def _by_definition(shape: tuple[int, ...], recipe: Recipe) -> Resize:
    """As TensorFlow resizes, in binary32; only the part that is kept."""
    _, height, width, channels = shape
    (new_height, new_width), (kept_rows, kept_columns) = resized_size(height, width, recipe)
    half = recipe.interpolation == "tensorflow2"
    rows, y = _part(_interpolation(height, new_height, half), kept_rows)
    columns, x = _part(_interpolation(width, new_width, half), kept_columns)

    def resized(image: npt.NDArray[np.uint8]) -> Float32:
        values = image[rows, columns].astype(np.float32)
        _scale(values, recipe)
        whole: Float32 = _interpolate(values[np.newaxis], y, x)[0]
        return whole

    # As float32, between the interpolation of its rows and its columns, and interpolated.
    pixel, row = 4 * channels, 4 * channels * x[0].size
    read = (rows.stop - rows.start) * (columns.stop - columns.start)
    nbytes = pixel * read + 2 * row * (rows.stop - rows.start) + 3 * row * y[0].size
    return y[0].size, x[0].size, nbytes, resized


def _by_pillow(shape: tuple[int, ...], recipe: Recipe) -> Resize:
    """As Pillow resizes, from uint8 to uint8."""
    _, height, width, channels = shape
    size, (rows, columns) = resized_size(height, width, recipe)

    def resized(image: npt.NDArray[np.uint8]) -> Float32:
        values: Float32 = pillow.resize(image, *size, recipe.interpolation)[rows, columns].astype(np.float32)
        _scale(values, recipe)
        return values

    kept_height, kept_width = rows.stop - rows.start, columns.stop - columns.start
    nbytes = pillow.bytes_taken((height, width), size, channels) + 8 * channels * kept_height * kept_width
    return kept_height, kept_width, nbytes, resized


def resized_size(height: int, width: int, recipe: Recipe) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """The size to which an image is resized, and the rows and columns of it that are kept."""
    if recipe.resize_side is None:
        size = recipe.height or height, recipe.width or width
    else:
        size = _with_shorter_side(height, width, recipe.resize_side, recipe.interpolation)
    offset = recipe.crop_offset or ("even" if recipe.interpolation in pillow.FILTERS else "down")
    kept = []
    for new, wanted in zip(size, (recipe.height, recipe.width), strict=True):
        cut = new - (wanted or new)
        start = cut // 2 if offset == "down" else round(cut / 2)
        kept.append(slice(start, start + new - cut))
    return size, (kept[0], kept[1])


def _with_shorter_side(height: int, width: int, side: int, interpolation: str = "tensorflow1") -> tuple[int, int]:
    """The size after the shorter side is resized to ``side``."""
    if interpolation in pillow.FILTERS:
        longer = int(side * max(height, width) / min(height, width))
        new_height, new_width = (longer, side) if height > width else (side, longer)
    else:
        scale = np.float32(side) / np.float32(min(height, width))
        new_height, new_width = (int(np.rint(np.float32(size) * scale)) for size in (height, width))
    if new_height * new_width > MAX_PIXELS:
        raise InputError(
            f"An image of {height} x {width} would be {new_height:,} x {new_width:,} with a shorter side of {side}, "
            f"more than {MAX_PIXELS:,} pixels: cut it first."
        )
    return new_height, new_width


def _part(interpolation: Interpolation, kept: slice) -> tuple[slice, Interpolation]:
    """The part of a side that its kept resized values read, and the interpolation of those values within it."""
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


def _scale(values: Float32, recipe: Recipe) -> None:
    """What mode "inception" does before the resize, where that is TensorFlow's."""
    if recipe.mode == "inception":
        np.multiply(values, np.float32(1 / 255), out=values)


def _centre(image: Float32, recipe: Recipe, out: Float32) -> None:
    """The last step of `preprocess`."""
    if recipe.mode == "inception":
        np.subtract(image, np.float32(0.5), out=out)
        np.multiply(out, np.float32(2), out=out)
    elif recipe.mode == "tf":
        np.divide(image, np.float32(127.5), out=out)
        np.subtract(out, np.float32(1), out=out)
    elif recipe.mode == "vgg":
        np.subtract(image, VGG_MEAN, out=out)
    elif recipe.mode == "caffe":
        np.subtract(image[..., ::-1], CAFFE_MEAN, out=out)
    else:
        np.divide(image, np.float32(255), out=out)
        np.subtract(out, _TORCH_MEAN if recipe.mean is None else np.array(recipe.mean, np.float32), out=out)
        np.divide(out, _TORCH_DEVIATION if recipe.std is None else np.array(recipe.std, np.float32), out=out)


def _check_channels(recipe: Recipe, channels: int) -> None:
    """Refuse a recipe whose values per channel are not those of so many channels."""
    per_channel = 3 if recipe.mode in ("vgg", "caffe", "torch") else channels
    per_channel = per_channel if recipe.mean is None else len(recipe.mean)
    if per_channel != channels:
        raise ConfigError(
            f"The recipe has means of {per_channel} channels (mode {recipe.mode!r}), but the images have {channels}. "
            f'Take mode "tf" or "inception", or mode "torch" with mean= and std= of {channels} values each.',
            expected=per_channel,
            found=channels,
        )


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
def resize_bilinear(images: Float32, height: int, width: int, half_pixel_centers: bool = False) -> Float32:
    """Resize as ``tf.compat.v1.image.resize_bilinear`` does, bit for bit.

    By default that is TensorFlow 1's sampling: ``align_corners=False``, no antialiasing. For output
    index i of a side of ``size`` pixels, each operation rounded to binary32::

        position = float32(i) * (float32(size) / float32(new_size))
        lower    = min(floor(position), size - 1)
        upper    = min(ceil(position), size - 1)
        lerp     = position - floor(position)

    and for an output pixel, with t/b the lower/upper row and l/r the lower/upper column::

        top    = tl + (tr - tl) * x_lerp
        bottom = bl + (br - bl) * x_lerp
        out    = top + (bottom - top) * y_lerp

    With ``half_pixel_centers=True``, as ``tf.image.resize`` of TensorFlow 2 has it, the first two are::

        position = (float32(i) + 0.5) * (float32(size) / float32(new_size)) - 0.5
        lower    = max(floor(position), 0)

    Where neither side changes, the values are copied.

    Parameters
    ----------
    images : numpy.ndarray of float32
        [N, H, W, C], H and W at least 1.
    height, width : int
        The new size, at least 1.
    half_pixel_centers : bool

    Returns
    -------
    numpy.ndarray of float32
        [N, height, width, C], a new array.

    Raises
    ------
    InputError
        The array is not float32, not of rank 4, or has no pixels.
    ConfigError
        A size is not a whole number of 1 or more, or ``half_pixel_centers`` not True or False.
    """
    check_bool(half_pixel_centers=half_pixel_centers)
    height, width = _checked_size("height", height), _checked_size("width", width)
    if images.dtype != np.float32 or images.ndim != 4:
        raise InputError(
            f"resize_bilinear takes float32 [N, H, W, C]; the images are {images.dtype} of shape {images.shape}."
        )
    if 0 in images.shape[1:3]:
        raise InputError(f"Images of {images.shape[1]} x {images.shape[2]} pixels cannot be resized: they are empty.")
    y, x = (
        _interpolation(*sizes, half_pixel_centers) for sizes in zip(images.shape[1:3], (height, width), strict=True)
    )
    return _interpolate(images, y, x)


def _interpolate(images: Float32, y: Interpolation, x: Interpolation) -> Float32:
    """`resize_bilinear`, given the interpolation along both sides."""
    (y_lower, y_upper, y_lerp), (x_lower, x_upper, x_lerp) = y, x
    if images.shape[1:3] == (y_lerp.size, x_lerp.size) and not (y_lerp.any() or x_lerp.any()):
        return np.array(images, np.float32, order="C")
    # Along the rows first, then between rows: top and bottom of neighbouring output rows are shared.
    rows = _lerp(images[:, :, x_lower], images[:, :, x_upper], x_lerp[:, np.newaxis])
    return _lerp(rows[:, y_lower], rows[:, y_upper], y_lerp[:, np.newaxis, np.newaxis])


def _interpolation(size: int, new_size: int, half_pixel_centers: bool) -> Interpolation:
    scale = np.float32(size) / np.float32(new_size)
    position = np.arange(new_size).astype(np.float32)
    if half_pixel_centers:
        position = (position + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        position *= scale
    floor = np.floor(position)
    lower = np.clip(floor.astype(np.intp), 0, size - 1)
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
    # While another thread imports the module, it has no such class yet, and nobody such an array.
    kind = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return kind is not None and isinstance(images, kind)


def _checked_images(images: Any, channels: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The images, if they are uint8 [H, W, C] or [N, H, W, C], with pixels and not too many; else an InputError."""
    if not isinstance(images, np.ndarray) or is_masked(images):
        raise InputError(
            f"The raw images are a {type(images).__name__}; pass a plain NumPy array, by numpy.asarray, or a list of "
            "such."
        )
    shape = images.shape
    if images.dtype != np.uint8:
        raise InputError(
            f"The raw images are {images.dtype}; they are uint8 (0 to 255), and float images count as preprocessed.",
            expected="uint8",
            found=str(images.dtype),
        )
    if images.ndim not in (3, 4) or shape[-1] not in channels:
        looks_like_chw = images.ndim in (3, 4) and shape[-3] in channels
        hint = " It looks like CHW: move the channels last." if looks_like_chw else ""
        expected = " or ".join(f"[H, W, {count}] or [N, H, W, {count}]" for count in channels)
        raise InputError(
            f"The raw images have shape {list(shape)}; it is {expected}.{hint}", expected=expected, found=shape
        )
    height, width = shape[-3:-1]
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(
            f"An image of {height} x {width} has {height * width:,} pixels; it can have 1 to {MAX_PIXELS:,}."
        )
    return images


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
    check_choice("interpolation", recipe.interpolation, INTERPOLATIONS)
    if recipe.crop_offset is not None:
        check_choice("crop_offset", recipe.crop_offset, ("down", "even"))
    mean, std = _checked_values(recipe)
    checked = Recipe(
        height=None if recipe.height is None else _checked_size("height", recipe.height),
        width=None if recipe.width is None else _checked_size("width", recipe.width),
        central_fraction=_checked_fraction(recipe.central_fraction),
        mode=recipe.mode,
        resize_side=None if recipe.resize_side is None else _checked_size("resize_side", recipe.resize_side),
        interpolation=recipe.interpolation,
        mean=mean,
        std=std,
        crop_offset=recipe.crop_offset,
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


#: The least and the largest value per channel: no pixel becomes subnormal or infinite by them.
_LEAST, _MOST = 1e-6, 1e6


def _checked_values(recipe: Recipe) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The mean and the standard deviation of each channel."""
    if recipe.mean is None and recipe.std is None:
        return None, None
    if recipe.mode != "torch":
        raise ConfigError(f"mean and std belong to mode 'torch', but mode is {recipe.mode!r}.", found=recipe.mode)
    if recipe.mean is None or recipe.std is None:
        raise ConfigError("Of mean and std only one is given: give both, or neither for ImageNet's.")
    mean, std = numbers_of("mean", recipe.mean), numbers_of("std", recipe.std)
    if len(mean) != len(std) or not mean:
        raise ConfigError(
            f"mean has {len(mean)} values, and std {len(std)}; both have one value per channel.",
            expected=len(mean),
            found=len(std),
        )
    if not all(value == 0 or _LEAST <= abs(value) <= _MOST for value in mean):
        raise ConfigError(
            f"mean is {shown(mean)}; each value is 0, or from {_LEAST} to {_MOST:,.0f} in size.", found=mean
        )
    if not all(_LEAST <= value <= _MOST for value in std):
        raise ConfigError(f"std is {shown(std)}; each value is from {_LEAST} to {_MOST:,.0f}.", found=std)
    return mean, std


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as files and reports hold it.

    Fields that older versions do not know are there only where they differ from the default, so that what those
    versions can do, they can read.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    dict of str to Any
    """
    first = Recipe._fields.index("interpolation")
    defaults = Recipe._field_defaults
    return {
        name: value
        for number, (name, value) in enumerate(recipe._asdict().items())
        if number < first or value != defaults[name]
    }


def _checked_size(name: str, size: Any) -> int:
    size = as_int(size)
    check_positive(**{name: size})
    if size > MAX_SIDE:
        raise ConfigError(f"{name} is {shown(size)}; it can be 1 to {MAX_SIDE:,}.", expected=MAX_SIDE, found=size)
    return int(size)


def _checked_fraction(fraction: Any) -> float:
    check_fraction(central_fraction=fraction)
    return float(fraction)
