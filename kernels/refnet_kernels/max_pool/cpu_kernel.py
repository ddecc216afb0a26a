"""The compiled part of the max pool.

An item is one row of the output; the channels are the fastest loop, which LLVM turns into vectors.
"""

from __future__ import annotations

import numpy as np

from refnet_kernels.kernel import helper, kernel
from refnet_kernels.max_pool.cpu import (
    CHANNELS,
    HEIGHT,
    NEXT_BETA,
    NEXT_MEAN,
    NEXT_SCALE,
    OUT,
    OUT_HEIGHT,
    OUT_WIDTH,
    PAD_LEFT,
    PAD_TOP,
    PREACT,
    STRIDE,
    WIDTH,
    WINDOW,
    ZERO_PADDING,
    X,
)
from refnet_kernels.memory import floats, fma, size_of


@helper
def _larger(m, v):
    """``v`` where it is larger or NaN; the first of equals stays."""
    return v if v > m or v != v else m


@helper
def _take_in(largest, first, second, third, channels, element):
    """Take three pixels of the window in, in this order. One at a time, loads and stores of ``largest`` would rule."""
    a, b, c = floats(first, element), floats(second, element), floats(third, element)
    for i in range(channels):
        largest[i] = _larger(_larger(_larger(largest[i], a[i]), b[i]), c[i])


@helper
def _pixel(step, image, y, x, outside, pixel_bytes):
    """The address of a pixel of the image whose first row is ``image``, or ``outside``."""
    inside = 0 <= y < step[HEIGHT] and 0 <= x < step[WIDTH]
    return step[X] + ((image + y) * step[WIDTH] + x) * pixel_bytes if inside else outside


@kernel
def max_pool_kernel(step, item, scratch, element):
    """One row of the output."""
    channels = step[CHANNELS]
    pixel_bytes = channels * size_of(element)
    top = item % step[OUT_HEIGHT] * step[STRIDE] - step[PAD_TOP]
    image = item // step[OUT_HEIGHT] * step[HEIGHT]
    nothing = scratch + pixel_bytes
    outside = nothing + pixel_bytes if step[ZERO_PADDING] else nothing
    largest, lowest = floats(scratch, element), floats(nothing, element)
    zeros = floats(nothing + pixel_bytes, element)
    for c in range(channels):
        lowest[c] = -np.inf
        zeros[c] = 0
    for column in range(step[OUT_WIDTH]):
        left = column * step[STRIDE] - step[PAD_LEFT]
        right = left + step[WINDOW]
        for c in range(channels):
            largest[c] = -np.inf
        for y in range(top, top + step[WINDOW]):
            for x in range(left, right, 3):
                first = _pixel(step, image, y, x, outside, pixel_bytes)
                second = _pixel(step, image, y, x + 1, outside, pixel_bytes) if x + 1 < right else nothing
                third = _pixel(step, image, y, x + 2, outside, pixel_bytes) if x + 2 < right else nothing
                _take_in(largest, first, second, third, channels, element)
        offset = (item * step[OUT_WIDTH] + column) * pixel_bytes
        if step[OUT] != 0:
            out = floats(step[OUT] + offset, element)
            for c in range(channels):
                out[c] = largest[c]
        if step[PREACT] != 0:
            preact = floats(step[PREACT] + offset, element)
            mean, scale = floats(step[NEXT_MEAN], element), floats(step[NEXT_SCALE], element)
            beta = floats(step[NEXT_BETA], element)
            for c in range(channels):
                v = fma(largest[c] - mean[c], scale[c], beta[c])
                preact[c] = element(0) if v < 0 else v
