"""Max pool on CUDA, with the next unit's preact as a second output: each thread computes four channels of a pixel.

The kernel is ``cuda_kernel.MAX_POOL``. Of its addresses, 0 stands for "none". Of its integers, ``whole`` is 1 if
vectors of four channels are at multiples of 16 bytes; ``pixels`` are the output's; the others are the geometry's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.contract import Flags, Float32Array, Norm, PoolGeometry, Target
from refnet_kernels.gpu.device import pack_channels
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.max_pool.cuda_kernel import MAX_POOL

OPERANDS = ("x", "out", "next_mean", "next_scale", "next_beta", "preact")


def launch(geometry: PoolGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that pools.

    ``addresses`` has ``x``, and ``out`` or ``preact`` (with ``next_mean``, ``next_scale``, ``next_beta``) or both. The
    values per channel come from `refnet_kernels.gpu.device.pack_channels`.
    """
    g = geometry
    at = {name: addresses.get(name, 0) for name in OPERANDS}
    whole = g.channels % 4 == 0 and all(at[name] % 16 == 0 for name in ("x", "out", "preact"))
    sizes = g._asdict() | {"pixels": g.pixels, "whole": int(whole)}
    del sizes["batch"]
    return make_launch(MAX_POOL, -(-g.pixels * -(-g.channels // 4) // MAX_POOL.threads), at | sizes)


def call(
    x: Float32Array, geometry: PoolGeometry, next_norm: Norm | None = None
) -> tuple[Float32Array, Float32Array | None]:
    """`refnet_kernels.max_pool` on arrays; with ``next_norm`` also ReLU(batch norm) of the result."""
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.channels)
    inputs, outputs = {"x": x}, {"out": shape}
    if next_norm is not None:
        inputs |= {f"next_{role}": pack_channels(values) for role, values in next_norm._asdict().items()}
        outputs["preact"] = shape
    results = run_once(partial(launch, g, flags=Flags(), target=Target()), inputs, outputs)
    return results["out"], results.get("preact")
