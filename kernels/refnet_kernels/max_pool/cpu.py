"""Max pool on the CPU, with the next unit's preact as a second output.

An item is one row of the output; the channels are the fastest loop, which LLVM turns into vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray, Norm, PoolGeometry
from refnet_kernels.jit import function_address
from refnet_kernels.team import Launch, run_once

X, OUT, NEXT_MEAN, NEXT_SCALE, NEXT_BETA, PREACT = range(6)
HEIGHT, WIDTH, CHANNELS, OUT_HEIGHT, OUT_WIDTH, WINDOW, STRIDE, PAD_TOP, PAD_LEFT, ZERO_PADDING = range(6, 16)


def launch(geometry: PoolGeometry, addresses: dict[str, int], dtype: np.dtype[Any] = BINARY32) -> Launch:
    """The step that pools.

    ``addresses`` has ``x``, and ``out`` or ``preact`` (with ``next_mean``, ``next_scale``, ``next_beta``) or both.
    """
    g = geometry
    names = ("x", "out", "next_mean", "next_scale", "next_beta", "preact")
    row = [addresses.get(name, 0) for name in names]
    row += [g.height, g.width, g.channels, g.out_height, g.out_width, g.window, g.stride, g.pad_top, g.pad_left]
    row.append(g.zero_padding)
    kernel = function_address("refnet_kernels.max_pool.cpu_kernel", "max_pool_kernel", dtype.name)
    # The largest so far, a pixel that never wins, and one of zeros.
    scratch = 3 * g.channels * dtype.itemsize
    return Launch(kernel, g.batch * g.out_height, row, scratch)


def call(x: FloatArray, geometry: PoolGeometry, next_norm: Norm | None = None) -> tuple[FloatArray, FloatArray | None]:
    """`refnet_kernels.max_pool` on arrays; with ``next_norm`` also its ReLU(batch norm)."""
    g = geometry
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    preact = None if next_norm is None else np.empty_like(out)
    addresses = {"x": x.ctypes.data, "out": out.ctypes.data}
    if next_norm is not None and preact is not None:
        next_norm = Norm(*(np.ascontiguousarray(values) for values in next_norm))
        addresses |= {f"next_{role}": values.ctypes.data for role, values in next_norm._asdict().items()}
        addresses["preact"] = preact.ctypes.data
    run_once(launch(g, addresses, x.dtype))
    return out, preact
