"""Max pool by its definition."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import FloatArray, PoolGeometry


def max_pool(x: FloatArray, geometry: PoolGeometry) -> FloatArray:
    """The largest value of each window of NHWC images; NaN where the window holds one."""
    g = geometry
    out = np.full((g.batch, g.out_height, g.out_width, g.channels), -np.inf, x.dtype)
    for row, column in np.ndindex(g.out_height, g.out_width):
        top, left = row * g.stride - g.pad_top, column * g.stride - g.pad_left
        for y in range(max(top, 0), min(top + g.window, g.height)):
            for x_ in range(max(left, 0), min(left + g.window, g.width)):
                value, largest = x[:, y, x_], out[:, row, column]
                out[:, row, column] = np.where((value > largest) | np.isnan(value), value, largest)
    return out
