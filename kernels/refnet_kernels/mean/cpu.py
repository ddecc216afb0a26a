"""The global mean on the CPU: an item is `BLOCK` channels of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses, then integers."""

    x: int
    out: int
    pixels: int
    channels: int
    blocks: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))
#: Channels per item: 2 KiB of sums, which stay in the first-level cache.
BLOCK = 256


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that averages the pixels of each image, with the addresses ``x`` and ``out``."""
    g = geometry
    blocks = -(-g.channels // BLOCK)
    row = Row(addresses["x"], addresses["out"], pixels=g.height * g.width, channels=g.channels, blocks=blocks)
    kernel = function_address("refnet_kernels.mean.cpu_kernel", "mean_kernel", target.dtype.name)
    return Launch(kernel, g.batch * blocks, row, BLOCK * 8)


def call(x: FloatArray) -> FloatArray:
    """`refnet_kernels.mean` on arrays."""
    g = ImageGeometry(*x.shape)
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, 1, 1, g.channels), x.dtype)
    run_once(launch(g, {"x": x.ctypes.data, "out": out.ctypes.data}, Flags(), Target(x.dtype)))
    return out
