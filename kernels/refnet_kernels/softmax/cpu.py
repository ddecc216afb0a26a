"""Softmax on the CPU: an item is one row of logits."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.jit import helper, kernel_address
from refnet_kernels.memory import doubles, float_of_bits, floats
from refnet_kernels.softmax import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E, UNDERFLOW
from refnet_kernels.team import Launch, run_once

X, OUT, CLASSES = range(3)


@helper
def _exp(x):
    """The exponential of 0 or less; see the op's contract."""
    if x != x:
        return x
    if x < UNDERFLOW:
        return 0.0
    k = math.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    p = 0.0
    for coefficient in COEFFICIENTS:
        p = p * r + coefficient
    return p * float_of_bits((np.int64(k) + 1023) << 52)


def softmax_kernel(step, item, scratch):
    """One row of logits."""
    classes = step[CLASSES]
    x, out = floats(step[X] + item * classes * 4), floats(step[OUT] + item * classes * 4)
    powers = doubles(scratch)
    largest = -np.inf
    for i in range(classes):
        v = np.float64(x[i])
        largest = v if v > largest else largest
    total = 0.0
    for i in range(classes):
        powers[i] = _exp(np.float64(x[i]) - largest)
        total += powers[i]
    for i in range(classes):
        out[i] = np.float32(powers[i] / total)


def launch(rows: int, classes: int, addresses: dict[str, int]) -> Launch:
    """The step over ``rows`` rows of ``classes`` logits, with the addresses ``x`` and ``out``."""
    row = [addresses["x"], addresses["out"], classes]
    return Launch(kernel_address(softmax_kernel), rows if classes else 0, row, classes * 8)


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.softmax` on arrays."""
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    classes = x.shape[-1]
    run_once(launch(x.size // max(classes, 1), classes, {"x": x.ctypes.data, "out": out.ctypes.data}))
    return out
