"""Images on their way into a program: a step copies them into a frame of zeros, and finds their extremes.

A convolution reads rows of its windows as one stretch from a frame. Its callers want to know how large the pixels are,
and this is when every one of them is in hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.cpu.team import Launch, aligned_zeros
from refnet_kernels.jit import function_address
from refnet_kernels.target import WIDTH_BYTES

# What a step's row holds: addresses, then integers; rows are counted in numbers.
IMAGES, FRAME, EXTREMES = range(3)
HEIGHT, ROW, TOP, LEFT, FRAME_HEIGHT, FRAME_ROW, FRAME_ROWS = range(3, 10)

#: Rows of the frame, of an item.
ITEM_ROWS = 16


class Entry(NamedTuple):
    """The step, and what it leaves of the images.

    Attributes
    ----------
    launch : Launch
    operand : int
        Which of its operands is the address of the images, C-contiguous, to be set before each run.
    extremes : array [2, items * columns of a tile]
        The least and the largest pixels: the extremes of all are those of these. NaN where a pixel is NaN.
    """

    launch: Launch
    operand: int
    extremes: np.ndarray


def entry(shape: Sequence[int], frame: Sequence[int], top: int, left: int, address: int, dtype: np.dtype[Any]) -> Entry:
    """The step that copies images into frames.

    Parameters
    ----------
    shape : sequence of int
        Of the images: [N, H, W, C].
    frame : sequence of int
        Height and width of a frame.
    top, left : int
        Where an image lies in its frame.
    address : int
        Of the frames, one for each image.
    dtype : numpy.dtype
        Of the images and the frames.
    """
    batch, height, width, channels = shape
    rows = batch * frame[0]
    items = -(-rows // ITEM_ROWS)
    extremes = aligned_zeros(items * 2 * WIDTH_BYTES // dtype.itemsize, dtype).reshape(2, -1)
    row = [0, address, extremes.ctypes.data, height, width * channels, top, left * channels]
    row += [frame[0], frame[1] * channels, rows]
    kernel = function_address("refnet_kernels.cpu.entry_kernel", "images_kernel", dtype.name)
    return Entry(Launch(kernel, items, row, WIDTH_BYTES, (extremes,)), IMAGES, extremes)
