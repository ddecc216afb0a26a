"""Subsampling on the CPU: an item copies one row of the output."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

X, OUT, HEIGHT, WIDTH, CHANNELS, FACTOR, OUT_HEIGHT, OUT_WIDTH = range(8)


def launch(
    batch: int,
    height: int,
    width: int,
    channels: int,
    factor: int,
    addresses: dict[str, int],
    dtype: np.dtype[Any] = BINARY32,
) -> Launch:
    """The step ``out = x[:, ::factor, ::factor]``, with the addresses ``x`` and ``out``."""
    out_height, out_width = -(-height // factor), -(-width // factor)
    row = [addresses["x"], addresses["out"], height, width, channels, factor, out_height, out_width]
    kernel = function_address("refnet_kernels.subsample.cpu_kernel", "subsample_kernel", dtype.name)
    return Launch(kernel, batch * out_height, row, 0)


def call(x: FloatArray, factor: int) -> FloatArray:
    """`refnet_kernels.subsample` on arrays."""
    batch, height, width, channels = x.shape
    x = np.ascontiguousarray(x)
    out = np.empty((batch, -(-height // factor), -(-width // factor), channels), x.dtype)
    operands = {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(batch, height, width, channels, factor, operands, x.dtype))
    return out
