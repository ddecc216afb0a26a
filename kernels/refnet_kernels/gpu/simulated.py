"""The functions of `intrinsics.py` for Numba's simulator, which runs a kernel's Python unchanged, in threads.

The simulator's own ``fma`` is not fused; here it is `refnet_kernels.exact.fma`, so that the bits can be compared.
Device memory is the host's. Shared memory is one array, as the simulator runs one block at a time.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from refnet_kernels import exact
from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import SHARED_BYTES, TileLayout


def _memory(address: int, kind: Any, count: int) -> np.ndarray:
    """``count`` numbers at an address, which is a multiple of their size."""
    size = ctypes.sizeof(kind) * count
    if address % size:
        raise ValueError(
            f"{size} bytes are read or written at the address {address}, which is not a multiple of {size}."
        )
    return np.frombuffer((kind * count).from_address(int(address)), np.dtype(kind))


def fma(a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of binary32 numbers, rounded once."""
    return exact.fma(np.atleast_1d(a), np.atleast_1d(b), np.atleast_1d(c))[0]


def multiply(a: np.float64, b: np.float64) -> np.float64:
    """``a * b`` of binary64 numbers."""
    return a * b


def float_of_bits(bits: int) -> np.float64:
    """The binary64 number that has the bits of an int64."""
    return np.int64(bits).view(np.float64)


def load(address: int) -> np.float32:
    """The binary32 number at an address."""
    return np.float32(_memory(address, ctypes.c_float, 1)[0])


def store(address: int, value: np.float32) -> None:
    """Write a binary32 number to an address."""
    _memory(address, ctypes.c_float, 1)[0] = value


def load4(address: int) -> Float32Array:
    """The vector at an address."""
    return _memory(address, ctypes.c_float, 4).copy()


def store4(address: int, values: Any) -> None:
    """Write a vector to an address."""
    _memory(address, ctypes.c_float, 4)[:] = values


def load_tap(address: int) -> tuple[int, ...]:
    """The first three of the four int32 at an address, which is a multiple of 16."""
    return tuple(map(int, _memory(address, ctypes.c_int32, 4)[:3]))


#: A block's shared memory, of the size that a kernel may ask for; places are the bytes from its beginning.
_shared = np.full(SHARED_BYTES // 4, np.nan, np.float32)


def _numbers(place: int, count: int) -> slice:
    """The slice of ``count`` numbers in shared memory, at a multiple of their size."""
    if place % (4 * count):
        raise ValueError(
            f"{count} numbers are at byte {place} of shared memory, which is not a multiple of their size."
        )
    return slice(place // 4, place // 4 + count)


def start_of_shared() -> int:
    """The place where shared memory begins."""
    return 0


def load_shared4(place: int) -> Float32Array:
    """The vector at a place in shared memory."""
    return _shared[_numbers(place, 4)].copy()


def store_shared4(place: int, values: Any) -> None:
    """Write a vector to a place in shared memory."""
    _shared[_numbers(place, 4)] = values


def copy_shared4(place: int, address: int, inside: bool) -> None:
    """Copy a vector from an address to a place in shared memory, at once; if not ``inside``, zeros."""
    _shared[_numbers(place, 4)] = load4(address) if inside else 0


def copy_shared(place: int, address: int, inside: bool) -> None:
    """Copy a number from an address to a place in shared memory, at once; if not ``inside``, zero."""
    _shared[_numbers(place, 1)] = load(address) if inside else 0


def commit_group() -> None:
    """Copies are done when they start; there is nothing to do."""


def wait_group(left: int) -> Callable[[], None]:
    """A function that waits for nothing."""
    return commit_group


def syncthreads() -> None:
    """Wait for all threads of the block."""
    threading.current_thread().syncthreads()  # type: ignore[attr-defined]


def shared_doubles(name: str, size: int) -> tuple[Callable[..., Any], ...]:
    """Shared memory of binary64 numbers: ``load`` and ``store``."""
    memory = np.full(size, np.nan)

    def load(place: int) -> np.float64:
        return np.float64(memory[place])

    def store(place: int, value: np.float64) -> None:
        memory[place] = value

    return load, store


def register_tile(layout: TileLayout) -> tuple[Callable[..., Any], ...]:
    """A thread's tile of sums: ``zero``, ``plus``, ``accumulate``, ``park``."""
    t = layout

    def zero() -> Float32Array:
        return np.zeros((t.rows, t.columns), np.float32)

    def plus(a: Float32Array, b: Float32Array) -> Float32Array:
        with np.errstate(all="ignore"):
            return a + b

    def accumulate(tile: Float32Array, a: int, b: int) -> Float32Array:
        for k in range(t.depth):
            left = _shared[a // 4 + k + np.arange(t.rows) * t.row_step * t.a_stride]
            fours = [b + 4 * (k * t.b_stride + four * t.column_step) for four in range(t.columns // 4)]
            right = np.concatenate([_shared[_numbers(place, 4)] for place in fours])
            tile = exact.fma(left[:, None], right, tile)
        return tile

    def park(tile: Float32Array, place: int) -> None:
        for row, column in np.ndindex(t.rows, t.columns // 4):
            offset = row * t.row_step * t.park_stride + column * t.column_step
            _shared[_numbers(place + 4 * offset, 4)] = tile[row, 4 * column : 4 * column + 4]

    return zero, plus, accumulate, park
