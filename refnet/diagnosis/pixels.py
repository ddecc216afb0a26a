"""From an image to the network's input, as it is meant and as ports do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.diagnosis.resizing import RESIZES
from refnet.images.preprocess import CAFFE_MEAN, VGG_MEAN, Recipe, preprocess
from refnet_kernels.system.float_mode import contract_mode

Float64 = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]

IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Scaling:
    """``(x * factor - mean) / std`` of pixels from 0 to 255, each per channel.

    Attributes
    ----------
    factor : float
    mean, std : tuple of float
    reverses : bool
        Whether the channels come out in reverse order; mean and std are in the order in which they come out.
    """

    factor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    reverses: bool = False

    def __call__(self, pixels: Float64) -> Float64:
        """Scale."""
        values = pixels[..., ::-1] if self.reverses else pixels
        scaled: Float64 = (values * self.factor - np.array(self.mean)) / np.array(self.std)
        return scaled

    def inverse(self, values: Float64) -> Float64:
        """The pixels that are scaled to some values."""
        pixels: Float64 = (values * np.array(self.std) + np.array(self.mean)) / self.factor
        return pixels[..., ::-1] if self.reverses else pixels


def scaling_of(recipe: Recipe) -> Scaling:
    """The scaling of a recipe."""
    if recipe.mode == "torch":
        mean = tuple(IMAGENET_MEAN) if recipe.mean is None else recipe.mean
        return Scaling(1 / 255, mean, tuple(IMAGENET_STD) if recipe.std is None else (recipe.std or (1.0,)))
    return SCALINGS[{"tf": "inception"}.get(recipe.mode, recipe.mode)]


#: By the names of recipes' modes, and two that are none.
SCALINGS = {
    "inception": Scaling(1 / 127.5, (1.0,)),
    "vgg": Scaling(1.0, tuple(map(float, VGG_MEAN))),
    "caffe": Scaling(1.0, tuple(map(float, CAFFE_MEAN)), reverses=True),
    "torch": Scaling(1 / 255, tuple(IMAGENET_MEAN), tuple(IMAGENET_STD)),
    "raw": Scaling(),
    "unit": Scaling(1 / 255),
}


def _as_it_is(values: Float64) -> Float64:
    return values


@dataclass(frozen=True)
class Pipeline:
    """The way from an image to the network's input.

    Attributes
    ----------
    image : array
        Raw uint8 pixels, or the network's input as floats; [N, H, W, C].
    recipe : Recipe
    resize : str, optional
        One of `RESIZES`, in place of the recipe's interpolation.
    before : callable
        What is done to the pixels, from 0 to 255, that are resized and cropped.
    scaling : callable, optional
        In place of the recipe's.
    after : callable
        What is done to the scaled values.
    """

    image: np.ndarray
    recipe: Recipe
    resize: str | None = None
    before: Callable[[Float64], Float64] = _as_it_is
    scaling: Callable[[Float64], Float64] | None = None
    after: Callable[[Float64], Float64] = _as_it_is

    @property
    def is_raw(self) -> bool:
        """Whether the image is raw pixels."""
        return self.image.dtype == np.uint8

    def then(self, change: Callable[[Float64], Float64], *, raw: bool = False) -> Pipeline:
        """The pipeline with one more step, on the pixels or on the scaled values."""
        if raw:
            return replace(self, before=_chain(self.before, change))
        return replace(self, after=_chain(self.after, change))

    @contract_mode()
    def input(self) -> Float32:
        """The network's input."""
        if self.resize is None and self.scaling is None and self.before is _as_it_is:
            as_meant = preprocess(self.image, self.recipe) if self.is_raw else self.image
            return np.ascontiguousarray(self.after(as_meant.astype(np.float64)), np.float32)
        scaling = self.scaling or scaling_of(self.recipe)
        return np.ascontiguousarray(self.after(scaling(self.before(self.pixels()))), np.float32)

    def pixels(self) -> Float64:
        """The pixels from 0 to 255, resized and cropped."""
        own = scaling_of(self.recipe)
        if not self.is_raw:
            return own.inverse(self.image.astype(np.float64))
        if self.resize is None:
            return own.inverse(preprocess(self.image, self.recipe).astype(np.float64))
        return np.stack([RESIZES[self.resize].resized(image, self.recipe) for image in self.image])


def _chain(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return second if first is _as_it_is else lambda values: second(first(values))
