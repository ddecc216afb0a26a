"""Max pool by its definition."""

from __future__ import annotations

import itertools

import numpy as np

from refnet_kernels.contract import FloatArray, PoolGeometry


def max_pool(x: FloatArray, geometry: PoolGeometry) -> FloatArray:
    """The largest value of each window of NHWC images; NaN if the window contains one."""
    g = geometry
    outside = np.zeros((g.batch, g.channels), x.dtype)
    out = np.full((g.batch, g.out_height, g.out_width, g.channels), -np.inf, x.dtype)
    for row, column in np.ndindex(g.out_height, g.out_width):
        top, left = row * g.stride - g.pad_top, column * g.stride - g.pad_left
        for y, x_ in itertools.product(range(top, top + g.window), range(left, left + g.window)):
            inside = 0 <= y < g.height and 0 <= x_ < g.width
            if inside or g.zero_padding:
                value, largest = x[:, y, x_] if inside else outside, out[:, row, column]
                out[:, row, column] = np.where((value > largest) | np.isnan(value), value, largest)
    return out
