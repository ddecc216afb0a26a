"""The compiled part of the images' entry."""

from __future__ import annotations

import numpy as np

from refnet_kernels.cpu.entry import AT, ITEM_ROWS
from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import floats, size_of
from refnet_kernels.cpu.tile import copy_columns, larger_tile, load_tile, smaller_tile, store_tile
from refnet_kernels.target import WIDTH_BYTES

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
IMAGES = AT.images
FRAME = AT.frame
EXTREMES = AT.extremes
HEIGHT = AT.height
ROW = AT.row
TOP = AT.top
LEFT = AT.left
FRAME_HEIGHT = AT.frame_height
FRAME_ROW = AT.frame_row
FRAME_ROWS = AT.frame_rows

#: A tile of one row.
_ONE_ROW = (0,)


@helper
def _fill(row, first, last, value, element):
    numbers = floats(row, element)
    for i in range(first, last):
        numbers[i] = value


@helper
def _copy_row(source, target, count, low, high, scratch, element):
    """Copy ``count`` numbers of a row. Returns the least and the largest number so far per column of a tile."""
    width = WIDTH_BYTES // size_of(element)
    if count < width:
        copy_columns(source, _ONE_ROW, target, _ONE_ROW, count, element)
        numbers, columns = floats(source, element), floats(scratch, element)
        for i in range(width):
            columns[i] = numbers[i % count]
        t = load_tile(scratch, _ONE_ROW, element)
        return smaller_tile(low, t), larger_tile(high, t)
    for first in range(0, count, width):
        # The last numbers fill a tile together with some before them, which are copied again.
        at = min(first, count - width) * size_of(element)
        t = load_tile(source + at, _ONE_ROW, element)
        store_tile(t, target + at, _ONE_ROW)
        low, high = smaller_tile(low, t), larger_tile(high, t)
    return low, high


@kernel
def images_kernel(step, item, scratch, element):
    """One item: some rows of the frames."""
    size = size_of(element)
    _fill(scratch, 0, WIDTH_BYTES // size, np.inf, element)
    low = load_tile(scratch, _ONE_ROW, element)
    _fill(scratch, 0, WIDTH_BYTES // size, -np.inf, element)
    high = load_tile(scratch, _ONE_ROW, element)
    for row in range(item * ITEM_ROWS, min((item + 1) * ITEM_ROWS, step[FRAME_ROWS])):
        target = step[FRAME] + row * step[FRAME_ROW] * size
        image, y = row // step[FRAME_HEIGHT], row % step[FRAME_HEIGHT] - step[TOP]
        if 0 <= y < step[HEIGHT]:
            source = step[IMAGES] + (image * step[HEIGHT] + y) * step[ROW] * size
            _fill(target, 0, step[LEFT], 0, element)
            low, high = _copy_row(source, target + step[LEFT] * size, step[ROW], low, high, scratch, element)
            _fill(target, step[LEFT] + step[ROW], step[FRAME_ROW], 0, element)
        else:
            _fill(target, 0, step[FRAME_ROW], 0, element)
    items = (step[FRAME_ROWS] + ITEM_ROWS - 1) // ITEM_ROWS
    store_tile(low, step[EXTREMES] + item * WIDTH_BYTES, _ONE_ROW)
    store_tile(high, step[EXTREMES] + (items + item) * WIDTH_BYTES, _ONE_ROW)
