"""A thread's floating-point mode, which any library may change, and the mode of the contract's rule A0.

``fesetround`` changes how a thread rounds, and to load a library that was linked with ``-ffast-math`` has it flush
subnormal numbers to zero. Compiled kernels set their own mode (`refnet_kernels.cpu.control_register`); what NumPy and
Python compute is done within `contract_mode`, whatever ``numpy.seterr`` says.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

#: C's ``fenv_t``: 32 bytes on x86-64, 8 on AArch64.
_Environment = ctypes.c_uint32 * 16

#: ``FE_DFL_ENV`` of glibc and musl on the machines below. It rounds to nearest even, flushes nothing, masks all traps.
_DEFAULT = ctypes.c_void_p(-1)

_MACHINE = os.uname().machine if sys.platform == "linux" else ""

#: Where ``fenv_t`` holds the control register, in words of 32 bits: MXCSR, FPCR.
_REGISTER = {"x86_64": 7, "aarch64": 0}

#: Its bits that flush subnormal numbers: DAZ and FTZ; FIZ and FZ.
_FLUSH = {"x86_64": 1 << 6 | 1 << 15, "aarch64": 1 | 1 << 24}

#: The lower of the two bits that say how to round, and the ways in their order.
_ROUNDING = {
    "x86_64": (13, ("to nearest", "down", "up", "toward zero")),
    "aarch64": (22, ("to nearest", "up", "down", "toward zero")),
}


def _functions() -> tuple[Any, Any] | None:
    """``fegetenv`` and ``fesetenv``; None where they, or what ``FE_DFL_ENV`` is, are not known."""
    if _MACHINE not in _REGISTER:
        return None
    for name in (None, "libm.so.6"):
        with suppress(OSError, AttributeError):
            library = ctypes.PyDLL(name)
            functions = library.fegetenv, library.fesetenv
            for function in functions:
                function.argtypes = [ctypes.c_void_p]
            return functions
    return None


_FUNCTIONS = _functions()


@contextmanager
def contract_mode() -> Iterator[None]:
    """Compute as rule A0 says: rounded to nearest even, nothing flushed to zero. Afterwards all is as it was.

    Infinities, NaN and subnormal numbers are results like others, so NumPy neither warns of them nor raises.

    Also a decorator. On a machine whose environment is not known, only NumPy is told so.
    """
    get, set_to = _FUNCTIONS or (_nothing, _nothing)
    before = _Environment()
    with np.errstate(all="ignore"):
        get(before)
        try:
            set_to(_DEFAULT)
            yield
        finally:
            set_to(before)


def _nothing(_: Any) -> None:
    pass


def describe_mode() -> str:
    """How this thread computes: "default", or what is different, for instance "flush to zero, rounding down"."""
    if _FUNCTIONS is None:
        return "unknown"
    environment = _Environment()
    _FUNCTIONS[0](environment)
    register = environment[_REGISTER[_MACHINE]]
    low, ways = _ROUNDING[_MACHINE]
    rounding = ways[register >> low & 3]
    differences = ["flush to zero"] if register & _FLUSH[_MACHINE] else []
    differences += [f"rounding {rounding}"] if rounding != ways[0] else []
    return ", ".join(differences) or "default"
