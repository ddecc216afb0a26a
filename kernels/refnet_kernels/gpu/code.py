"""The primitives of the CUDA kernels: LLVM's instructions, or their equivalents for Numba's simulator."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from numba import cuda
from numba.cuda.core import config

_code: Any = import_module(f"refnet_kernels.gpu.{'simulated' if config.ENABLE_CUDASIM else 'intrinsics'}")

fma, multiply, float_of_bits = _code.fma, _code.multiply, _code.float_of_bits
load, store, load4, store4, load_tap = _code.load, _code.store, _code.load4, _code.store4, _code.load_tap
start_of_shared, load_shared4, store_shared4 = _code.start_of_shared, _code.load_shared4, _code.store_shared4
copy_shared, copy_shared4 = _code.copy_shared, _code.copy_shared4
commit_group, wait_group, syncthreads = _code.commit_group, _code.wait_group, _code.syncthreads
shared_doubles, register_tile = _code.shared_doubles, _code.register_tile


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that kernels call: it becomes a part of each of them."""
    return function if config.ENABLE_CUDASIM else cuda.jit(device=True, forceinline=True)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a `helper` that is compiled as if its text were in the kernel.

    Other helpers are simplified on their own first, before it is known which of their arguments are constants.
    """
    return function if config.ENABLE_CUDASIM else cuda.jit(device=True, inline="always")(function)
