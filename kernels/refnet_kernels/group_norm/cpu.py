"""Group norm on the CPU: an item is some groups of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, GroupNormGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address
from refnet_kernels.target import LINE_BYTES


class Row(NamedTuple):
    """The fields of a step's row: addresses (0 stands for "none"), then integers."""

    x: int
    gamma: int
    beta: int
    out: int
    relu: int
    height: int
    width: int
    channels: int
    group_channels: int
    item_channels: int
    image_items: int
    epsilon_bits: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))
#: Numbers per item, if they are of so many channels: with fewer, a pixel's are too few for the memory; with more, their
#: sums leave the first-level cache.
ITEM = 65536
FEW_CHANNELS, MOST_CHANNELS = 64, 512
#: Bytes of a pixel per item, at least: with a single cache line, each pass took several times as long on a Zen 4.
LEAST_BYTES = 2 * LINE_BYTES
#: Numbers of scratch memory per channel: its mean, its sum, that of its group, the rounded mean, the scale.
SCRATCH = 5


def item_channels(g: GroupNormGeometry, target: Target) -> int:
    """Channels of an item: whole groups, and if possible an item for every thread."""
    wanted = min(max(ITEM // max(g.height * g.width, 1), FEW_CHANNELS), MOST_CHANNELS)
    items = max(-(-g.channels // wanted), -(-target.workers // max(g.batch, 1)))
    least = -(-LEAST_BYTES // (target.dtype.itemsize * g.group_channels)) * g.group_channels
    return min(-(-g.channels // (items * least)) * least, g.channels)


def launch(geometry: GroupNormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that normalises, with the addresses ``x``, ``beta``, ``out`` and any ``gamma``."""
    g = geometry
    channels = item_channels(g, target)
    items = -(-g.channels // channels)
    row = Row(
        addresses["x"], addresses.get("gamma", 0), addresses["beta"], addresses["out"],
        relu=int(flags.relu), height=g.height, width=g.width, channels=g.channels, group_channels=g.group_channels,
        item_channels=channels, image_items=items, epsilon_bits=int(np.float64(g.epsilon).view(np.int64)),
    )  # fmt: skip
    kernel = function_address("refnet_kernels.group_norm.cpu_kernel", "group_norm_kernel", target.dtype.name)
    return Launch(kernel, g.batch * items, row, SCRATCH * channels * 8)


def call(
    x: FloatArray, gamma: FloatArray | None, beta: FloatArray, groups: int, epsilon: float, relu: bool
) -> FloatArray:
    """`refnet_kernels.group_norm` on arrays."""
    x, beta = np.ascontiguousarray(x), np.ascontiguousarray(beta)
    out = np.empty_like(x)
    addresses = {"x": x.ctypes.data, "beta": beta.ctypes.data, "out": out.ctypes.data}
    if gamma is not None:
        gamma = np.ascontiguousarray(gamma)
        addresses["gamma"] = gamma.ctypes.data
    run_once(launch(GroupNormGeometry.of(x.shape, groups, epsilon), addresses, Flags(relu), Target(x.dtype)))
    return out
