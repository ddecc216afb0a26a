"""Subsampling on the CPU: an item copies one row of the output."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.jit import kernel_address
from refnet_kernels.memory import floats
from refnet_kernels.team import Launch, run_once

X, OUT, HEIGHT, WIDTH, CHANNELS, FACTOR, OUT_HEIGHT, OUT_WIDTH = range(8)


def subsample_kernel(step, item, scratch):
    """One row of the output."""
    channels = step[CHANNELS]
    image = item // step[OUT_HEIGHT]
    y = item % step[OUT_HEIGHT] * step[FACTOR]
    x = floats(step[X] + (image * step[HEIGHT] + y) * step[WIDTH] * channels * 4)
    out = floats(step[OUT] + item * step[OUT_WIDTH] * channels * 4)
    for column in range(step[OUT_WIDTH]):
        source = column * step[FACTOR] * channels
        for c in range(channels):
            out[column * channels + c] = x[source + c]


def launch(batch: int, height: int, width: int, channels: int, factor: int, addresses: dict[str, int]) -> Launch:
    """The step ``out = x[:, ::factor, ::factor]``, with the addresses ``x`` and ``out``."""
    out_height, out_width = -(-height // factor), -(-width // factor)
    row = [addresses["x"], addresses["out"], height, width, channels, factor, out_height, out_width]
    return Launch(kernel_address(subsample_kernel), batch * out_height, row, 0)


def call(x: Float32Array, factor: int) -> Float32Array:
    """`refnet_kernels.subsample` on arrays."""
    batch, height, width, channels = x.shape
    x = np.ascontiguousarray(x)
    out = np.empty((batch, -(-height // factor), -(-width // factor), channels), np.float32)
    run_once(launch(batch, height, width, channels, factor, {"x": x.ctypes.data, "out": out.ctypes.data}))
    return out
