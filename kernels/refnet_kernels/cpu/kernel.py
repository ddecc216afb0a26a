"""Decorators for the functions that are compiled. Importing this module imports Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types

#: The types of arrays' elements, by NumPy's names.
ELEMENTS = {"float32": types.float32, "float64": types.float64}


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Mark ``kernel(step, item, scratch, element)`` to be compiled by `refnet_kernels.jit.function_address`.

    ``step`` holds the addresses and integers of one step of a program, ``item`` is the number of the share of work to
    do, ``scratch`` is the address of the thread's own memory. ``element`` is the type of the arrays' elements,
    ``np.float32`` or ``np.float64``; a kernel is compiled once per element type, so it is not passed at run time.
    """
    function.signatures = {  # type: ignore[attr-defined]
        name: types.void(types.CPointer(types.int64), types.int64, types.int64, types.NumberClass(element))
        for name, element in ELEMENTS.items()
    }
    return function


def compiled(signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a function to be compiled with a signature of pointers and int64."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        function.signature = signature  # type: ignore[attr-defined]
        return function

    return mark


#: Decorates a function that kernels call. It is compiled into each of them, never on its own.
helper = numba.njit(error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
