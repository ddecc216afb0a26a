"""The compiled part of batch norm and of the statistics of a batch."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.batch_norm.cpu import AT, BLOCK, STATISTICS_AT
from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import doubles, float_of_bits, floats, fma, size_of

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
MEAN = AT.mean
SCALE = AT.scale
BETA = AT.beta
OUT = AT.out
RELU = AT.relu
PIXELS = AT.pixels
CHANNELS = AT.channels
ITEM_PIXELS = AT.item_pixels
STATISTICS_X = STATISTICS_AT.x
STATISTICS_MEAN = STATISTICS_AT.mean
STATISTICS_SCALE = STATISTICS_AT.scale
STATISTICS_GAMMA = STATISTICS_AT.gamma
STATISTICS_EPSILON_BITS = STATISTICS_AT.epsilon_bits
STATISTICS_PIXELS = STATISTICS_AT.pixels
STATISTICS_CHANNELS = STATISTICS_AT.channels


@kernel
def batch_norm_kernel(step, item, scratch, element):
    """``ITEM_PIXELS`` pixels, or the rest."""
    channels = step[CHANNELS]
    pixel_bytes = channels * size_of(element)
    mean, scale, beta = floats(step[MEAN], element), floats(step[SCALE], element), floats(step[BETA], element)
    first = item * step[ITEM_PIXELS]
    for pixel in range(first, min(first + step[ITEM_PIXELS], step[PIXELS])):
        x, out = floats(step[X] + pixel * pixel_bytes, element), floats(step[OUT] + pixel * pixel_bytes, element)
        if step[RELU] != 0:
            for c in range(channels):
                v = fma(x[c] - mean[c], scale[c], beta[c])
                out[c] = element(0) if v < 0 else v
        else:
            for c in range(channels):
                out[c] = fma(x[c] - mean[c], scale[c], beta[c])


@kernel
def batch_statistics_kernel(step, item, scratch, element):
    """The mean and the scale of ``BLOCK`` channels, or of the rest."""
    channels, pixels = step[STATISTICS_CHANNELS], step[STATISTICS_PIXELS]
    first = item * BLOCK
    count = min(channels - first, BLOCK)
    size = size_of(element)
    mean, total = doubles(scratch), doubles(scratch + BLOCK * 8)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[STATISTICS_X] + (pixel * channels + first) * size, element)
        for c in range(count):
            total[c] += np.float64(x[c])
    for c in range(count):
        mean[c] = total[c] / np.float64(pixels)
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[STATISTICS_X] + (pixel * channels + first) * size, element)
        for c in range(count):
            deviation = np.float64(x[c]) - mean[c]
            total[c] += deviation * deviation
    epsilon = float_of_bits(step[STATISTICS_EPSILON_BITS])
    out_mean, out_scale = (
        floats(step[STATISTICS_MEAN] + first * size, element),
        floats(step[STATISTICS_SCALE] + first * size, element),
    )
    for c in range(count):
        numerator = np.float64(1)
        if step[STATISTICS_GAMMA] != 0:
            numerator = np.float64(floats(step[STATISTICS_GAMMA], element)[first + c])
        out_mean[c] = element(mean[c])
        out_scale[c] = element(numerator / math.sqrt(total[c] / np.float64(pixels) + epsilon))
