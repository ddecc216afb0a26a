"""Average pool on CUDA: a thread has four channels of a pixel.

The kernel is ``cuda_kernel.AVG_POOL``: the addresses ``x``, ``out`` (int64), then the integers (int32) ``whole``
(whether vectors of four channels lie at multiples of 16 bytes), ``pixels`` of the output, ``channels``, ``height``,
``width``, ``out_height``, ``out_width``, ``window``, ``stride``, ``pad_top``, ``pad_left``, ``zero_padding``.
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.avg_pool.cuda_kernel import AVG_POOL
from refnet_kernels.contract import Float32Array, PoolGeometry
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once


def launch(geometry: PoolGeometry, addresses: dict[str, int]) -> CudaLaunch:
    """The launch that pools, with the addresses ``x`` and ``out``."""
    g = geometry
    at = [addresses[name] for name in ("x", "out")]
    whole = g.channels % 4 == 0 and all(address % 16 == 0 for address in at)
    pixels = g.batch * g.out_height * g.out_width
    integers = (int(whole), pixels, g.channels, g.height, g.width, g.out_height, g.out_width, *g[6:])
    return make_launch(AVG_POOL, -(-pixels * -(-g.channels // 4) // AVG_POOL.threads), at, integers)


def call(x: Float32Array, geometry: PoolGeometry) -> Float32Array:
    """`refnet_kernels.avg_pool` on arrays."""
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.channels)
    return run_once(partial(launch, g), {"x": x}, {"out": shape})["out"]
