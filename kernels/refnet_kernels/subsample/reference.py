"""Subsampling by its definition."""

from __future__ import annotations

from refnet_kernels.contract import Float32Array


def subsample(x: Float32Array, factor: int) -> Float32Array:
    """Every ``factor``-th row and column of NHWC images."""
    return x[:, ::factor, ::factor].copy()
