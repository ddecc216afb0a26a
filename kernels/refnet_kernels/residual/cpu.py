"""The residual sum on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

SHORTCUT, X, OUT, RELU, COUNT = range(5)
#: Numbers of an item.
ITEM = 65536


def launch(count: int, addresses: dict[str, int], relu: bool, dtype: np.dtype[Any] = BINARY32) -> Launch:
    """The step ``out = shortcut + x``, or its ReLU, over ``count`` numbers, with the addresses of the three."""
    row = [addresses["shortcut"], addresses["x"], addresses["out"], int(relu), count]
    kernel = function_address("refnet_kernels.residual.cpu_kernel", "residual_kernel", dtype.name)
    return Launch(kernel, -(-count // ITEM), row, 0)


def call(shortcut: FloatArray, x: FloatArray, relu: bool) -> FloatArray:
    """`refnet_kernels.residual` on arrays."""
    shortcut, x = np.ascontiguousarray(shortcut), np.ascontiguousarray(x)
    out = np.empty_like(x)
    operands = {"shortcut": shortcut.ctypes.data, "x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(x.size, operands, relu, x.dtype))
    return out
