"""The compiled part of the average pool."""

from __future__ import annotations

import numpy as np

from refnet_kernels.avg_pool.cpu import AT
from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import doubles, floats, size_of


@helper
def _inside(first, window, size):
    """The part of a window that lies inside the image: where it begins and ends; of nothing, the same place."""
    begin = min(max(first, 0), size)
    return begin, max(min(first + window, size), begin)


@kernel
def avg_pool_kernel(step, item, scratch, element):
    """One row of the output."""
    channels = step[AT.channels]
    pixel_bytes = channels * size_of(element)
    top, bottom = _inside(
        item % step[AT.out_height] * step[AT.stride] - step[AT.pad_top], step[AT.window], step[AT.height]
    )
    image = item // step[AT.out_height] * step[AT.height]
    total = doubles(scratch)
    for column in range(step[AT.out_width]):
        left, right = _inside(column * step[AT.stride] - step[AT.pad_left], step[AT.window], step[AT.width])
        for c in range(channels):
            total[c] = 0.0
        for y in range(top, bottom):
            for x in range(left, right):
                pixel = floats(step[AT.x] + ((image + y) * step[AT.width] + x) * pixel_bytes, element)
                for c in range(channels):
                    total[c] += np.float64(pixel[c])
        # The zeros outside leave the sum alone: it begins with +0, so that it is never -0.
        count = step[AT.window] * step[AT.window] if step[AT.zero_padding] != 0 else (bottom - top) * (right - left)
        out = floats(step[AT.out] + (item * step[AT.out_width] + column) * pixel_bytes, element)
        for c in range(channels):
            out[c] = element(total[c] / np.float64(count))
