"""Subsampling on CUDA: a thread copies four channels of a pixel.

The kernel is ``cuda_kernel.SUBSAMPLE``: the addresses ``x``, ``out`` (int64), then the integers (int32) ``whole``
(whether vectors of four channels lie at multiples of 16 bytes), ``pixels`` and ``channels`` of the output, ``height``
and ``width`` of the input, ``out_height``, ``out_width``, ``factor``.
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.subsample.cuda_kernel import SUBSAMPLE


def launch(batch: int, height: int, width: int, channels: int, factor: int, addresses: dict[str, int]) -> CudaLaunch:
    """The launch of ``out = x[:, ::factor, ::factor]``, with the addresses ``x`` and ``out``."""
    at = [addresses[name] for name in ("x", "out")]
    whole = channels % 4 == 0 and all(address % 16 == 0 for address in at)
    out_height, out_width = -(-height // factor), -(-width // factor)
    pixels = batch * out_height * out_width
    integers = (int(whole), pixels, channels, height, width, out_height, out_width, factor)
    return make_launch(SUBSAMPLE, -(-pixels * -(-channels // 4) // SUBSAMPLE.threads), at, integers)


def call(x: Float32Array, factor: int) -> Float32Array:
    """`refnet_kernels.subsample` on arrays."""
    batch, height, width, channels = x.shape
    shape = (batch, -(-height // factor), -(-width // factor), channels)
    return run_once(partial(launch, batch, height, width, channels, factor), {"x": x}, {"out": shape})["out"]
