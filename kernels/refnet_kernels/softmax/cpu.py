"""Softmax on the CPU: an item is one row of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses, then an integer."""

    x: int
    out: int
    classes: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step over all pixels, each a row of logits, with the addresses ``x`` and ``out``."""
    classes = geometry.channels
    row = Row(addresses["x"], addresses["out"], classes)
    kernel = function_address("refnet_kernels.softmax.cpu_kernel", "softmax_kernel", target.dtype.name)
    return Launch(kernel, geometry.pixels if classes else 0, row, classes * 8)


def call(x: FloatArray) -> FloatArray:
    """`refnet_kernels.softmax` on arrays."""
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    addresses = {"x": x.ctypes.data, "out": out.ctypes.data}
    run_once(launch(ImageGeometry.of(x.shape), addresses, Flags(), Target(x.dtype)))
    return out
