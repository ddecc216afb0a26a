"""The compiled part of batch norm and of the statistics of a batch."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.batch_norm.cpu import AT, BLOCK, STATISTICS_AT
from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import doubles, float_of_bits, floats, fma, size_of


@kernel
def batch_norm_kernel(step, item, scratch, element):
    """``ITEM_PIXELS`` pixels, or what is left."""
    channels = step[AT.channels]
    pixel_bytes = channels * size_of(element)
    mean, scale, beta = floats(step[AT.mean], element), floats(step[AT.scale], element), floats(step[AT.beta], element)
    first = item * step[AT.item_pixels]
    for pixel in range(first, min(first + step[AT.item_pixels], step[AT.pixels])):
        x, out = floats(step[AT.x] + pixel * pixel_bytes, element), floats(step[AT.out] + pixel * pixel_bytes, element)
        if step[AT.relu] != 0:
            for c in range(channels):
                v = fma(x[c] - mean[c], scale[c], beta[c])
                out[c] = element(0) if v < 0 else v
        else:
            for c in range(channels):
                out[c] = fma(x[c] - mean[c], scale[c], beta[c])


@kernel
def batch_statistics_kernel(step, item, scratch, element):
    """The mean and the scale of ``BLOCK`` channels, or of what is left."""
    channels, pixels = step[STATISTICS_AT.channels], step[STATISTICS_AT.pixels]
    first = item * BLOCK
    count = min(channels - first, BLOCK)
    size = size_of(element)
    mean, total = doubles(scratch), doubles(scratch + BLOCK * 8)
    for c in range(count):
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[STATISTICS_AT.x] + (pixel * channels + first) * size, element)
        for c in range(count):
            total[c] += np.float64(x[c])
    for c in range(count):
        mean[c] = total[c] / np.float64(pixels)
        total[c] = 0.0
    for pixel in range(pixels):
        x = floats(step[STATISTICS_AT.x] + (pixel * channels + first) * size, element)
        for c in range(count):
            deviation = np.float64(x[c]) - mean[c]
            total[c] += deviation * deviation
    epsilon = float_of_bits(step[STATISTICS_AT.epsilon_bits])
    out_mean, out_scale = (
        floats(step[STATISTICS_AT.mean] + first * size, element),
        floats(step[STATISTICS_AT.scale] + first * size, element),
    )
    for c in range(count):
        numerator = np.float64(1)
        if step[STATISTICS_AT.gamma] != 0:
            numerator = np.float64(floats(step[STATISTICS_AT.gamma], element)[first + c])
        out_mean[c] = element(mean[c])
        out_scale[c] = element(numerator / math.sqrt(total[c] / np.float64(pixels) + epsilon))
