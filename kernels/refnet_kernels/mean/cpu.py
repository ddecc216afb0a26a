"""The global mean on the CPU: an item is `BLOCK` channels of one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

X, OUT, PIXELS, CHANNELS, BLOCKS = range(5)
#: Channels of an item: 2 KiB of sums, which stay in the first-level cache.
BLOCK = 256


def launch(
    batch: int, pixels: int, channels: int, addresses: dict[str, int], dtype: np.dtype[Any] = BINARY32
) -> Launch:
    """The step that averages ``pixels`` pixels an image, with the addresses ``x`` and ``out``."""
    blocks = -(-channels // BLOCK)
    row = [addresses["x"], addresses["out"], pixels, channels, blocks]
    kernel = function_address("refnet_kernels.mean.cpu_kernel", "mean_kernel", dtype.name)
    return Launch(kernel, batch * blocks, row, BLOCK * 8)


def call(x: FloatArray) -> FloatArray:
    """`refnet_kernels.mean` on arrays."""
    batch, height, width, channels = x.shape
    x = np.ascontiguousarray(x)
    out = np.empty((batch, 1, 1, channels), x.dtype)
    operands = {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(batch, height * width, channels, operands, x.dtype))
    return out
