"""Batch norm on the CPU, and the statistics of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, FloatArray, Norm
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address

X, MEAN, SCALE, BETA, OUT, RELU, PIXELS, CHANNELS, ITEM_PIXELS = range(9)
GAMMA, EPSILON = 3, 4
#: Numbers of an item of the batch norm.
ITEM = 65536
#: Channels of an item of the statistics: their sums stay in the first-level cache.
BLOCK = 64


def launch(
    pixels: int, channels: int, addresses: dict[str, int], relu: bool, dtype: np.dtype[Any] = BINARY32
) -> Launch:
    """The step that normalises, with the addresses ``x``, ``mean``, ``scale``, ``beta`` and ``out``."""
    item_pixels = max(1, ITEM // max(channels, 1))
    row = [addresses[name] for name in ("x", "mean", "scale", "beta", "out")]
    row += [int(relu), pixels, channels, item_pixels]
    kernel = function_address("refnet_kernels.batch_norm.cpu_kernel", "batch_norm_kernel", dtype.name)
    return Launch(kernel, -(-pixels // item_pixels), row, 0)


def launch_statistics(
    pixels: int, channels: int, addresses: dict[str, int], epsilon: float, dtype: np.dtype[Any] = BINARY32
) -> Launch:
    """The step that writes ``mean`` and ``scale`` of ``x``, with the addresses of these and of ``gamma`` or 0."""
    bits = int(np.float64(epsilon).view(np.int64))
    row = [addresses["x"], addresses["mean"], addresses["scale"], addresses.get("gamma", 0), bits, 0, pixels, channels]
    kernel = function_address("refnet_kernels.batch_norm.cpu_kernel", "batch_statistics_kernel", dtype.name)
    return Launch(kernel, -(-channels // BLOCK), row, BLOCK * 16)


def call(x: FloatArray, norm: Norm, relu: bool) -> FloatArray:
    """`refnet_kernels.batch_norm` on arrays."""
    x, norm = np.ascontiguousarray(x), Norm(*(np.ascontiguousarray(values) for values in norm))
    out = np.empty_like(x)
    addresses = {role: values.ctypes.data for role, values in norm._asdict().items()}
    addresses |= {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(x.size // max(x.shape[-1], 1), x.shape[-1], addresses, relu, x.dtype))
    return out


def call_statistics(x: FloatArray, gamma: FloatArray | None, epsilon: float) -> tuple[FloatArray, FloatArray]:
    """Mean and scale of a batch, on arrays."""
    x = np.ascontiguousarray(x)
    mean, scale = np.zeros((2, x.shape[-1]), x.dtype)
    addresses = {"x": x.ctypes.data, "mean": mean.ctypes.data, "scale": scale.ctypes.data}
    if gamma is not None:
        gamma = np.ascontiguousarray(gamma)
        addresses["gamma"] = gamma.ctypes.data
    run_once(launch_statistics(x.size // max(x.shape[-1], 1), x.shape[-1], addresses, epsilon, x.dtype))
    return mean, scale
