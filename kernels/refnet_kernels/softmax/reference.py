"""Softmax by its definition, with an exp of the project's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refnet_kernels.contract import FloatArray
from refnet_kernels.softmax import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E, UNDERFLOW


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponential of numbers that are 0 or less, NaN for NaN; see the op's contract."""
    inside = np.where(x >= UNDERFLOW, x, 0.0)
    k = np.floor(inside * LOG2_E + 0.5)
    r = (inside - k * LN2_HIGH) - k * LN2_LOW
    p = np.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        p = p * r + coefficient
    power = np.ldexp(p, k.astype(np.int64))
    return np.where(np.isnan(x), x, np.where(x < UNDERFLOW, 0.0, power))


@np.errstate(all="ignore")
def softmax(x: FloatArray) -> FloatArray:
    """Softmax over the last axis."""
    values = x.astype(np.float64)
    largest = np.full(x.shape[:-1], -np.inf)
    for index in range(x.shape[-1]):
        largest = np.where(values[..., index] > largest, values[..., index], largest)
    powers = exp(values - largest[..., None])
    total = np.zeros(x.shape[:-1])
    for index in range(x.shape[-1]):
        total = total + powers[..., index]
    return (powers / total[..., None]).astype(x.dtype)
