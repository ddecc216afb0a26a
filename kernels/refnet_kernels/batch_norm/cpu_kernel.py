"""The compiled part of batch norm and of the statistics of a batch."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.batch_norm.cpu import (
    BETA,
    BLOCK,
    CHANNELS,
    EPSILON,
    GAMMA,
    ITEM_PIXELS,
    MEAN,
    OUT,
    PIXELS,
    RELU,
    SCALE,
    X,
)
from refnet_kernels.kernel import kernel
from refnet_kernels.memory import doubles, float_of_bits, floats, fma


@kernel
def batch_norm_kernel(step, item, scratch):
    """``ITEM_PIXELS`` pixels, or what is left."""
    channels = step[CHANNELS]
    mean, scale, beta = floats(step[MEAN]), floats(step[SCALE]), floats(step[BETA])
    first = item * step[ITEM_PIXELS]
    for pixel in range(first, min(first + step[ITEM_PIXELS], step[PIXELS])):
        x, out = floats(step[X] + pixel * channels * 4), floats(step[OUT] + pixel * channels * 4)
        if step[RELU] != 0:
            for c in range(channels):
                v = fma(x[c] - mean[c], scale[c], beta[c])
                out[c] = np.float32(0) if v < 0 else v
        else:
            for c in range(channels):
                out[c] = fma(x[c] - mean[c], scale[c], beta[c])


@kernel
def batch_statistics_kernel(step, item, scratch):
    """The mean and the scale of ``BLOCK`` channels, or of what is left."""
    channels, pixels = step[CHANNELS], step[PIXELS]
    first = item * BLOCK
    count = min(channels - first, BLOCK)
    mean, total = doubles(scratch), doubles(scratch + BLOCK * 8)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[X] + (pixel * channels + first) * 4)
        for c in range(count):
            total[c] += np.float64(x[c])
    for c in range(count):
        mean[c] = total[c] / np.float64(pixels)
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[X] + (pixel * channels + first) * 4)
        for c in range(count):
            deviation = np.float64(x[c]) - mean[c]
            total[c] += deviation * deviation
    epsilon = float_of_bits(step[EPSILON])
    out_mean, out_scale = floats(step[MEAN] + first * 4), floats(step[SCALE] + first * 4)
    for c in range(count):
        numerator = np.float64(1)
        if step[GAMMA] != 0:
            numerator = np.float64(floats(step[GAMMA])[first + c])
        out_mean[c] = np.float32(mean[c])
        out_scale[c] = np.float32(numerator / math.sqrt(total[c] / np.float64(pixels) + epsilon))
