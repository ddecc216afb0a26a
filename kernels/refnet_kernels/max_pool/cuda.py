"""Max pool on CUDA, with the next unit's preact as a second output: a thread has four channels of a pixel.

The kernel is ``cuda_kernel.MAX_POOL``: the addresses ``x``, ``out``, ``next_mean``, ``next_scale``, ``next_beta``,
``preact`` (int64; 0 stands for "none"), then the integers (int32) ``whole`` (whether vectors of four channels lie at
multiples of 16 bytes), ``pixels`` of the output, ``channels``, ``height``, ``width``, ``out_height``, ``out_width``,
``window``, ``stride``, ``pad_top``, ``pad_left``, ``zero_padding``.
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.contract import Float32Array, Norm, PoolGeometry
from refnet_kernels.gpu.device import pack_channels
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.max_pool.cuda_kernel import MAX_POOL

OPERANDS = ("x", "out", "next_mean", "next_scale", "next_beta", "preact")


def launch(geometry: PoolGeometry, addresses: dict[str, int]) -> CudaLaunch:
    """The launch that pools.

    ``addresses`` has ``x``, and ``out`` or ``preact`` (with ``next_mean``, ``next_scale``, ``next_beta``) or both. The
    values a channel come from `refnet_kernels.gpu.device.pack_channels`.
    """
    g = geometry
    at = {name: addresses.get(name, 0) for name in OPERANDS}
    whole = g.channels % 4 == 0 and all(at[name] % 16 == 0 for name in ("x", "out", "preact"))
    pixels = g.batch * g.out_height * g.out_width
    integers = (int(whole), pixels, g.channels, g.height, g.width, g.out_height, g.out_width, *g[6:])
    return make_launch(MAX_POOL, -(-pixels * -(-g.channels // 4) // MAX_POOL.threads), at.values(), integers)


def call(
    x: Float32Array, geometry: PoolGeometry, next_norm: Norm | None = None
) -> tuple[Float32Array, Float32Array | None]:
    """`refnet_kernels.max_pool` on arrays; with ``next_norm`` also its ReLU(batch norm)."""
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.channels)
    inputs, outputs = {"x": x}, {"out": shape}
    if next_norm is not None:
        inputs |= {f"next_{role}": pack_channels(values) for role, values in next_norm._asdict().items()}
        outputs["preact"] = shape
    results = run_once(partial(launch, g), inputs, outputs)
    return results["out"], results.get("preact")
