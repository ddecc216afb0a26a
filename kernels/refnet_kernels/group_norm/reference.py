"""Group norm by its definition."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import FloatArray, norm_scale
from refnet_kernels.exact import fma


@np.errstate(all="ignore")
def group_norm(
    x: FloatArray, gamma: FloatArray | None, beta: FloatArray, groups: int, epsilon: float, relu: bool
) -> FloatArray:
    """``fma(x - mean, scale, beta)``, then optionally ReLU, with statistics of each image's groups of channels.

    Parameters
    ----------
    x : float array [N, H, W, C]
    gamma, beta : float array [C]
        Without a gamma it is 1.
    groups : int
        Divides C.
    epsilon : float
        Added to the variance.
    relu : bool
    """
    batch, height, width, channels = x.shape
    grouped = x.astype(np.float64).reshape(batch, height, width, groups, channels // groups)
    count = np.float64(height * width * (channels // groups))
    mean = _sums(grouped) / count
    deviation = grouped - mean[:, None, None, :, None]
    variance = _sums(deviation * deviation) / count
    scale = norm_scale(_per_channel(variance, channels), gamma, epsilon, x.dtype)
    mean = _per_channel(mean, channels).astype(x.dtype)
    t = fma(x - mean, np.broadcast_to(scale, x.shape), np.broadcast_to(beta, x.shape))
    return np.where(t < 0, t.dtype.type(0), t) if relu else t


def _sums(x: FloatArray) -> FloatArray:
    """Of [N, H, W, groups, channels of a group], [N, groups]: along the rows, over the rows, over the channels."""
    for axis in (2, 1, -1):
        total = np.zeros(np.delete(x.shape, axis))
        for part in np.moveaxis(x, axis, 0):
            total = total + part
        x = total
    return x


def _per_channel(x: FloatArray, channels: int) -> FloatArray:
    """Of [N, groups], [N, 1, 1, channels]."""
    return np.repeat(x, channels // x.shape[1], axis=1)[:, None, None]
