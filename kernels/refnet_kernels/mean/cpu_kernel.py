"""The compiled part of the global mean."""

from __future__ import annotations

import numpy as np

from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import doubles, floats, size_of
from refnet_kernels.mean.cpu import AT, BLOCK

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
OUT = AT.out
PIXELS = AT.pixels
CHANNELS = AT.channels
BLOCKS = AT.blocks


@kernel
def mean_kernel(step, item, scratch, element):
    """``BLOCK`` channels of one image, or the rest."""
    channels, pixels, size = step[CHANNELS], step[PIXELS], size_of(element)
    image = item // step[BLOCKS]
    first = item % step[BLOCKS] * BLOCK
    count = min(channels - first, BLOCK)
    total = doubles(scratch)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[X] + ((image * pixels + pixel) * channels + first) * size, element)
        for c in range(count):
            total[c] += np.float64(x[c])
    out = floats(step[OUT] + (image * channels + first) * size, element)
    for c in range(count):
        out[c] = element(total[c] / np.float64(pixels))
