"""The compiled part of group norm."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import doubles, float_of_bits, floats, fma, size_of
from refnet_kernels.cpu.tile import (
    CLOSE_ROWS,
    add_squares,
    add_tiles,
    load_tile,
    load_wide,
    normalize,
    relu_tile,
    scale_rows,
    store_tile,
    zero_tile,
)
from refnet_kernels.group_norm.cpu import AT
from refnet_kernels.target import WIDTH_BYTES

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

#: Tiles of sums, whose rows are channels, too.
FOUR_ROWS, ONE_ROW = CLOSE_ROWS[:4], CLOSE_ROWS[:1]
#: Sums in a tile's row.
ROW_SUMS = WIDTH_BYTES // 8
#: Pixels of a tile of outputs, whose rows are pixels.
TILE_PIXELS = 4
PIXELS, ONE_PIXEL = tuple(range(TILE_PIXELS)), (0,)


@helper
def _sum_tile(x, height, width, pixel_bytes, rows, mean, squares, total, element):
    """A tile of `_sum`, whose rows are channels."""
    middle = load_tile(mean, rows, np.float64)
    sums = zero_tile(rows, np.float64)
    for _ in range(height):
        row = zero_tile(rows, np.float64)
        for _ in range(width):
            values = load_wide(x, rows, element)
            row = add_squares(row, values, middle) if squares else add_tiles(row, values)
            x += pixel_bytes
        sums = add_tiles(sums, row)
    store_tile(sums, total, rows)


@helper
def _sum(x, height, width, pixel_bytes, channels, mean, squares, total, element):
    """The sum of each channel, put at ``total``: of its numbers, or of their squared deviations from its mean."""
    size, i = size_of(element), 0
    while i + 4 * ROW_SUMS <= channels:
        at, row_mean, row_total = x + i * size, mean + i * 8, total + i * 8
        _sum_tile(at, height, width, pixel_bytes, FOUR_ROWS, row_mean, squares, row_total, element)
        i += 4 * ROW_SUMS
    while i + ROW_SUMS <= channels:
        at, row_mean, row_total = x + i * size, mean + i * 8, total + i * 8
        _sum_tile(at, height, width, pixel_bytes, ONE_ROW, row_mean, squares, row_total, element)
        i += ROW_SUMS
    for channel in range(i, channels):
        at, sums = x + channel * size, 0.0
        for _ in range(height):
            row = 0.0
            for _ in range(width):
                value = np.float64(floats(at, element)[0])
                if squares:
                    deviation = value - doubles(mean)[channel]
                    value = deviation * deviation
                row += value
                at += pixel_bytes
            sums += row
        doubles(total)[channel] = sums


@helper
def _sum_groups(total, groups, group_channels, sums):
    """The sum over each group's channels: four groups at once, as each addition waits for the one before."""
    for group in range(0, groups - 3, 4):
        a = b = c = d = 0.0
        i = group * group_channels
        for channel in range(i, i + group_channels):
            a += total[channel]
            b += total[channel + group_channels]
            c += total[channel + 2 * group_channels]
            d += total[channel + 3 * group_channels]
        sums[group], sums[group + 1], sums[group + 2], sums[group + 3] = a, b, c, d
    for group in range(groups // 4 * 4, groups):
        a = 0.0
        for channel in range(group * group_channels, (group + 1) * group_channels):
            a += total[channel]
        sums[group] = a


@helper
def _normalize(x, out, pixel_bytes, pixels, channels, mean, scale, beta, relu, element):
    """Some pixels, which are the rows of a tile."""
    size = size_of(element)
    rows = scale_rows(pixels, pixel_bytes)
    width = WIDTH_BYTES // size
    for i in range(0, channels - width + 1, width):
        at = i * size
        t = normalize(load_tile(x + at, rows, element), mean + at, scale + at, beta + at)
        if relu != 0:
            t = relu_tile(t)
        store_tile(t, out + at, rows)
    for row in rows:
        for i in range(channels // width * width, channels):
            means, scales, betas = floats(mean, element), floats(scale, element), floats(beta, element)
            v = fma(floats(x + row, element)[i] - means[i], scales[i], betas[i])
            floats(out + row, element)[i] = element(0) if relu != 0 and v < 0 else v


@kernel
def group_norm_kernel(step, item, scratch, element):
    """``ITEM_CHANNELS`` channels of one image, or the rest."""
    most, each, height, width = step[ITEM_CHANNELS], step[GROUP_CHANNELS], step[HEIGHT], step[WIDTH]
    pixel_bytes, pixels = step[CHANNELS] * size_of(element), height * width
    first = item % step[IMAGE_ITEMS] * most
    channels = min(step[CHANNELS] - first, most)
    groups, count, epsilon = channels // each, np.float64(pixels * each), float_of_bits(step[EPSILON_BITS])
    offset = item // step[IMAGE_ITEMS] * pixels * pixel_bytes + first * size_of(element)
    x, out = step[X] + offset, step[OUT] + offset
    mean, total, sums = scratch, scratch + most * 8, scratch + 2 * most * 8
    rounded, scale = scratch + 3 * most * 8, scratch + 4 * most * 8

    _sum(x, height, width, pixel_bytes, channels, mean, False, total, element)
    _sum_groups(doubles(total), groups, each, doubles(sums))
    for group in range(groups):
        average = doubles(sums)[group] / count
        for i in range(group * each, (group + 1) * each):
            doubles(mean)[i] = average
            floats(rounded, element)[i] = element(average)

    _sum(x, height, width, pixel_bytes, channels, mean, True, total, element)
    _sum_groups(doubles(total), groups, each, doubles(sums))
    for group in range(groups):
        deviation = math.sqrt(doubles(sums)[group] / count + epsilon)
        for i in range(group * each, (group + 1) * each):
            numerator = np.float64(1)
            if step[GAMMA] != 0:
                numerator = np.float64(floats(step[GAMMA], element)[first + i])
            floats(scale, element)[i] = element(numerator / deviation)

    beta, relu, many = step[BETA] + first * size_of(element), step[RELU], pixels // TILE_PIXELS * TILE_PIXELS
    for pixel in range(0, many, TILE_PIXELS):
        at = pixel * pixel_bytes
        _normalize(x + at, out + at, pixel_bytes, PIXELS, channels, rounded, scale, beta, relu, element)
    for pixel in range(many, pixels):
        at = pixel * pixel_bytes
        _normalize(x + at, out + at, pixel_bytes, ONE_PIXEL, channels, rounded, scale, beta, relu, element)
