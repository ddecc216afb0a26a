"""Batch norm on CUDA, and the statistics of a batch.

The kernels are

- ``cuda_kernel.BATCH_NORM``: each thread computes four channels of a pixel. Of its integers, ``whole`` is 1 if vectors
  of four channels are at multiples of 16 bytes.
- ``cuda_kernel.BATCH_STATISTICS``: each thread computes one channel, because the contract fixes the order of the sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from refnet_kernels.batch_norm.cuda_kernel import BATCH_NORM, BATCH_STATISTICS
from refnet_kernels.contract import Flags, Float32Array, Norm, NormGeometry, Target
from refnet_kernels.gpu.device import pack_channels
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once


def launch(geometry: NormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that normalises, with the addresses ``x``, ``mean``, ``scale``, ``beta`` and ``out``.

    The values per channel come from `refnet_kernels.gpu.device.pack_channels`.
    """
    g = geometry
    at = {name: addresses[name] for name in ("x", "mean", "scale", "beta", "out")}
    whole = g.channels % 4 == 0 and at["x"] % 16 == 0 and at["out"] % 16 == 0
    grid = -(-g.pixels * -(-g.channels // 4) // BATCH_NORM.threads)
    integers = {"relu": int(flags.relu), "whole": int(whole), "pixels": g.pixels, "channels": g.channels}
    return make_launch(BATCH_NORM, grid, at | integers)


def launch_statistics(geometry: NormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that writes ``mean`` and ``scale`` of ``x``, with the addresses of these and of any ``gamma``."""
    g = geometry
    at = {"gamma": addresses.get("gamma", 0)} | {name: addresses[name] for name in ("x", "mean", "scale")}
    grid = -(-g.channels // BATCH_STATISTICS.threads)
    numbers = {"pixels": g.pixels, "channels": g.channels, "epsilon": float(g.epsilon)}
    return make_launch(BATCH_STATISTICS, grid, at | numbers)


def call(x: Float32Array, norm: Norm, relu: bool) -> Float32Array:
    """`refnet_kernels.batch_norm` on arrays."""
    inputs = {"x": x} | {role: pack_channels(values) for role, values in norm._asdict().items()}
    make = partial(launch, NormGeometry.of(x.shape), flags=Flags(relu), target=Target())
    return run_once(make, inputs, {"out": x.shape})["out"]


def call_statistics(x: Float32Array, gamma: Float32Array | None, epsilon: float) -> tuple[Float32Array, Float32Array]:
    """Mean and scale of a batch, on arrays."""
    channels = x.shape[-1]
    inputs: dict[str, np.ndarray] = {"x": x} if gamma is None else {"x": x, "gamma": gamma}
    make = partial(launch_statistics, NormGeometry.of(x.shape, epsilon), flags=Flags(), target=Target())
    results = run_once(make, inputs, {"mean": channels, "scale": channels})
    return results["mean"], results["scale"]
