"""How a kernel is written: decorators for the functions that are compiled. Imports Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a function ``kernel(step, item, scratch)`` to be compiled by `refnet_kernels.jit.function_address`.

    ``step`` holds the addresses and integers of one step of a program, ``item`` says which share of its work to do,
    ``scratch`` is the address of the thread's own memory.
    """
    return compiled(types.void(types.CPointer(types.int64), types.int64, types.int64))(function)


def compiled(signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a function to be compiled with a signature of pointers and int64."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        function.signature = signature  # type: ignore[attr-defined]
        return function

    return mark


#: Decorates a function that kernels call: compiled into each of them, never on its own.
helper = numba.njit(error_model="numpy")
