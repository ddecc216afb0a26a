"""Floating-point modes of a thread other than the usual one, as other libraries leave them behind."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: C's ``fenv_t``, in words of 32 bits; which of them is the control register, and its bits.
WORDS = 16
REGISTER = {"x86_64": 7, "aarch64": 0}
FLUSH_TO_ZERO = {"x86_64": 1 << 15, "aarch64": 1 << 24}
DENORMALS_ARE_ZERO = {"x86_64": 1 << 6, "aarch64": 0}
DOWN, UP, TOWARD_ZERO = {"x86_64": (1, 2, 3), "aarch64": (2, 1, 3)}.get(platform.machine(), (0, 0, 0))
ROUNDING_SHIFT = {"x86_64": 13, "aarch64": 22}

KNOWN = sys.platform == "linux" and platform.machine() in REGISTER


def bits_of(rounding: int, flush: bool, zero: bool) -> int:
    machine = platform.machine()
    return (
        rounding << ROUNDING_SHIFT.get(machine, 0)
        | FLUSH_TO_ZERO.get(machine, 0) * flush
        | DENORMALS_ARE_ZERO.get(machine, 0) * zero
    )


#: By what `refnet_kernels.system.float_mode.describe_mode` says: the bits of the register that are set.
MODES = {
    "rounding down": bits_of(DOWN, False, False),
    "rounding up": bits_of(UP, False, False),
    "rounding toward zero": bits_of(TOWARD_ZERO, False, False),
    "flush to zero": bits_of(0, True, True),
    "flush to zero, rounding down": bits_of(DOWN, True, False),
}

_libm = ctypes.CDLL("libm.so.6") if KNOWN else None


def environment() -> bytes:
    """This thread's floating-point environment: how it computes, and the exceptions that it has seen."""
    assert _libm is not None
    words = (ctypes.c_uint32 * WORDS)()
    _libm.fegetenv(words)
    return bytes(words)


def register() -> int:
    """The control register; of MXCSR, without the exceptions that were seen."""
    words = memoryview(environment()).cast("I")
    return int(words[REGISTER[platform.machine()]]) & ~0x3F


@contextmanager
def float_mode(bits: int) -> Iterator[None]:
    """A block in which this thread computes in another mode."""
    assert _libm is not None
    before = (ctypes.c_uint32 * WORDS)()
    _libm.fegetenv(before)
    changed = (ctypes.c_uint32 * WORDS)(*before)
    changed[REGISTER[platform.machine()]] |= bits
    try:
        _libm.fesetenv(changed)
        yield
    finally:
        _libm.fesetenv(before)
