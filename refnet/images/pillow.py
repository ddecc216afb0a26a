"""Resizing by Pillow, from uint8 to uint8.

Pillow's filters sum integer products of pixels and weights, which it rounds from binary64. So the bits are those of
Pillow, on every machine, and refnet's contract says nothing about them. What becomes smaller is smoothed, except by
"nearest".
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt

from refnet_kernels.system.forks import once

#: The names of the filters, as timm and torchvision have them, and Pillow's.
FILTERS = {
    "nearest": "NEAREST",
    "box": "BOX",
    "bilinear": "BILINEAR",
    "hamming": "HAMMING",
    "bicubic": "BICUBIC",
    "lanczos": "LANCZOS",
}


@once
def _pillow() -> ModuleType:
    from PIL import Image

    return Image


def resize(image: npt.NDArray[np.uint8], height: int, width: int, interpolation: str) -> npt.NDArray[np.uint8]:
    """Resize an image by ``PIL.Image.Image.resize``.

    Parameters
    ----------
    image : numpy.ndarray of uint8
        [H, W, C].
    height, width : int
    interpolation : str
        One of `FILTERS`.

    Returns
    -------
    numpy.ndarray of uint8
        [height, width, C].
    """
    pillow = _pillow()
    resample = pillow.Resampling[FILTERS[interpolation]]
    if image.shape[-1] == 3:
        return np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize((width, height), resample))
    # Each channel by itself: Pillow would take a fourth one for transparency. The bits are the same.
    channels = [pillow.fromarray(np.ascontiguousarray(image[..., i])) for i in range(image.shape[-1])]
    return np.stack([np.asarray(channel.resize((width, height), resample)) for channel in channels], axis=-1)


def bytes_taken(size: tuple[int, int], new_size: tuple[int, int], channels: int) -> int:
    """The bytes that a resize takes, at most: contiguous and in Pillow's form, resized along its rows, and resized.

    Parameters
    ----------
    size, new_size : tuple of int
        Height and width.
    channels : int

    Returns
    -------
    int
    """
    pixel = max(channels, 4)  # Pillow has four bytes for three channels
    (height, width), (new_height, new_width) = size, new_size
    return pixel * (2 * height * width + height * new_width + 3 * new_height * new_width)
