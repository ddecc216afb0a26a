"""A CUDA kernel, and one launch of it: everything that a device, the simulator or a checker needs to run it.

This module needs neither a device nor Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: The most shared memory that a block may have on every device since Ampere.
SHARED_BYTES = 99 * 1024
#: The largest integer that kernels count to.
LARGEST = 2**31 - 1


class CudaKernel(NamedTuple):
    """A kernel in Numba's subset of Python.

    Attributes
    ----------
    function : callable
        Its parameters are addresses (int64, in bytes) and integers (int32 unless stated otherwise).
    signature : numba signature
    threads : int
        Threads per block; the block is one-dimensional.
    blocks : int
        Blocks that should fit into a multiprocessor at once, which limits the registers per thread.
    shared_bytes : int
        Bytes of shared memory per block that each launch requests, at most `SHARED_BYTES`.
    """

    function: Callable[..., None]
    signature: Any
    threads: int
    blocks: int
    shared_bytes: int = 0


class CudaLaunch(NamedTuple):
    """One launch: a one-dimensional grid of ``grid`` blocks, and the arguments as Python integers."""

    kernel: CudaKernel
    grid: int
    arguments: tuple[Any, ...]


def make_launch(kernel: CudaKernel, grid: int, arguments: Mapping[str, float]) -> CudaLaunch:
    """The launch of a kernel, with arguments by the names of the function's parameters.

    Raises
    ------
    TypeError
        A parameter lacks an argument, or an argument lacks a parameter.
    OverflowError
        The number of threads, or an int32, does not fit into 32 bits.
    """
    code = kernel.function.__code__
    names = code.co_varnames[: code.co_argcount]
    if set(names) != arguments.keys():
        raise TypeError(f"{kernel.function.__name__} has the parameters {names}, not {tuple(arguments)}.")
    counts = [arguments[name] for name, kind in zip(names, kernel.signature.args, strict=True) if str(kind) != "int64"]
    largest = max((grid * kernel.threads, *counts))
    if largest > LARGEST:
        raise OverflowError(f"A CUDA launch counts to {LARGEST}, not to {largest}; pass fewer images at a time.")
    return CudaLaunch(kernel, grid, tuple(arguments[name] for name in names))


class TileLayout(NamedTuple):
    """The layout of a thread's tile of sums in its block's tile, and of its operands in shared memory.

    From one of the thread's rows to the next there is a step; its columns come in fours, with a step from one four to
    the next. All distances except ``row_step`` are in floats.

    Attributes
    ----------
    rows, columns : int
        Size of the thread's tile; the columns are a multiple of four.
    depth : int
        Products that are added to each sum at a time; a multiple of four.
    a_stride : int
        From one row's numbers, one per product, to the next row's.
    b_stride : int
        From one product's numbers, one per column, to the next product's.
    row_step, column_step : int
        From the thread's row to its next one, in rows of the block's tile; from four columns to the next four.
    park_stride : int
        From row to row of the parked tile.
    """

    rows: int
    columns: int
    depth: int
    a_stride: int
    b_stride: int
    row_step: int
    column_step: int
    park_stride: int
