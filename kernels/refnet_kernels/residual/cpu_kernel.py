"""The compiled part of the residual sum."""

from __future__ import annotations

from refnet_kernels.kernel import kernel
from refnet_kernels.memory import floats
from refnet_kernels.residual.cpu import COUNT, ITEM, OUT, SHORTCUT, X


@kernel
def residual_kernel(step, item, scratch):
    """``ITEM`` numbers, or what is left."""
    first = item * ITEM
    shortcut, x, out = floats(step[SHORTCUT] + first * 4), floats(step[X] + first * 4), floats(step[OUT] + first * 4)
    for i in range(min(step[COUNT] - first, ITEM)):
        out[i] = shortcut[i] + x[i]
