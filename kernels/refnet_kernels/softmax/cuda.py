"""Softmax on CUDA: each block computes one row of logits.

The threads share the powers, and each adds all of them up, in the contract's order. The largest logit may be found in
any order: only the sign of a zero could differ, and its power is 1 either way.

The kernel is ``cuda_kernel.SOFTMAX``; its grid has one block per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.contract import Flags, Float32Array, ImageGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.softmax.cuda_kernel import SOFTMAX


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch over all pixels, each a row of logits, with the addresses ``x`` and ``out``."""
    classes = geometry.channels
    arguments = {"x": addresses["x"], "out": addresses["out"], "classes": classes}
    return make_launch(SOFTMAX, geometry.pixels if classes else 0, arguments)


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.softmax` on arrays."""
    make = partial(launch, ImageGeometry.of(x.shape), flags=Flags(), target=Target())
    return run_once(make, {"x": x}, {"out": x.shape})["out"]
