"""The compiled part of the residual sum."""

from __future__ import annotations

from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import floats, size_of
from refnet_kernels.residual.cpu import AT, ITEM

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
SHORTCUT = AT.shortcut
X = AT.x
OUT = AT.out
RELU = AT.relu
NUMBERS = AT.numbers


@kernel
def residual_kernel(step, item, scratch, element):
    """``ITEM`` numbers, or the rest."""
    first = item * ITEM
    offset = first * size_of(element)
    shortcut, x = floats(step[SHORTCUT] + offset, element), floats(step[X] + offset, element)
    out = floats(step[OUT] + offset, element)
    count = min(step[NUMBERS] - first, ITEM)
    if step[RELU] != 0:
        for i in range(count):
            v = shortcut[i] + x[i]
            out[i] = element(0) if v < 0 else v
    else:
        for i in range(count):
            out[i] = shortcut[i] + x[i]
