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


class Row(NamedTuple):
    """What the step's row holds: addresses, then integers; rows of images and frames are counted in numbers."""

    images: int
    frame: int
    extremes: int
    height: int
    row: int
    top: int
    left: int
    frame_height: int
    frame_row: int
    frame_rows: int


#: Where each of them lies in the row.
AT = Row(*range(len(Row._fields)))

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
    row = Row(
        images=0, frame=address, extremes=extremes.ctypes.data, height=height, row=width * channels,
        top=top, left=left * channels, frame_height=frame[0], frame_row=frame[1] * channels, frame_rows=rows,
    )  # fmt: skip
    kernel = function_address("refnet_kernels.cpu.entry_kernel", "images_kernel", dtype.name)
    return Entry(Launch(kernel, items, row, WIDTH_BYTES, (extremes,)), AT.images, extremes)
