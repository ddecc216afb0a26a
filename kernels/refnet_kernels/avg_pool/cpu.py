"""Average pool on the CPU.

An item is one row of the output; the channels are the fastest loop, which LLVM turns into vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, PoolGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses, then the geometry's integers."""

    x: int
    out: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    window: int
    stride: int
    pad_top: int
    pad_left: int
    zero_padding: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))


def launch(geometry: PoolGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that pools, with the addresses ``x`` and ``out``."""
    sizes = geometry._asdict()
    batch = sizes.pop("batch")
    row = Row(addresses["x"], addresses["out"], **sizes)
    kernel = function_address("refnet_kernels.avg_pool.cpu_kernel", "avg_pool_kernel", target.dtype.name)
    return Launch(kernel, batch * geometry.out_height, row, geometry.channels * 8)


def call(x: FloatArray, geometry: PoolGeometry) -> FloatArray:
    """`refnet_kernels.avg_pool` on arrays."""
    g = geometry
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    run_once(launch(g, {"x": x.ctypes.data, "out": out.ctypes.data}, Flags(), Target(x.dtype)))
    return out
