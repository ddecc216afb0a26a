"""Images on their way into a program: a step copies them into a frame of zeros, and finds their extremes.

A convolution reads each row of a window from a frame as one contiguous stretch. Callers need the range of the pixels,
and this step reads every pixel anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.cpu.team import Launch, aligned_zeros
from refnet_kernels.jit import function_address
from refnet_kernels.target import WIDTH_BYTES


class Row(NamedTuple):
    """The fields of the step's row: addresses, then integers; ``row``, ``left`` and ``frame_row`` count numbers."""

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


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))

#: Rows of the frames per item.
ITEM_ROWS = 16


class Entry(NamedTuple):
    """The step, and the extremes that it finds.

    Attributes
    ----------
    launch : Launch
    operand : int
        Index of the operand that is the address of the C-contiguous images; it is set before each run.
    extremes : array [2, items * columns of a tile]
        The least and the largest pixel per item and column; the extremes of these are those of the images. NaN if a
        pixel is NaN.
    """

    launch: Launch
    operand: int
    extremes: np.ndarray


def entry(shape: Sequence[int], frame: Sequence[int], top: int, left: int, address: int, dtype: np.dtype[Any]) -> Entry:
    """The step that copies images into frames.

    Parameters
    ----------
    shape : sequence of int
        Shape of the images: [N, H, W, C].
    frame : sequence of int
        Height and width of a frame.
    top, left : int
        Row and column of the frame where an image begins.
    address : int
        Address of the frames, one per image.
    dtype : numpy.dtype
        Dtype of the images and the frames.
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
