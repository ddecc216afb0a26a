"""Batch norm on CUDA, and the statistics of a batch.

The kernels are

- ``cuda_kernel.BATCH_NORM``: the addresses ``x``, ``mean``, ``scale``, ``beta``, ``out`` (int64), then the integers
  (int32) ``relu``, ``whole`` (whether vectors of four channels lie at multiples of 16 bytes), ``pixels``, ``channels``.
  A thread has four channels of a pixel.
- ``cuda_kernel.BATCH_STATISTICS``: the addresses ``x``, ``gamma`` (or 0), ``mean``, ``scale``, then ``pixels``,
  ``channels`` (int32) and ``epsilon`` (binary64). A thread has a channel: the contract fixes the order of the sums.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from refnet_kernels.batch_norm.cuda_kernel import BATCH_NORM, BATCH_STATISTICS
from refnet_kernels.contract import Float32Array, Norm
from refnet_kernels.gpu.device import pack_channels
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once


def launch(pixels: int, channels: int, addresses: dict[str, int], relu: bool) -> CudaLaunch:
    """The launch that normalises, with the addresses ``x``, ``mean``, ``scale``, ``beta`` and ``out``.

    The values a channel come from `refnet_kernels.gpu.device.pack_channels`.
    """
    at = [addresses[name] for name in ("x", "mean", "scale", "beta", "out")]
    whole = channels % 4 == 0 and addresses["x"] % 16 == 0 and addresses["out"] % 16 == 0
    grid = -(-pixels * -(-channels // 4) // BATCH_NORM.threads)
    return make_launch(BATCH_NORM, grid, at, (int(relu), int(whole), pixels, channels))


def launch_statistics(pixels: int, channels: int, addresses: dict[str, int], epsilon: float) -> CudaLaunch:
    """The launch that writes ``mean`` and ``scale`` of ``x``, with the addresses of these and of ``gamma`` or 0."""
    at = [addresses["x"], addresses.get("gamma", 0), addresses["mean"], addresses["scale"]]
    grid = -(-channels // BATCH_STATISTICS.threads)
    return make_launch(BATCH_STATISTICS, grid, at, (pixels, channels, float(epsilon)))


def call(x: Float32Array, norm: Norm, relu: bool) -> Float32Array:
    """`refnet_kernels.batch_norm` on arrays."""
    channels = x.shape[-1]
    pixels = x.size // max(channels, 1)
    inputs = {"x": x} | {role: pack_channels(values) for role, values in norm._asdict().items()}
    return run_once(partial(launch, pixels, channels, relu=relu), inputs, {"out": x.shape})["out"]


def call_statistics(x: Float32Array, gamma: Float32Array | None, epsilon: float) -> tuple[Float32Array, Float32Array]:
    """Mean and scale of a batch, on arrays."""
    channels = x.shape[-1]
    pixels = x.size // max(channels, 1)
    inputs: dict[str, np.ndarray] = {"x": x} if gamma is None else {"x": x, "gamma": gamma}
    make = partial(launch_statistics, pixels, channels, epsilon=epsilon)
    results = run_once(make, inputs, {"mean": channels, "scale": channels})
    return results["mean"], results["scale"]
