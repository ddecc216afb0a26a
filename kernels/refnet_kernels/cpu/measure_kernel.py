"""The compiled part of measurements. See `refnet_kernels.cpu.measure`."""

from __future__ import annotations

import numpy as np
from numba import types

from refnet_kernels.cpu.kernel import compiled
from refnet_kernels.cpu.layout import TILE_BYTES
from refnet_kernels.cpu.tile import CLOSE_ROWS, load_tile, multiply_add, store_tile, zero_tile
from refnet_kernels.target import ROWS

#: Rows that all read the number at an address / 4: they share one register, as one per row would not fit.
_SAME_PIXEL = (0,) * ROWS

_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int64, types.int64))

#: These have no element types: they compute in binary32, or not at all.
_kernel = compiled(types.void(types.CPointer(types.int64), types.int64, types.int64))


@_kernel
def fma_kernel(step, item, scratch):
    """The multiply-add of a tile, ``step[1]`` times, with constant operands: everything stays in registers."""
    sums = zero_tile(CLOSE_ROWS, np.float32)
    for _ in range(step[1]):
        sums = multiply_add(sums, _SAME_PIXEL, step[0] // 4, step[0])
    store_tile(sums, scratch, CLOSE_ROWS)


@_kernel
def copy_kernel(step, item, scratch):
    """Copy the item's share, ``step[2]`` tiles, from ``step[0]`` to ``step[1]``, ``step[3]`` times."""
    share = item * step[2]
    for _ in range(step[3]):
        for tile in range(share, share + step[2]):
            offset = tile * TILE_BYTES
            store_tile(load_tile(step[0] + offset, CLOSE_ROWS, np.float32), step[1] + offset, CLOSE_ROWS)


@_kernel
def clock_kernel(step, item, scratch):
    """Write the time of the clock ``step[0]`` to ``step[1]``: seconds, and nanoseconds."""
    _clock_gettime(step[0], step[1])
