"""The global mean on the CPU: an item is `BLOCK` channels of one image."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.jit import kernel_address
from refnet_kernels.memory import doubles, floats
from refnet_kernels.team import Launch, run_once

X, OUT, PIXELS, CHANNELS, BLOCKS = range(5)
#: Channels of an item: 2 KiB of sums, which stay in the first-level cache.
BLOCK = 256


def mean_kernel(step, item, scratch):
    """``BLOCK`` channels of one image, or what is left."""
    channels, pixels = step[CHANNELS], step[PIXELS]
    image = item // step[BLOCKS]
    first = item % step[BLOCKS] * BLOCK
    count = min(channels - first, BLOCK)
    total = doubles(scratch)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[X] + ((image * pixels + pixel) * channels + first) * 4)
        for c in range(count):
            total[c] += np.float64(x[c])
    out = floats(step[OUT] + (image * channels + first) * 4)
    for c in range(count):
        out[c] = np.float32(total[c] / np.float64(pixels))


def launch(batch: int, pixels: int, channels: int, addresses: dict[str, int]) -> Launch:
    """The step that averages ``pixels`` pixels an image, with the addresses ``x`` and ``out``."""
    blocks = -(-channels // BLOCK)
    row = [addresses["x"], addresses["out"], pixels, channels, blocks]
    return Launch(kernel_address(mean_kernel), batch * blocks, row, BLOCK * 8)


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.mean` on arrays."""
    batch, height, width, channels = x.shape
    x = np.ascontiguousarray(x)
    out = np.empty((batch, 1, 1, channels), np.float32)
    run_once(launch(batch, height * width, channels, {"x": x.ctypes.data, "out": out.ctypes.data}))
    return out
