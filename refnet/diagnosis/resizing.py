"""The ways in which ports resize images, in binary64; Pillow's by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.images import pillow
from refnet.images.preprocess import Recipe, central_crop, resized_size

Float64 = npt.NDArray[np.floating[Any]]

#: For each index along a side after the resize: indices before it [new, taps], and their weights [new, taps].
Taps = tuple[npt.NDArray[np.intp], Float64]


class Resize(NamedTuple):
    """A way to resize.

    Attributes
    ----------
    value : str
        Its name among the values of the mistake; several ways can share one.
    resize : callable
        ``resize(image, height, width)``: uint8 [H, W, C] to float64, from 0 to 255.
    noise : float
        By how much the values of implementations of it differ, of 255.
    """

    value: str
    resize: Callable[[np.ndarray, int, int], Float64]
    noise: float = 0.0

    def resized(self, image: np.ndarray, recipe: Recipe) -> Float64:
        """The pixels of an image after the crop and the resize of a recipe."""
        cropped = central_crop(image, recipe.central_fraction)
        (height, width), (rows, columns) = resized_size(cropped.shape[0], cropped.shape[1], recipe)
        return self.resize(cropped, height, width)[rows, columns]


def _two_taps(position: Float64, size: int) -> Taps:
    floor = np.floor(position)
    lower = np.clip(floor.astype(np.intp), 0, size - 1)
    upper = np.clip(np.ceil(position).astype(np.intp), 0, size - 1)
    weight = position - floor
    return np.stack([lower, upper], 1), np.stack([1 - weight, weight], 1)


def _from_corners(size: int, new: int) -> Taps:
    return _two_taps(np.arange(new) * (size / new), size)


def _from_centres(size: int, new: int) -> Taps:
    return _two_taps((np.arange(new) + 0.5) * (size / new) - 0.5, size)


def _corner_to_corner(size: int, new: int) -> Taps:
    return _two_taps(np.arange(new) * ((size - 1) / max(new - 1, 1)), size)


def _nearest(size: int, new: int, offset: float) -> Taps:
    index = np.floor((np.arange(new) + offset) * (size / new)).astype(np.intp)
    return np.clip(index, 0, size - 1)[:, None], np.ones((new, 1))


def _cubic(distance: Float64, a: float) -> Float64:
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _four_taps(size: int, new: int, a: float, offset: float = 0.5) -> Taps:
    """Bicubic, between pixel centres, or with an offset of 0 between corners.

    With a = -0.5 what is outside has no weight, else the border is repeated.
    """
    position = (np.arange(new) + offset) * (size / new) - offset
    index = np.floor(position).astype(np.intp)[:, None] + np.arange(-1, 3)
    weights = _cubic(position[:, None] - index, a)
    if a == -0.5:
        weights = np.where((index >= 0) & (index < size), weights, 0.0)
        weights /= weights.sum(1, keepdims=True)
    return np.clip(index, 0, size - 1), weights


def _triangle(distance: Float64) -> Float64:
    weight: Float64 = np.maximum(1 - np.abs(distance), 0.0)
    return weight


def _smoothed(size: int, new: int, kernel: Callable[[Float64], Float64], support: float) -> Taps:
    """With a kernel as wide as what an output pixel covers."""
    scale = size / new
    wide = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum(np.floor(centre - support * wide + 0.5), 0).astype(np.intp)
    last = np.minimum(np.floor(centre + support * wide + 0.5), size).astype(np.intp)
    index = first[:, None] + np.arange(int((last - first).max()))
    weights = np.where(index < last[:, None], kernel((index + 0.5 - centre[:, None]) / wide), 0.0)
    return np.clip(index, 0, size - 1), weights / weights.sum(1, keepdims=True)


def _by(taps: Callable[[int, int], Taps]) -> Callable[[np.ndarray, int, int], Float64]:
    """The resize by the taps of both sides."""

    def resize(image: np.ndarray, height: int, width: int) -> Float64:
        values = image.astype(np.float64)
        for axis, new in ((0, height), (1, width)):
            index, weights = taps(values.shape[axis], new)
            shape = [1, 1, 1]
            shape[axis] = new
            total = np.zeros((*values.shape[:axis], new, *values.shape[axis + 1 :]))
            for tap in range(index.shape[1]):
                total += values.take(index[:, tap], axis) * weights[:, tap].reshape(shape)
            values = total
        return values

    return resize


def _by_pillow(filter_name: str) -> Callable[[np.ndarray, int, int], Float64]:
    def resize(image: np.ndarray, height: int, width: int) -> Float64:
        return pillow.resize(image, height, width, filter_name).astype(np.float64)

    return resize


def _then_rounded(resize: Callable[[np.ndarray, int, int], Float64]) -> Callable[[np.ndarray, int, int], Float64]:
    return lambda image, height, width: np.clip(np.rint(resize(image, height, width)), 0, 255)


_TRIANGLE = partial(_smoothed, kernel=_triangle, support=1.0)
_CUBIC = partial(_smoothed, kernel=partial(_cubic, a=-0.5), support=2.0)

#: The ways to resize, by name. TensorFlow's table of cubic weights has 1,024 entries.
RESIZES = {
    "corners": Resize("bilinear from corners", _by(_from_corners)),
    "centres": Resize("half-pixel bilinear", _by(_from_centres)),
    "centres, rounded": Resize("half-pixel bilinear", _then_rounded(_by(_from_centres)), 0.5),
    "smoothed": Resize("antialiased bilinear", _by(_TRIANGLE), 1e-3),
    "pillow bilinear": Resize("antialiased bilinear", _by_pillow("bilinear")),
    "cubic -0.5": Resize("bicubic", _by(partial(_four_taps, a=-0.5)), 0.1),
    "cubic -0.75": Resize("bicubic", _by(partial(_four_taps, a=-0.75)), 1e-3),
    "cubic from corners": Resize("bicubic", _by(partial(_four_taps, a=-0.75, offset=0.0)), 0.1),
    "smoothed cubic": Resize("antialiased bicubic", _by(_CUBIC), 1e-3),
    "pillow bicubic": Resize("antialiased bicubic", _by_pillow("bicubic")),
    "nearest corner": Resize("nearest", _by(partial(_nearest, offset=0.0))),
    "nearest centre": Resize("nearest", _by(partial(_nearest, offset=0.5))),
    "pillow nearest": Resize("nearest", _by_pillow("nearest")),
    "corner to corner": Resize("align-corners", _by(_corner_to_corner)),
}

#: The way of each of a recipe's interpolations.
OF_RECIPES = {
    "tensorflow1": "corners",
    "tensorflow2": "centres",
    "bilinear": "pillow bilinear",
    "bicubic": "pillow bicubic",
    "nearest": "pillow nearest",
}
