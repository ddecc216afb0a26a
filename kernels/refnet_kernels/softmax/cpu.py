"""Softmax on the CPU: an item is one row of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

X, OUT, CLASSES = range(3)


def launch(rows: int, classes: int, addresses: dict[str, int], dtype: np.dtype[Any] = BINARY32) -> Launch:
    """The step over ``rows`` rows of ``classes`` logits, with the addresses ``x`` and ``out``."""
    row = [addresses["x"], addresses["out"], classes]
    kernel = function_address("refnet_kernels.softmax.cpu_kernel", "softmax_kernel", dtype.name)
    return Launch(kernel, rows if classes else 0, row, classes * 8)


def call(x: FloatArray) -> FloatArray:
    """`refnet_kernels.softmax` on arrays."""
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    classes = x.shape[-1]
    operands = {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(x.size // max(classes, 1), classes, operands, x.dtype))
    return out
