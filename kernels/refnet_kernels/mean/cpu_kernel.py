"""The compiled part of the global mean."""

from __future__ import annotations

import numpy as np

from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import doubles, floats, size_of
from refnet_kernels.mean.cpu import AT, BLOCK


@kernel
def mean_kernel(step, item, scratch, element):
    """``BLOCK`` channels of one image, or what is left."""
    channels, pixels, size = step[AT.channels], step[AT.pixels], size_of(element)
    image = item // step[AT.blocks]
    first = item % step[AT.blocks] * BLOCK
    count = min(channels - first, BLOCK)
    total = doubles(scratch)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[AT.x] + ((image * pixels + pixel) * channels + first) * size, element)
        for c in range(count):
            total[c] += np.float64(x[c])
    out = floats(step[AT.out] + (image * channels + first) * size, element)
    for c in range(count):
        out[c] = element(total[c] / np.float64(pixels))
