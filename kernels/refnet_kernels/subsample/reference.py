"""Subsampling by its definition."""

from __future__ import annotations

from refnet_kernels.contract import FloatArray


def subsample(x: FloatArray, factor: int) -> FloatArray:
    """Every ``factor``-th row and column of NHWC images."""
    return x[:, ::factor, ::factor].copy()
