"""The compiled part of group norm."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import doubles, float_of_bits, floats, fma, size_of
from refnet_kernels.group_norm.cpu import AT

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
GAMMA = AT.gamma
BETA = AT.beta
OUT = AT.out
RELU = AT.relu
HEIGHT = AT.height
WIDTH = AT.width
CHANNELS = AT.channels
GROUP_CHANNELS = AT.group_channels
ITEM_CHANNELS = AT.item_channels
IMAGE_ITEMS = AT.image_items
EPSILON_BITS = AT.epsilon_bits


@helper
def _add_row(x, width, pixel_bytes, channels, row, element):
    """Add the pixels of a row to ``row``, channel by channel: four at a time, so that the sums move less."""
    for pixel in range(0, width - 3, 4):
        at = x + pixel * pixel_bytes
        a, b = floats(at, element), floats(at + pixel_bytes, element)
        c, d = floats(at + 2 * pixel_bytes, element), floats(at + 3 * pixel_bytes, element)
        for i in range(channels):
            row[i] = (((row[i] + np.float64(a[i])) + np.float64(b[i])) + np.float64(c[i])) + np.float64(d[i])
    for pixel in range(width // 4 * 4, width):
        a = floats(x + pixel * pixel_bytes, element)
        for i in range(channels):
            row[i] += np.float64(a[i])


@helper
def _square(x, mean):
    deviation = np.float64(x) - mean
    return deviation * deviation


@helper
def _add_squares(x, width, pixel_bytes, channels, mean, row, element):
    """As `_add_row`, of the squared deviations."""
    for pixel in range(0, width - 3, 4):
        at = x + pixel * pixel_bytes
        a, b = floats(at, element), floats(at + pixel_bytes, element)
        c, d = floats(at + 2 * pixel_bytes, element), floats(at + 3 * pixel_bytes, element)
        for i in range(channels):
            m = mean[i]
            row[i] = (((row[i] + _square(a[i], m)) + _square(b[i], m)) + _square(c[i], m)) + _square(d[i], m)
    for pixel in range(width // 4 * 4, width):
        a = floats(x + pixel * pixel_bytes, element)
        for i in range(channels):
            row[i] += _square(a[i], mean[i])


@helper
def _average(total, channels, group_channels, count):
    """Put into each channel's place the sum of its group, over the channels in order, divided by ``count``."""
    for first in range(0, channels, group_channels):
        group = 0.0
        for i in range(first, first + group_channels):
            group += total[i]
        for i in range(first, first + group_channels):
            total[i] = group / count


@kernel
def group_norm_kernel(step, item, scratch, element):
    """``ITEM_CHANNELS`` channels of one image, or the rest."""
    size, most, height, width = size_of(element), step[ITEM_CHANNELS], step[HEIGHT], step[WIDTH]
    pixel_bytes = step[CHANNELS] * size
    image = item // step[IMAGE_ITEMS]
    first = item % step[IMAGE_ITEMS] * most
    channels = min(step[CHANNELS] - first, most)
    offset = image * height * width * pixel_bytes + first * size
    x, out = step[X] + offset, step[OUT] + offset
    count = np.float64(height * width * step[GROUP_CHANNELS])
    mean, variance, row = doubles(scratch), doubles(scratch + most * 8), doubles(scratch + 2 * most * 8)
    for i in range(channels):
        mean[i], variance[i] = 0.0, 0.0
    for y in range(height):
        for i in range(channels):
            row[i] = 0.0
        _add_row(x + y * width * pixel_bytes, width, pixel_bytes, channels, row, element)
        for i in range(channels):
            mean[i] += row[i]
    _average(mean, channels, step[GROUP_CHANNELS], count)
    for y in range(height):
        for i in range(channels):
            row[i] = 0.0
        _add_squares(x + y * width * pixel_bytes, width, pixel_bytes, channels, mean, row, element)
        for i in range(channels):
            variance[i] += row[i]
    _average(variance, channels, step[GROUP_CHANNELS], count)
    # In the format of the images from here on.
    rounded, scale = floats(scratch + 2 * most * 8, element), floats(scratch + 3 * most * 8, element)
    beta, epsilon = floats(step[BETA] + first * size, element), float_of_bits(step[EPSILON_BITS])
    for i in range(channels):
        numerator = np.float64(1)
        if step[GAMMA] != 0:
            numerator = np.float64(floats(step[GAMMA], element)[first + i])
        rounded[i], scale[i] = element(mean[i]), element(numerator / math.sqrt(variance[i] + epsilon))
    for pixel in range(height * width):
        pixel_x, pixel_out = floats(x + pixel * pixel_bytes, element), floats(out + pixel * pixel_bytes, element)
        if step[RELU] != 0:
            for i in range(channels):
                v = fma(pixel_x[i] - rounded[i], scale[i], beta[i])
                pixel_out[i] = element(0) if v < 0 else v
        else:
            for i in range(channels):
                pixel_out[i] = fma(pixel_x[i] - rounded[i], scale[i], beta[i])
