"""The machine's limits, measured by the team of threads that runs the kernels: binary32 FMA, and copying of memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from refnet_kernels.cpu.kernel import compiled
from refnet_kernels.cpu.team import Launch, Program, aligned_zeros
from refnet_kernels.cpu.tile import CLOSE_ROWS, load_tile, multiply_add, store_tile, zero_tile
from refnet_kernels.target import ROWS, WIDTH

TILE_FLOATS = ROWS * WIDTH
#: Rows that all read the number at an address / 4: they share one register, as one per row would not fit.
SAME_PIXEL = (0,) * ROWS
#: FMAs per vector of a tile in one measurement of a thread: about 10 ms. Short measurements flatter.
PEAK_STEPS = 2_000_000

#: A kernel for binary32 only.
_kernel = compiled(types.void(types.CPointer(types.int64), types.int64, types.int64))


@_kernel
def fma_kernel(step: Any, item: Any, scratch: Any) -> None:
    """The multiply-add of a tile, ``step[1]`` times, with constant operands: everything stays in registers."""
    sums = zero_tile(CLOSE_ROWS, np.float32)
    for _ in range(step[1]):
        sums = multiply_add(sums, SAME_PIXEL, step[0] // 4, step[0])
    store_tile(sums, scratch, CLOSE_ROWS)


@_kernel
def copy_kernel(step: Any, item: Any, scratch: Any) -> None:
    """Copy the item's share, ``step[2]`` tiles, from ``step[0]`` to ``step[1]``, ``step[3]`` times."""
    share = item * step[2]
    for _ in range(step[3]):
        for tile in range(share, share + step[2]):
            offset = tile * TILE_FLOATS * 4
            store_tile(load_tile(step[0] + offset, CLOSE_ROWS, np.float32), step[1] + offset, CLOSE_ROWS)


_functions: dict[Any, Any] = {}


def _address(function: Any) -> int:
    """A compiled kernel's address. refnet's own cache is keyed by refnet's sources, so it cannot hold these."""
    if function not in _functions:
        _functions[function] = numba.cfunc(function.signature, error_model="numpy")(function)
    return int(_functions[function].address)


class FmaPeak:
    """``run()`` does ``flop`` operations in registers, on all threads."""

    def __init__(self, threads: int, steps: int = PEAK_STEPS) -> None:
        # Small enough that no sum overflows or falls below the normal numbers.
        self._operands = np.full(WIDTH, 0.5, np.float32)
        row = [self._operands.ctypes.data, steps]
        self.flop = 2 * TILE_FLOATS * steps * threads
        self.run = Program([Launch(_address(fma_kernel), threads, row, TILE_FLOATS * 4)], threads).run

    @classmethod
    def of(cls, threads: int, flop: int) -> FmaPeak:
        """The number of operations, to the nearest multiple of a tile's."""
        return cls(threads, max(1, round(flop / (2 * TILE_FLOATS * threads))))


class Copy:
    """``run()``: each thread copies its part of an array of ``size`` bytes, repeatedly; ``bytes`` read and written."""

    def __init__(self, threads: int, size: int, repeats: int) -> None:
        tiles = size // (TILE_FLOATS * 4 * threads)
        self._arrays = [aligned_zeros(threads * tiles * TILE_FLOATS, np.float32) for _ in range(2)]
        for array in self._arrays:
            # Zeros that were never written share one page.
            array[:] = 1
        row = [*(array.ctypes.data for array in self._arrays), tiles, repeats]
        self.bytes = 2 * self._arrays[0].nbytes * repeats
        self.run = Program([Launch(_address(copy_kernel), threads, row, 0)], threads).run
