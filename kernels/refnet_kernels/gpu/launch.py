"""What a CUDA kernel is, and one launch of it: all that a device, the simulator or a checker needs to run it.

No device and no Numba is needed to make these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: The most shared memory that a block may have on every device since Ampere.
SHARED_BYTES = 99 * 1024
#: The largest integer that kernels count with.
LARGEST = 2**31 - 1


class CudaKernel(NamedTuple):
    """A kernel in Numba's subset of Python.

    Attributes
    ----------
    function : callable
        Of addresses (int64, in bytes) and integers (int32, where not stated otherwise).
    signature : numba signature
    threads : int
        Threads of a block; the block is one-dimensional.
    blocks : int
        Blocks that should fit into a multiprocessor at once, which bounds the registers of a thread.
    shared_bytes : int
        Shared memory of a block that each launch asks for, at most `SHARED_BYTES`.
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
    """The launch of a kernel, with the arguments by the names of the function's parameters.

    Raises
    ------
    TypeError
        A parameter has no argument, or an argument has no parameter.
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
    """How a thread's tile of sums lies in its block's tile, and what it is made from in shared memory.

    The thread's next row lies a step away; its columns come in fours, the next of which lies a step away. All distances
    are in floats.

    Attributes
    ----------
    rows, columns : int
        Of the thread's tile; the columns are a multiple of four.
    depth : int
        Products that are added to each sum at a time; a multiple of four.
    a_stride : int
        From one row's numbers, which are as many as the products, to the next one's.
    b_stride : int
        From one product's numbers, which are as many as the columns, to the next one's.
    row_step, column_step : int
        From the thread's row, or four columns, to its next.
    park_stride : int
        From row to row where the finished tile is parked.
    """

    rows: int
    columns: int
    depth: int
    a_stride: int
    b_stride: int
    row_step: int
    column_step: int
    park_stride: int
