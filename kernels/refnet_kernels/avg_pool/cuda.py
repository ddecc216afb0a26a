"""Average pool on CUDA: each thread computes four channels of a pixel.

The kernel is ``cuda_kernel.AVG_POOL``. Of its integers, ``whole`` is 1 if vectors of four channels are at
multiples of 16 bytes; ``pixels`` are the output's; the others are the geometry's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.avg_pool.cuda_kernel import AVG_POOL
from refnet_kernels.contract import Flags, Float32Array, PoolGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once


def launch(geometry: PoolGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that pools, with the addresses ``x`` and ``out``."""
    g = geometry
    at = {name: addresses[name] for name in ("x", "out")}
    whole = g.channels % 4 == 0 and all(address % 16 == 0 for address in at.values())
    sizes = g._asdict() | {"pixels": g.pixels, "whole": int(whole)}
    del sizes["batch"]
    return make_launch(AVG_POOL, -(-g.pixels * -(-g.channels // 4) // AVG_POOL.threads), at | sizes)


def call(x: Float32Array, geometry: PoolGeometry) -> Float32Array:
    """`refnet_kernels.avg_pool` on arrays."""
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.channels)
    return run_once(partial(launch, g, flags=Flags(), target=Target()), {"x": x}, {"out": shape})["out"]
