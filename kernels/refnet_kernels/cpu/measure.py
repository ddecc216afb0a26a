"""Measurements by the team of threads that runs the kernels: the machine's limits, and the time of each launch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from refnet_kernels.cpu.layout import TILE_BYTES
from refnet_kernels.cpu.team import Launch, Program, aligned_zeros
from refnet_kernels.jit import function_address
from refnet_kernels.target import ROWS, WIDTH

TILE_FLOATS = ROWS * WIDTH
#: FMAs per vector of a tile in one measurement of a thread: about 10 ms. Short measurements flatter.
PEAK_STEPS = 2_000_000


def _address(name: str) -> int:
    return function_address("refnet_kernels.cpu.measure_kernel", name)


class FmaPeak:
    """``run()`` does ``flop`` operations in registers, on all threads."""

    def __init__(self, threads: int, steps: int = PEAK_STEPS) -> None:
        # Small enough that no sum overflows or falls below the normal numbers.
        self._operands = np.full(WIDTH, 0.5, np.float32)
        row = (self._operands.ctypes.data, steps)
        self.flop = 2 * TILE_FLOATS * steps * threads
        self.run = Program([Launch(_address("fma_kernel"), threads, row, TILE_BYTES)], threads).run

    @classmethod
    def of(cls, threads: int, flop: int) -> FmaPeak:
        """The number of operations, to the nearest multiple of a tile's."""
        return cls(threads, max(1, round(flop / (2 * TILE_FLOATS * threads))))


class Copy:
    """``run()``: each thread copies its part of an array of ``size`` bytes, repeatedly; ``bytes`` read and written."""

    def __init__(self, threads: int, size: int, repeats: int) -> None:
        tiles = size // (TILE_BYTES * threads)
        self._arrays = [aligned_zeros(threads * tiles * TILE_FLOATS, np.float32) for _ in range(2)]
        for array in self._arrays:
            # Zeros that were never written share one page.
            array[:] = 1
        source, target = (array.ctypes.data for array in self._arrays)
        self.bytes = 2 * self._arrays[0].nbytes * repeats
        launch = Launch(_address("copy_kernel"), threads, (source, target, tiles, repeats), 0)
        self.run = Program([launch], threads).run


class Timed:
    """A program that reads the clock before its first launch and after each one.

    The threads stay awake between the launches and find the caches as they left them, so the times are those that the
    launches have in a program without clocks.

    Parameters
    ----------
    launches : sequence of Launch
    threads : int
    """

    def __init__(self, launches: Sequence[Launch], threads: int) -> None:
        self._times = np.zeros((len(launches) + 1, 2), np.int64)
        clock, start = _address("clock_kernel"), self._times.ctypes.data
        clocks = [Launch(clock, 1, (time.CLOCK_MONOTONIC, start + 16 * i), 0) for i in range(len(self._times))]
        between = (each for pair in zip(launches, clocks[1:], strict=True) for each in pair)
        self._program = Program([clocks[0], *between], threads)

    def set_operand(self, launch: int, which: int, address: int) -> None:
        """Set an address that a launch reads: number ``which`` of its arguments."""
        self._program.set_operand(2 * launch + 1, which, address)

    def run(self) -> list[float]:
        """Run it. Returns the milliseconds of each launch."""
        self._program.run()
        seconds, nanoseconds = np.diff(self._times, axis=0).T
        milliseconds: list[float] = (seconds * 1e3 + nanoseconds * 1e-6).tolist()
        return milliseconds
