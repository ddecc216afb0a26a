"""Convolution by its definition, in NumPy: rule A1 of the contract, one line per clause."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import RUN, ConvGeometry, FloatArray
from refnet_kernels.exact import fma


@np.errstate(all="ignore")
def conv(x: FloatArray, weights: FloatArray, geometry: ConvGeometry, bias: FloatArray | None = None) -> FloatArray:
    """Convolve NHWC images with an HWIO kernel.

    Parameters
    ----------
    x : float array [batch, height, width, channels]
    weights : float array [kernel_height, kernel_width, channels, out_channels]
    geometry : ConvGeometry
    bias : float array [out_channels], optional

    Returns
    -------
    float array [batch, out_height, out_width, out_channels]
    """
    g = geometry
    padded = np.zeros((g.batch, *_padded_size(g), g.channels), x.dtype)
    padded[:, g.pad_top : g.pad_top + g.height, g.pad_left : g.pad_left + g.width] = x
    t = np.zeros((g.batch, g.out_height, g.out_width, g.out_channels), x.dtype)
    s = np.zeros_like(t)
    for k, (kh, kw, c) in enumerate(np.ndindex(g.kernel_height, g.kernel_width, g.channels)):
        if k and k % RUN == 0:
            t, s = t + s, np.zeros_like(s)
        rows = slice(kh * g.rate, kh * g.rate + (g.out_height - 1) * g.stride + 1, g.stride)
        columns = slice(kw * g.rate, kw * g.rate + (g.out_width - 1) * g.stride + 1, g.stride)
        s = fma(padded[:, rows, columns, c, None], weights[kh, kw, c], s)
    t = t + s
    return t if bias is None else t + bias


def _padded_size(g: ConvGeometry) -> tuple[int, int]:
    """Rows and columns that the taps of the last output reach, the whole image included."""
    rows = (g.out_height - 1) * g.stride + (g.kernel_height - 1) * g.rate + 1
    columns = (g.out_width - 1) * g.stride + (g.kernel_width - 1) * g.rate + 1
    return max(rows, g.pad_top + g.height), max(columns, g.pad_left + g.width)
