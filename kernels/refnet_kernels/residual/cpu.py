"""The residual sum on the CPU."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.jit import function_address
from refnet_kernels.team import Launch, run_once

SHORTCUT, X, OUT, COUNT = range(4)
#: Numbers of an item.
ITEM = 65536


def launch(count: int, addresses: dict[str, int]) -> Launch:
    """The step ``out = shortcut + x`` over ``count`` numbers, with the addresses of the three."""
    row = [addresses["shortcut"], addresses["x"], addresses["out"], count]
    return Launch(function_address("refnet_kernels.residual.cpu_kernel", "residual_kernel"), -(-count // ITEM), row, 0)


def call(shortcut: Float32Array, x: Float32Array) -> Float32Array:
    """`refnet_kernels.residual` on arrays."""
    shortcut, x = np.ascontiguousarray(shortcut), np.ascontiguousarray(x)
    out = np.empty_like(x)
    operands = {"shortcut": shortcut.ctypes.data, "x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(x.size, operands))
    return out
