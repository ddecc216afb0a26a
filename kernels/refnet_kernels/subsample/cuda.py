"""Subsampling on CUDA: each thread copies four channels of a pixel.

The kernel is ``cuda_kernel.SUBSAMPLE``. Of its integers, ``whole`` is 1 if vectors of four channels are at
multiples of 16 bytes; ``pixels`` are the output's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.contract import Flags, Float32Array, SubsampleGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.subsample.cuda_kernel import SUBSAMPLE


def launch(geometry: SubsampleGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch of ``out = x[:, ::factor, ::factor]``, with the addresses ``x`` and ``out``."""
    g = geometry
    at = {name: addresses[name] for name in ("x", "out")}
    whole = g.channels % 4 == 0 and all(address % 16 == 0 for address in at.values())
    sizes = {"pixels": g.pixels, "channels": g.channels, "height": g.height, "width": g.width}
    sizes |= {"out_height": g.out_height, "out_width": g.out_width, "factor": g.factor}
    grid = -(-g.pixels * -(-g.channels // 4) // SUBSAMPLE.threads)
    return make_launch(SUBSAMPLE, grid, at | sizes | {"whole": int(whole)})


def call(x: Float32Array, geometry: SubsampleGeometry) -> Float32Array:
    """`refnet_kernels.subsample` on arrays."""
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.channels)
    return run_once(partial(launch, g, flags=Flags(), target=Target()), {"x": x}, {"out": shape})["out"]
