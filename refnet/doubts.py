"""What is allowed and looks wrong all the same: each is said once, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from refnet_kernels.contract import FloatArray

#: Normalised pixels beyond this are worth a warning.
LARGEST_PIXEL = 2.0
#: The recipes that scale pixels to -1..1.
_TO_MINUS_ONE = ("inception", "tf")
_CONVOLUTION_BIASES = re.compile(r"(^|/)(conv3|shortcut|conv1)/biases$")


def pixels(images: FloatArray, mode: str = "inception") -> str | None:
    """Whether float images, which are taken as normalised, look as if they were not.

    Parameters
    ----------
    images : float array
    mode : str
        Of the weights' recipe: what they should have been normalised by.

    Returns
    -------
    str or None
        The sentence, if they do.
    """
    if mode not in _TO_MINUS_ONE or not images.size:
        return None
    low, high = float(images.min()), float(images.max())
    taken = "Float images are taken as normalised (about -1 to 1), but these"
    if max(-low, high) > LARGEST_PIXEL:
        raw = ", and look like raw pixels: pass those as uint8" if low >= 0 and high <= 255 else ""
        return f"{taken} hold larger values ({low:.3g} to {high:.3g}){raw}."
    # An image of one colour, or a dark one, may well have no negative values.
    if low >= 0 and 0.5 < high <= 1 and low < high:
        return f"{taken} are {low:.3g} to {high:.3g}, as if scaled to 0..1: pass 2 * x - 1, or uint8."
    return None


def size(images: tuple[int, ...], recipe: tuple[int | None, int | None] | None) -> str | None:
    """Whether images are of another height and width than the weights' recipe makes them; the sentence, if they are."""
    if recipe is None or all(asked in (None, found) for asked, found in zip(recipe, images, strict=True)):
        return None
    asked = " x ".join(str(side or "any") for side in recipe)
    return f"The images are {images[0]} x {images[1]}, but the recipe of these weights says {asked}."


def biases(variables: Mapping[str, np.ndarray]) -> str | None:
    """Whether trained weights have nothing but zeros for their convolutions' biases; the sentence, if they have.

    The shapes are the same for every framework, and only this tells of one whose convolutions have no biases.
    """
    found = [value for name, value in variables.items() if _CONVOLUTION_BIASES.search(name)]
    trained = any(value.any() for name, value in variables.items() if name.endswith("/moving_mean"))
    if not found or not trained or any(value.any() for value in found):
        return None
    return (
        "all the convolutions' biases are zero, as if the weights came from PyTorch or MXNet: there, blocks stride in "
        'their first unit and pool1 pads both sides (stride_place="first_unit", pool_mode="torch")'
    )
