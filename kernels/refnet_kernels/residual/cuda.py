"""The residual sum on CUDA: each thread adds four pairs of numbers.

The kernel is ``cuda_kernel.RESIDUAL``. Of its integers, ``whole`` is 1 if all three arrays are at multiples of 16
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.contract import Flags, Float32Array, ImageGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.residual.cuda_kernel import RESIDUAL


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch of ``out = shortcut + x``, or its ReLU, with the addresses of the three."""
    count = geometry.pixels * geometry.channels
    at = {name: addresses[name] for name in ("shortcut", "x", "out")}
    whole = all(address % 16 == 0 for address in at.values())
    integers = {"relu": int(flags.relu), "whole": int(whole), "count": count}
    return make_launch(RESIDUAL, -(-count // (4 * RESIDUAL.threads)), at | integers)


def call(shortcut: Float32Array, x: Float32Array, relu: bool) -> Float32Array:
    """`refnet_kernels.residual` on arrays."""
    make = partial(launch, ImageGeometry.of(x.shape), flags=Flags(relu), target=Target())
    return run_once(make, {"shortcut": shortcut, "x": x}, {"out": x.shape})["out"]
