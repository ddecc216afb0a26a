"""Average pool by its definition."""

from __future__ import annotations

import itertools

import numpy as np

from refnet_kernels.contract import FloatArray, PoolGeometry


@np.errstate(all="ignore")
def avg_pool(x: FloatArray, geometry: PoolGeometry) -> FloatArray:
    """The mean of each window of NHWC images."""
    g = geometry
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    for row, column in np.ndindex(g.out_height, g.out_width):
        top, left = row * g.stride - g.pad_top, column * g.stride - g.pad_left
        total, count = np.zeros((g.batch, g.channels)), 0
        for y, x_ in itertools.product(range(top, top + g.window), range(left, left + g.window)):
            inside = 0 <= y < g.height and 0 <= x_ < g.width
            if inside:
                total = total + x[:, y, x_].astype(np.float64)
            count += inside or g.zero_padding
        out[:, row, column] = total / count
    return out
