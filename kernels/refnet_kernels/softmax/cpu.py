"""Softmax on the CPU: an item is one row of logits."""

from __future__ import annotations

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.jit import function_address
from refnet_kernels.team import Launch, run_once

X, OUT, CLASSES = range(3)


def launch(rows: int, classes: int, addresses: dict[str, int]) -> Launch:
    """The step over ``rows`` rows of ``classes`` logits, with the addresses ``x`` and ``out``."""
    row = [addresses["x"], addresses["out"], classes]
    return Launch(
        function_address("refnet_kernels.softmax.cpu_kernel", "softmax_kernel"),
        rows if classes else 0,
        row,
        classes * 8,
    )


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.softmax` on arrays."""
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    classes = x.shape[-1]
    run_once(launch(x.size // max(classes, 1), classes, {"x": x.ctypes.data, "out": out.ctypes.data}))
    return out
