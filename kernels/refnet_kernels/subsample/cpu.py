"""Subsampling on the CPU: an item copies one row of the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, SubsampleGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses, then integers."""

    x: int
    out: int
    height: int
    width: int
    channels: int
    factor: int
    out_height: int
    out_width: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))


def launch(geometry: SubsampleGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step ``out = x[:, ::factor, ::factor]``, with the addresses ``x`` and ``out``."""
    g = geometry
    row = Row(
        addresses["x"], addresses["out"], g.height, g.width, g.channels, g.factor,
        out_height=g.out_height, out_width=g.out_width,
    )  # fmt: skip
    kernel = function_address("refnet_kernels.subsample.cpu_kernel", "subsample_kernel", target.dtype.name)
    return Launch(kernel, g.batch * g.out_height, row, 0)


def call(x: FloatArray, geometry: SubsampleGeometry) -> FloatArray:
    """`refnet_kernels.subsample` on arrays."""
    g = geometry
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    run_once(launch(g, {"x": x.ctypes.data, "out": out.ctypes.data}, Flags(), Target(x.dtype)))
    return out
