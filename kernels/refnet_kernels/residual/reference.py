"""The residual sum by its definition."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import FloatArray


@np.errstate(all="ignore")
def residual(shortcut: FloatArray, x: FloatArray, relu: bool = False) -> FloatArray:
    """``shortcut + x``, element by element, then optionally ReLU."""
    t = shortcut + x
    return np.where(t < 0, t.dtype.type(0), t) if relu else t
