"""Max pool on the CPU, with the next unit's preact as a second output.

An item is some tiles of pixels. As in a convolution, windows are read through a table of addresses, one per pixel
and tap; a tap outside the image points to values that never win, or to zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import ConvGeometry, Flags, FloatArray, Norm, PoolGeometry, Target
from refnet_kernels.cpu.layout import TILE_BYTES, pack_channels, tiles_of
from refnet_kernels.cpu.team import Launch, run_once
from refnet_kernels.jit import function_address


class Row(NamedTuple):
    """The fields of a step's row: addresses (0 stands for "none"), then integers."""

    out: int
    next_mean: int
    next_scale: int
    next_beta: int
    preact: int
    table: int
    offsets: int
    channels: int
    tap_count: int
    tiles: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))
#: The fields that a caller gives.
OPERANDS = Row._fields[: AT.table]

#: Tiles per item.
ITEM_TILES = 8


def launch(geometry: PoolGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that pools.

    ``addresses`` has ``x``, and ``out`` or ``preact`` (with ``next_mean``, ``next_scale``, ``next_beta``, from
    `refnet_kernels.cpu.layout.pack_channels`) or both.
    """
    g, dtype = geometry, target.dtype
    outside = np.full(g.channels, 0 if g.zero_padding else -np.inf, dtype)
    windows = ConvGeometry(*g[:6], g.channels, g.window, g.window, g.stride, 1, g.pad_top, g.pad_left)
    taps = np.array(list(np.ndindex(g.window, g.window)), np.int64)
    tiles = tiles_of(windows, taps, addresses["x"], outside.ctypes.data, dtype.itemsize)
    row = Row(
        **{name: addresses.get(name, 0) for name in OPERANDS},
        table=tiles.table.ctypes.data,
        offsets=tiles.offsets.ctypes.data,
        channels=g.channels,
        tap_count=len(taps),
        tiles=len(tiles.table),
    )
    kernel = function_address("refnet_kernels.max_pool.cpu_kernel", "max_pool_kernel", dtype.name)
    return Launch(kernel, -(-len(tiles.table) // ITEM_TILES), row, TILE_BYTES, (outside, *tiles))


def call(x: FloatArray, geometry: PoolGeometry, next_norm: Norm | None = None) -> tuple[FloatArray, FloatArray | None]:
    """`refnet_kernels.max_pool` on arrays; with ``next_norm`` also ReLU(batch norm) of the result."""
    g = geometry
    x = np.ascontiguousarray(x)
    out = np.empty((g.batch, g.out_height, g.out_width, g.channels), x.dtype)
    preact = None if next_norm is None else np.empty_like(out)
    addresses = {"x": x.ctypes.data, "out": out.ctypes.data}
    if next_norm is not None and preact is not None:
        next_norm = Norm(*map(pack_channels, next_norm))
        addresses |= {f"next_{role}": values.ctypes.data for role, values in next_norm._asdict().items()}
        addresses["preact"] = preact.ctypes.data
    run_once(launch(g, addresses, Flags(), Target(x.dtype)))
    return out, preact
