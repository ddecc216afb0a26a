"""Kernels as plain Python, over memory in which every access is checked.

Numba's check of bounds sees arrays, and its switch that turns compilation off needs functions that Python can call. The
kernels have addresses, and intrinsics that exist only in LLVM. So each intrinsic has a twin in NumPy here, of a line or
two. The kernels' own functions run with these in place of the intrinsics, and an address is looked up among the arrays
that the kernel was given: what is read or written outside them is an error, which names the nearest array.
"""

from __future__ import annotations

import bisect
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.extending import _Intrinsic

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import RUN, FloatArray
from refnet_kernels.cpu.team import Launch
from refnet_kernels.exact import fma as exact_fma
from refnet_kernels.target import WIDTH_BYTES

Rows = tuple[int, ...]


class OutOfBoundsError(Exception):
    """An access outside the arrays, or a write to one that must not change."""


class _Block(NamedTuple):
    start: int
    stop: int
    name: str
    is_written: bool
    content: np.ndarray


class Memory:
    """What a kernel may touch.

    Parameters
    ----------
    read, written : mapping of str to array
        C-contiguous; a kernel may write only to the latter.
    """

    def __init__(self, read: Mapping[str, np.ndarray], written: Mapping[str, np.ndarray]) -> None:
        self._blocks = sorted(
            _Block(
                array.ctypes.data, array.ctypes.data + array.nbytes, name, is_written, array.reshape(-1).view(np.uint8)
            )
            for arrays, is_written in ((read, False), (written, True))
            for name, array in arrays.items()
            if array.nbytes
        )
        self._starts = [block.start for block in self._blocks]

    def at(self, address: int, count: int, dtype: Any, write: bool = False) -> np.ndarray:
        """The numbers from an address on, which all lie in one array."""
        size = count * np.dtype(dtype).itemsize
        place = bisect.bisect_right(self._starts, address) - 1
        block = self._blocks[max(place, 0)]
        if not block.start <= address <= address + size <= block.stop:
            raise OutOfBoundsError(
                f"{size} bytes at byte {address - block.start} of {block.name}, of {len(block.content)}"
            )
        if write and not block.is_written:
            raise OutOfBoundsError(f"a write to {block.name}")
        return block.content[address - block.start :][:size].view(dtype)


class _View:
    """The numbers from an address on, by index."""

    def __init__(self, memory: Memory, address: int, dtype: Any) -> None:
        self._memory, self._address, self._dtype = memory, address, np.dtype(dtype)

    def _at(self, index: int, write: bool = False) -> np.ndarray:
        return self._memory.at(self._address + int(index) * self._dtype.itemsize, 1, self._dtype, write)

    def __getitem__(self, index: int) -> Any:
        return self._at(index)[0]

    def __setitem__(self, index: int, number: Any) -> None:
        self._at(index, write=True)[0] = number


def intrinsics(memory: Memory) -> dict[str, Callable[..., Any]]:
    """The twins of the intrinsics of `refnet_kernels.cpu.memory` and `refnet_kernels.cpu.tile`, by their names.

    A tile is an array [rows, columns].
    """

    def columns(address: int, element: Any) -> FloatArray:
        return memory.at(address, WIDTH_BYTES // np.dtype(element).itemsize, element)

    def load_tile(address: int, offsets: Rows, element: Any) -> FloatArray:
        return np.stack([columns(address + offset, element) for offset in offsets])

    def store_tile(value: FloatArray, address: int, offsets: Rows) -> None:
        for row, offset in zip(value, offsets, strict=True):
            memory.at(address + offset, len(row), row.dtype, write=True)[:] = row

    def zero_tile(offsets: Rows, element: Any) -> FloatArray:
        return np.zeros((len(offsets), WIDTH_BYTES // np.dtype(element).itemsize), element)

    def close(value: FloatArray) -> Rows:
        return tuple(row * WIDTH_BYTES for row in range(len(value)))

    def load_wide(address: int, offsets: Rows, element: Any) -> FloatArray:
        numbers = memory.at(address, len(offsets) * WIDTH_BYTES // 8, element)
        return numbers.astype(np.float64).reshape(len(offsets), -1)

    def add_to_tile(address: int, value: FloatArray) -> None:
        store_tile(load_tile(address, close(value), value.dtype) + value, address, close(value))

    def multiply_add(sums: FloatArray, pixels: Rows, k: int, weights: int) -> FloatArray:
        x = np.stack([memory.at(pixel + k * sums.itemsize, 1, sums.dtype) for pixel in pixels])
        return exact_fma(x, columns(weights, sums.dtype), sums)

    def multiply_add_pixel(sums: FloatArray, pixel: int, k: int, panels: Rows) -> FloatArray:
        x = memory.at(pixel + k * sums.itemsize, 1, sums.dtype)
        return exact_fma(x, load_tile(k * WIDTH_BYTES, panels, sums.dtype), sums)

    def find_nonzero(address: int, element: Any) -> Any:
        return np.packbits(memory.at(address, RUN, element) != 0, bitorder="little").view(np.int64)[0]

    def normalize(value: FloatArray, mean: int, scale: int, beta: int) -> FloatArray:
        mean_, scale_, beta_ = (columns(address, value.dtype) for address in (mean, scale, beta))
        return exact_fma(value - mean_, np.broadcast_to(scale_, value.shape), np.broadcast_to(beta_, value.shape))

    def fma(a: Any, b: Any, c: Any) -> Any:
        return exact_fma(*(np.array([number]) for number in (a, b, c)))[0]

    def load_rows(address: int, like: Rows) -> Rows:
        return tuple(int(offset) for offset in memory.at(address, len(like), np.int64))

    def nothing(*_: Any) -> None:
        """A prefetch does no harm, wherever it points."""

    return {
        "floats": lambda address, element: _View(memory, address, element),
        "doubles": lambda address: _View(memory, address, np.float64),
        "integers": lambda address: _View(memory, address, np.int64),
        "size_of": lambda element: np.dtype(element).itemsize,
        "float_of_bits": lambda bits: np.int64(bits).view(np.float64),
        "fma": fma,
        "count_ones": lambda bits: int(bits.view(np.uint64)).bit_count(),
        "lowest_one": lambda bits: (int(bits) & -int(bits)).bit_length() - 1,
        "prefetch": nothing,
        "prefetch_to_second": nothing,
        "prefetch_tile": nothing,
        "zero_tile": zero_tile,
        "load_rows": load_rows,
        "move_rows": lambda rows, distance: tuple(row + distance for row in rows),
        "scale_rows": lambda rows, factor: tuple(row * factor for row in rows),
        "multiply_add": multiply_add,
        "multiply_add_pixel": multiply_add_pixel,
        "find_nonzero": find_nonzero,
        "add_tiles": lambda left, right: left + right,
        "repeat_last_row": lambda value, offsets: value[np.minimum(range(len(offsets)), len(value) - 1)],
        "add_to_tile": add_to_tile,
        "larger_tile": lambda left, right: np.where((right > left) | np.isnan(right), right, left),
        "smaller_tile": lambda left, right: np.where((right < left) | np.isnan(right), right, left),
        "add_bias": lambda value, bias: value + columns(bias, value.dtype),
        "normalize": normalize,
        "relu_tile": lambda value: np.where(value < 0, value.dtype.type(0), value),
        "load_tile": load_tile,
        "load_wide": load_wide,
        "add_squares": lambda sums, values, mean: sums + (values - mean) * (values - mean),
        "store_tile": store_tile,
    }


class Fault(NamedTuple):
    """A piece of a function's text and what stands in its place."""

    function: str
    text: str
    fault: str


def emulated(function: Any, twins: Mapping[str, Callable[..., Any]], fault: Fault | None = None) -> Callable[..., Any]:
    """A kernel, or a function that it calls, with the twins in place of the intrinsics, and perhaps a fault."""
    plain = getattr(function, "py_func", function)
    code = plain.__code__
    if fault is not None and fault.function == plain.__name__:
        code = _with_fault(plain, fault)
    inner = dict(plain.__globals__)
    for name in _names(code):
        value = inner.get(name)
        if isinstance(value, _Intrinsic):
            inner[name] = twins[name]
        elif hasattr(value, "py_func"):
            inner[name] = emulated(value, twins, fault)
    return types.FunctionType(code, inner, plain.__name__)


def _names(code: types.CodeType) -> list[str]:
    return [*code.co_names, *(name for const in code.co_consts if inspect.iscode(const) for name in _names(const))]


def _with_fault(function: Any, fault: Fault) -> types.CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    assert fault.text in source, f"{fault.function} no longer holds {fault.text!r}"
    source = source[source.index("def ") :].replace(fault.text, fault.fault)
    made: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + source, function.__code__.co_filename, "exec"), made)
    code: types.CodeType = made[function.__name__].__code__
    return code


def run(
    kernel: Kernel, op: str, launch: Launch, read: Mapping[str, np.ndarray], written: Mapping[str, np.ndarray],
    dtype: np.dtype[Any], fault: Fault | None = None,
) -> None:  # fmt: skip
    """Run all items of a launch, whose addresses are those of the arrays."""
    scratch = np.full(launch.scratch + 64, 0xFF, np.uint8)
    start = -scratch.ctypes.data % 64
    kept = {f"table {i}": np.ascontiguousarray(array) for i, array in enumerate(launch.kept)}
    assert all(array is kept[f"table {i}"] for i, array in enumerate(launch.kept))
    memory = Memory({**read, **kept}, {**written, "scratch": scratch[start : start + launch.scratch]})
    module = sys.modules[f"{kernel.launch.__module__}_kernel"]
    function = emulated(getattr(module, f"{op}_kernel"), intrinsics(memory), fault)
    step: Sequence[int] = [int(field) for field in launch.row]
    with np.errstate(all="ignore"):
        for item in range(launch.items):
            function(step, item, scratch.ctypes.data + start, dtype.type)
