"""Group norm on the CPU: an item is some groups of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, GroupNormGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


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
#: Channels per item, or those of one group if that has more: their sums stay in the first-level cache.
BLOCK = 64


def launch(geometry: GroupNormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that normalises, with the addresses ``x``, ``beta``, ``out`` and any ``gamma``."""
    g = geometry
    item_channels = max(1, BLOCK // max(g.group_channels, 1)) * g.group_channels
    items = -(-g.channels // max(item_channels, 1))
    row = Row(
        addresses["x"], addresses.get("gamma", 0), addresses["beta"], addresses["out"],
        relu=int(flags.relu), height=g.height, width=g.width, channels=g.channels, group_channels=g.group_channels,
        item_channels=item_channels, image_items=items, epsilon_bits=int(np.float64(g.epsilon).view(np.int64)),
    )  # fmt: skip
    kernel = function_address("refnet_kernels.group_norm.cpu_kernel", "group_norm_kernel", target.dtype.name)
    return Launch(kernel, g.batch * items, row, SCRATCH_ROWS * item_channels * 8)


#: Numbers of scratch memory per channel.
SCRATCH_ROWS = 4


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
