"""The compiled part of the max pool.

An item is one row of the output; the channels are the fastest loop, which LLVM turns into vectors.
"""

from __future__ import annotations

import numpy as np

from refnet_kernels.kernel import kernel
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
    X,
)
from refnet_kernels.memory import floats, fma


@kernel
def max_pool_kernel(step, item, scratch):
    """One row of the output."""
    channels = step[CHANNELS]
    top = item % step[OUT_HEIGHT] * step[STRIDE] - step[PAD_TOP]
    image = item // step[OUT_HEIGHT] * step[HEIGHT]
    largest = floats(scratch)
    for column in range(step[OUT_WIDTH]):
        left = column * step[STRIDE] - step[PAD_LEFT]
        for c in range(channels):
            largest[c] = -np.inf
        for y in range(max(top, 0), min(top + step[WINDOW], step[HEIGHT])):
            for x in range(max(left, 0), min(left + step[WINDOW], step[WIDTH])):
                values = floats(step[X] + ((image + y) * step[WIDTH] + x) * channels * 4)
                for c in range(channels):
                    v = values[c]
                    m = largest[c]
                    largest[c] = v if v > m or v != v else m
        offset = (item * step[OUT_WIDTH] + column) * channels * 4
        if step[OUT] != 0:
            out = floats(step[OUT] + offset)
            for c in range(channels):
                out[c] = largest[c]
        if step[PREACT] != 0:
            preact = floats(step[PREACT] + offset)
            mean, scale, beta = floats(step[NEXT_MEAN]), floats(step[NEXT_SCALE]), floats(step[NEXT_BETA])
            for c in range(channels):
                v = fma(largest[c] - mean[c], scale[c], beta[c])
                preact[c] = np.float32(0) if v < 0 else v
