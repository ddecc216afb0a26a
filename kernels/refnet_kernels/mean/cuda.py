"""The global mean on CUDA: a thread has a channel of an image.

The kernel is ``cuda_kernel.MEAN``: the addresses ``x``, ``out`` (int64), then ``outputs`` (images times channels),
``pixels`` of an image and ``channels`` (int32).
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.mean.cuda_kernel import MEAN


def launch(batch: int, pixels: int, channels: int, addresses: dict[str, int]) -> CudaLaunch:
    """The launch that averages ``pixels`` pixels an image, with the addresses ``x`` and ``out``."""
    outputs = batch * channels
    at = (addresses["x"], addresses["out"])
    return make_launch(MEAN, -(-outputs // MEAN.threads), at, (outputs, pixels, channels))


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.mean` on arrays."""
    batch, height, width, channels = x.shape
    return run_once(partial(launch, batch, height * width, channels), {"x": x}, {"out": (batch, 1, 1, channels)})["out"]
