"""The functions of `intrinsics.py` for Numba's simulator, which runs a kernel's Python as it stands, in threads.

The simulator's own ``fma`` is not fused; here it is `refnet_kernels.exact.fma`, so that the bits can be compared.
Device memory is the host's, shared memory is an array for each kernel: the simulator runs one block at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from refnet_kernels import exact
from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import TileLayout


def _memory(address: int, kind: Any, count: int) -> np.ndarray:
    """``count`` numbers at an address, which is a multiple of all their bytes."""
    size = ctypes.sizeof(kind) * count
    if address % size:
        raise ValueError(f"{size} bytes are read or written at the address {address}, which is no multiple of them.")
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


def load_tap(address: int) -> tuple[int, int, int]:
    """A row of a table of taps: an int64 and two int32."""
    y, x = _memory(address, ctypes.c_int32, 4)[2:]
    return int(_memory(address, ctypes.c_int64, 2)[0]), int(y), int(x)


_shared: dict[str, Float32Array] = {}


def shared_memory(name: str, size: int) -> tuple[Callable[..., Any], ...]:
    """Shared memory of a kernel: ``load4``, ``store4``, ``store``."""
    memory = _shared.setdefault(name, np.full(size, np.nan, np.float32))

    def load4(place: int) -> Float32Array:
        return memory[_vector(place)].copy()

    def store4(place: int, values: Any) -> None:
        memory[_vector(place)] = values

    def store(place: int, value: np.float32) -> None:
        memory[place] = value

    return load4, store4, store


def shared_doubles(name: str, size: int) -> tuple[Callable[..., Any], ...]:
    """Shared memory of binary64 numbers: ``load`` and ``store``."""
    memory = np.full(size, np.nan)

    def load(place: int) -> np.float64:
        return np.float64(memory[place])

    def store(place: int, value: np.float64) -> None:
        memory[place] = value

    return load, store


def _vector(place: int) -> slice:
    if place % 4:
        raise ValueError(f"A vector in shared memory starts at the float {place}, which is no multiple of 4.")
    return slice(place, place + 4)


def register_tile(name: str, size: int, layout: TileLayout) -> tuple[Callable[..., Any], ...]:
    """A thread's tile of sums: ``zero``, ``plus``, ``accumulate``, ``park``."""
    t = layout
    memory = _shared.setdefault(name, np.full(size, np.nan, np.float32))

    def zero() -> Float32Array:
        return np.zeros((t.rows, t.columns), np.float32)

    def plus(a: Float32Array, b: Float32Array) -> Float32Array:
        with np.errstate(all="ignore"):
            return a + b

    def accumulate(tile: Float32Array, a: int, b: int) -> Float32Array:
        for k in range(t.depth):
            left = fours(a + k * t.a_stride, t.row_step, t.rows)
            right = fours(b + k * t.b_stride, t.column_step, t.columns)
            tile = exact.fma(left[:, None], right, tile)
        return tile

    def park(tile: Float32Array, place: int) -> None:
        for row, column in np.ndindex(t.rows, t.columns // 4):
            offset = (row // 4 * t.row_step + row % 4) * t.park_stride + column * t.column_step
            memory[_vector(place + offset)] = tile[row, 4 * column : 4 * column + 4]

    def fours(place: int, step: int, count: int) -> Float32Array:
        return np.concatenate([memory[_vector(place + four * step)] for four in range(count // 4)])

    return zero, plus, accumulate, park
