"""How images and values a channel lie for kernels that work on register tiles: some pixels by a panel of channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import ConvGeometry, FloatArray
from refnet_kernels.target import ROWS, WIDTH_BYTES

TILE_BYTES = ROWS * WIDTH_BYTES


def pack_channels(values: FloatArray) -> FloatArray:
    """One value a channel, filled up with zeros to whole panels."""
    width = WIDTH_BYTES // values.itemsize
    packed = np.zeros(-(-values.size // width) * width, values.dtype)
    packed[: values.size] = values
    return packed


class Tiles(NamedTuple):
    """Where a step's tiles find their pixels.

    Attributes
    ----------
    table : int64 array [tiles, taps, ROWS]
        Where the data of each tap of each pixel starts: addresses.
    offsets : int64 array [tiles, ROWS]
        Where each pixel lies in the output: bytes.
    inside : bool array [tiles, taps]
        Whether a tap lies inside the image for any of a tile's pixels.
    """

    table: np.ndarray
    offsets: np.ndarray
    inside: np.ndarray


def tiles_of(
    g: ConvGeometry, taps: np.ndarray, x: int, outside: int, itemsize: int, height: int = ROWS, alike: bool = False
) -> Tiles:
    """Tiles of pixels.

    Parameters
    ----------
    g : ConvGeometry
    taps : int64 array [taps, 2]
        How far below and to the right of a window's first pixel each tap lies.
    x, outside : int
        Addresses of the image, and of what takes the place of a pixel outside it.
    itemsize : int
        Bytes of a number.
    height : int
        Pixels of a tile. Its other rows are as the last.
    alike : bool
        Whether pixels that have the same taps outside the image share tiles, as far as that goes. If not, tiles are
        neighbours in a row.
    """
    count = -(-g.pixels // height)
    rows_inside = taps_inside(g.out_height, g.stride, g.pad_top, g.height, taps[:, 0])
    columns_inside = taps_inside(g.out_width, g.stride, g.pad_left, g.width, taps[:, 1])
    order = np.arange(g.pixels)
    if alike:
        rows, columns = _stretches(rows_inside), _stretches(columns_inside)
        kinds = np.tile((rows[:, None] * g.out_width + columns).ravel(), g.batch)
        order = _whole_tiles_first(kinds, height)
    # The rows past the last pixel, of a tile or of all, repeat it: they compute and store the same once more.
    number = np.arange(count)[:, None] * height + np.minimum(np.arange(ROWS), height - 1)
    pixel = order[np.minimum(number, g.pixels - 1)]
    # From the first to the last, so that tiles that are close in time share what the caches hold.
    pixel = pixel[np.argsort(pixel[:, 0], kind="stable")]
    offsets = pixel * (g.out_channels * itemsize)
    pixel = np.ascontiguousarray(pixel.T)  # NumPy's reductions are slow along a short last axis
    pixel, column = np.divmod(pixel, g.out_width)
    image, row = np.divmod(pixel, g.out_height)
    top, left = row * g.stride - g.pad_top, column * g.stride - g.pad_left
    corner = x + ((image * g.height + top) * g.width + left) * (g.channels * itemsize)
    table = np.empty((count, len(taps), ROWS), np.int64)
    inside = np.empty((count, len(taps)), bool)
    for tap, (down, right) in enumerate(taps):
        there = rows_inside[row, tap] & columns_inside[column, tap]
        table[:, tap] = np.where(there, corner + (down * g.width + right) * (g.channels * itemsize), outside).T
        inside[:, tap] = there.any(axis=0)
    return Tiles(table, offsets, inside)


def _whole_tiles_first(kinds: np.ndarray, height: int) -> np.ndarray:
    """The order that puts things of a kind together: as many as fill whole tiles, and then the rest of each kind."""
    order, count = np.argsort(kinds, kind="stable"), np.bincount(kinds)
    end_of_whole = np.cumsum(count) - count % height
    rest = np.arange(len(order)) >= end_of_whole[kinds[order]]
    return order[np.argsort(rest, kind="stable")]


def taps_inside(positions: int, stride: int, pad: int, size: int, taps: np.ndarray) -> np.ndarray:
    """Along a side, whether each tap of each position lies inside the image: bool array [positions, taps]."""
    start = np.arange(positions)[:, None] * stride - pad + taps
    inside: np.ndarray = (start >= 0) & (start < size)
    return inside


def _stretches(inside: np.ndarray) -> np.ndarray:
    """A number for each position, the same for neighbours that have the same taps inside."""
    changes = np.zeros(len(inside), np.int64)
    changes[1:] = (inside[1:] != inside[:-1]).any(axis=1)
    return np.cumsum(changes)
