"""What is allowed but looks wrong: one sentence each, for a warning that is given once."""

from __future__ import annotations

import numpy as np

from refnet.images.preprocess import CAFFE_MEAN, VGG_MEAN, Recipe
from refnet_kernels.contract import FloatArray

#: The range of values that each mode's recipe gives.
_RANGES = {
    "inception": (-1.0, 1.0),
    "tf": (-1.0, 1.0),
    "torch": (-2.12, 2.65),
    "caffe": (-123.7, 151.1),
    "vgg": (-123.7, 151.1),
}

#: What the modes whose values are not scaled subtract from each channel.
_MEANS = {"caffe": CAFFE_MEAN, "vgg": VGG_MEAN}


def value_range(recipe: Recipe) -> tuple[float, float]:
    """The smallest and the largest value that a recipe gives.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    tuple of float
    """
    if recipe.mean is None or recipe.std is None:
        return _RANGES[recipe.mode]
    ends = [(pixel - mean) / std for pixel in (0, 1) for mean, std in zip(recipe.mean, recipe.std, strict=True)]
    return min(ends), max(ends)


def pixels(
    images: FloatArray, low: float, high: float, mode: str = "inception", expected: tuple[float, float] | None = None
) -> str | None:
    """Whether float images, which count as normalised, look as if they were not.

    Parameters
    ----------
    images : float array
    low, high : float
        The smallest and the largest pixel.
    mode : str
        The mode of the weights' recipe, by which they should have been normalised.
    expected : tuple of float, optional
        The range of values that the recipe gives; None: the mode's own.

    Returns
    -------
    str or None
        A sentence, if they do.
    """
    lowest, highest = _RANGES[mode] if expected is None else expected
    wrong = _wrong_range(lowest, highest, low, high)
    if wrong is not None:
        span, found = f"{lowest:.3g} to {highest:.3g}", f"{low:.3g} to {high:.3g}"
        return f"Float images are taken as normalised ({span}), but these are {found}{wrong}."
    if mode in _MEANS and _is_reversed(images, _MEANS[mode]):
        order, other = ("BGR", "RGB") if mode == "caffe" else ("RGB", "BGR")
        return f"Float images are taken as {order}, less the mean; these look like {other}: reverse the last axis."
    return None


def _wrong_range(lowest: float, highest: float, low: float, high: float) -> str | None:
    """The end of a sentence about pixels out of range, or None if they are in range."""
    if low >= 0 and max(highest, 2) < high <= 255:
        return ", as raw pixels are: pass those as uint8"
    if low < 2 * lowest or high > 2 * highest:
        return ""
    # An image of one colour, or a dark one, may well have no negative values.
    if low >= 0 and 0.5 < high <= 1 and low < high:
        return ", as if scaled to 0..1: normalise them as the recipe does, or pass uint8"
    if highest > 100 and 0.5 < max(-low, high) <= 2.65 and low < high:
        return ", as if scaled to about -1..1: normalise them as the recipe does, or pass uint8"
    return None


def _is_reversed(images: FloatArray, mean: FloatArray) -> bool:
    """Whether pixels less their mean are out of range in this order of channels, and in range in the reverse order."""
    if images.shape[-1] != len(mean):
        return False
    low, high = (
        np.array([extreme(images[..., channel]) for channel in range(len(mean))]) for extreme in (np.min, np.max)
    )
    slack = 0.01  # Keras' means and TF-Slim's differ by less

    def fit(mean: FloatArray) -> bool:
        return bool((low >= -mean - slack).all() and (high <= 255 - mean + slack).all())

    return fit(mean[::-1]) and not fit(mean)


def size(images: tuple[int, ...], recipe: tuple[int | None, int | None] | None) -> str | None:
    """A sentence if the height or width of images is not what the weights' recipe makes it, else None."""
    if recipe is None or all(asked in (None, found) for asked, found in zip(recipe, images, strict=True)):
        return None
    asked = " x ".join(str(side or "any") for side in recipe)
    return f"The images are {images[0]} x {images[1]}, but the recipe of these weights says {asked}."
