"""Batch norm on the CPU, and the statistics of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, Norm, NormGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a row of the batch norm: addresses, then integers."""

    x: int
    mean: int
    scale: int
    beta: int
    out: int
    relu: int
    pixels: int
    channels: int
    item_pixels: int


class StatisticsRow(NamedTuple):
    """The fields of a row of the statistics: addresses (0 stands for "none"), then integers."""

    x: int
    mean: int
    scale: int
    gamma: int
    epsilon_bits: int
    pixels: int
    channels: int


#: The index of each field in its row.
AT = Row(*range(len(Row._fields)))
STATISTICS_AT = StatisticsRow(*range(len(StatisticsRow._fields)))
#: Numbers per item of the batch norm.
ITEM = 65536
#: Channels per item of the statistics: their sums stay in the first-level cache.
BLOCK = 64


def launch(geometry: NormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that normalises, with the addresses ``x``, ``mean``, ``scale``, ``beta`` and ``out``."""
    g = geometry
    item_pixels = max(1, ITEM // max(g.channels, 1))
    row = Row(
        **{name: addresses[name] for name in ("x", "mean", "scale", "beta", "out")},
        relu=int(flags.relu), pixels=g.pixels, channels=g.channels, item_pixels=item_pixels,
    )  # fmt: skip
    kernel = function_address("refnet_kernels.batch_norm.cpu_kernel", "batch_norm_kernel", target.dtype.name)
    return Launch(kernel, -(-g.pixels // item_pixels), row, 0)


def launch_statistics(geometry: NormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that writes ``mean`` and ``scale`` of ``x``, with the addresses of these and of any ``gamma``."""
    g = geometry
    row = StatisticsRow(
        addresses["x"], addresses["mean"], addresses["scale"], addresses.get("gamma", 0),
        epsilon_bits=int(np.float64(g.epsilon).view(np.int64)), pixels=g.pixels, channels=g.channels,
    )  # fmt: skip
    kernel = function_address("refnet_kernels.batch_norm.cpu_kernel", "batch_statistics_kernel", target.dtype.name)
    return Launch(kernel, -(-g.channels // BLOCK), row, BLOCK * 16)


def call(x: FloatArray, norm: Norm, relu: bool) -> FloatArray:
    """`refnet_kernels.batch_norm` on arrays."""
    x, norm = np.ascontiguousarray(x), Norm(*(np.ascontiguousarray(values) for values in norm))
    out = np.empty_like(x)
    addresses = {role: values.ctypes.data for role, values in norm._asdict().items()}
    addresses |= {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(NormGeometry.of(x.shape), addresses, Flags(relu), Target(x.dtype)))
    return out


def call_statistics(x: FloatArray, gamma: FloatArray | None, epsilon: float) -> tuple[FloatArray, FloatArray]:
    """Mean and scale of a batch, on arrays."""
    x = np.ascontiguousarray(x)
    mean, scale = np.zeros((2, x.shape[-1]), x.dtype)
    addresses = {"x": x.ctypes.data, "mean": mean.ctypes.data, "scale": scale.ctypes.data}
    if gamma is not None:
        gamma = np.ascontiguousarray(gamma)
        addresses["gamma"] = gamma.ctypes.data
    run_once(launch_statistics(NormGeometry.of(x.shape, epsilon), addresses, Flags(), Target(x.dtype)))
    return mean, scale
