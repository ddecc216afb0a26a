"""The compiled part of softmax."""

from __future__ import annotations

import math

import numpy as np

from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import doubles, float_of_bits, floats, size_of
from refnet_kernels.softmax import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E, UNDERFLOW
from refnet_kernels.softmax.cpu import AT

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
OUT = AT.out
CLASSES = AT.classes


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


@kernel
def softmax_kernel(step, item, scratch, element):
    """One row of logits."""
    classes = step[CLASSES]
    offset = item * classes * size_of(element)
    x, out = floats(step[X] + offset, element), floats(step[OUT] + offset, element)
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
        out[i] = element(powers[i] / total)
