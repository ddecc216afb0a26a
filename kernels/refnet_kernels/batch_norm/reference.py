"""Batch norm by its definition."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import FloatArray, Norm, norm_scale
from refnet_kernels.exact import fma


@np.errstate(all="ignore")
def batch_norm(x: FloatArray, norm: Norm, relu: bool) -> FloatArray:
    """``fma(x - mean, scale, beta)``, then optionally ReLU, over the channels of the last axis."""
    t = fma(x - norm.mean, np.broadcast_to(norm.scale, x.shape), np.broadcast_to(norm.beta, x.shape))
    return np.where(t < 0, t.dtype.type(0), t) if relu else t


@np.errstate(all="ignore")
def batch_statistics(x: FloatArray, gamma: FloatArray | None, epsilon: float) -> tuple[FloatArray, FloatArray]:
    """Mean and scale of a batch: two passes of binary64 sums in the order of the pixels.

    Returns
    -------
    mean : float array [channels]
    scale : float array [channels]
        ``gamma / sqrt(variance + epsilon)``, with the biased variance.
    """
    pixels = x.reshape(-1, x.shape[-1]).astype(np.float64)
    total = np.zeros(x.shape[-1])
    for pixel in pixels:
        total = total + pixel
    mean = total / len(pixels)
    squares = np.zeros_like(mean)
    for pixel in pixels:
        squares = squares + (pixel - mean) * (pixel - mean)
    return mean.astype(x.dtype), norm_scale(squares / len(pixels), gamma, epsilon, x.dtype)
