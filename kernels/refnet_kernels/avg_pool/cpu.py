"""Average pool on the CPU.

An item is one row of the output; the channels are the fastest loop, which LLVM turns into vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray, PoolGeometry
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

X, OUT, HEIGHT, WIDTH, CHANNELS, OUT_HEIGHT, OUT_WIDTH, WINDOW, STRIDE, PAD_TOP, PAD_LEFT, ZERO_PADDING = range(12)


def launch(geometry: PoolGeometry, addresses: dict[str, int], dtype: np.dtype[Any] = BINARY32) -> Launch:
    """The step that pools, with the addresses ``x`` and ``out``."""
    g = geometry
    row = [addresses["x"], addresses["out"], *g[1:]]
    kernel = function_address("refnet_kernels.avg_pool.cpu_kernel", "avg_pool_kernel", dtype.name)
    return Launch(kernel, g.batch * g.out_height, row, g.channels * 8)


def call(x: FloatArray, geometry: PoolGeometry) -> FloatArray:
    """`refnet_kernels.avg_pool` on arrays."""
    g = geometry
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    run_once(launch(g, {"x": x.ctypes.data, "out": out.ctypes.data}, x.dtype))
    return out
