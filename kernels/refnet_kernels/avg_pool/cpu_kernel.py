"""The compiled part of the average pool."""

from __future__ import annotations

import numpy as np

from refnet_kernels.avg_pool.cpu import AT
from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import doubles, floats, size_of

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
OUT = AT.out
HEIGHT = AT.height
WIDTH = AT.width
CHANNELS = AT.channels
OUT_HEIGHT = AT.out_height
OUT_WIDTH = AT.out_width
WINDOW = AT.window
STRIDE = AT.stride
PAD_TOP = AT.pad_top
PAD_LEFT = AT.pad_left
ZERO_PADDING = AT.zero_padding


@helper
def _inside(first, window, size):
    """The part of a window inside the image, as its begin and its end; they are equal if there is none."""
    begin = min(max(first, 0), size)
    return begin, max(min(first + window, size), begin)


@kernel
def avg_pool_kernel(step, item, scratch, element):
    """One row of the output."""
    channels = step[CHANNELS]
    pixel_bytes = channels * size_of(element)
    top, bottom = _inside(item % step[OUT_HEIGHT] * step[STRIDE] - step[PAD_TOP], step[WINDOW], step[HEIGHT])
    image = item // step[OUT_HEIGHT] * step[HEIGHT]
    total = doubles(scratch)
    for column in range(step[OUT_WIDTH]):
        left, right = _inside(column * step[STRIDE] - step[PAD_LEFT], step[WINDOW], step[WIDTH])
        for c in range(channels):
            total[c] = 0.0
        for y in range(top, bottom):
            for x in range(left, right):
                pixel = floats(step[X] + ((image + y) * step[WIDTH] + x) * pixel_bytes, element)
                for c in range(channels):
                    total[c] += np.float64(pixel[c])
        # The zeros outside do not change the sum: it begins with +0, so it is never -0.
        count = step[WINDOW] * step[WINDOW] if step[ZERO_PADDING] != 0 else (bottom - top) * (right - left)
        out = floats(step[OUT] + (item * step[OUT_WIDTH] + column) * pixel_bytes, element)
        for c in range(channels):
            out[c] = element(total[c] / np.float64(count))
