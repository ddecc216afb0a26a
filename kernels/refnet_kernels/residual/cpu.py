"""The residual sum on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses, then integers."""

    shortcut: int
    x: int
    out: int
    relu: int
    numbers: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))
#: Numbers per item.
ITEM = 65536


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step ``out = shortcut + x``, or its ReLU, with the addresses of the three."""
    count = geometry.pixels * geometry.channels
    row = Row(addresses["shortcut"], addresses["x"], addresses["out"], int(flags.relu), count)
    kernel = function_address("refnet_kernels.residual.cpu_kernel", "residual_kernel", target.dtype.name)
    return Launch(kernel, -(-count // ITEM), row, 0)


def call(shortcut: FloatArray, x: FloatArray, relu: bool) -> FloatArray:
    """`refnet_kernels.residual` on arrays."""
    shortcut, x = np.ascontiguousarray(shortcut), np.ascontiguousarray(x)
    out = np.empty_like(x)
    addresses = {"shortcut": shortcut.ctypes.data, "x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(ImageGeometry.of(x.shape), addresses, Flags(relu), Target(x.dtype)))
    return out
