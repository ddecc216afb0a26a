"""Exactly rounded arithmetic that NumPy lacks."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import Float32Array


def fma(a: Float32Array, b: Float32Array, c: Float32Array) -> Float32Array:
    """``a * b + c`` rounded once to binary32, for arrays.

    The product of two binary32 numbers is exact in binary64. Their sum with c is rounded *to odd* there: where it is
    inexact and its last bit is even, it moves to the odd neighbour on the side of the exact sum. Rounding that to
    binary32 gives the exact sum's rounding, since binary64 has more than two bits to spare (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums", 2008).
    """
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        addend = c.astype(np.float64)
        total = product + addend
        # Knuth's TwoSum: the part of the sum that rounding lost.
        virtual = total - product
        lost = (product - (total - virtual)) + (addend - virtual)
        even = (total.view(np.int64) & 1) == 0
        odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
        total = np.where(even & (lost != 0) & np.isfinite(total), odd, total)
        return total.astype(np.float32)
