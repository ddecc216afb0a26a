"""Softmax on CUDA: a block has a row of logits.

All threads compute powers; one of them adds them up in order, as the contract has it. The largest logit may be found in
any order: only the sign of a zero could differ, and its power is 1 either way.

The kernel is ``cuda_kernel.SOFTMAX``: the addresses ``x``, ``out`` (int64), then ``classes`` (int32); its grid has a
block for each row.
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.softmax.cuda_kernel import SOFTMAX


def launch(rows: int, classes: int, addresses: dict[str, int]) -> CudaLaunch:
    """The launch over ``rows`` rows of ``classes`` logits, with the addresses ``x`` and ``out``."""
    return make_launch(SOFTMAX, rows if classes else 0, (addresses["x"], addresses["out"]), (classes,))


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.softmax` on arrays."""
    classes = x.shape[-1]
    rows = x.size // max(classes, 1)
    return run_once(partial(launch, rows, classes), {"x": x}, {"out": x.shape})["out"]
