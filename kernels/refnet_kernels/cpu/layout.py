"""Memory layout of images and per-channel values, for kernels on register tiles: some pixels by a panel of channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import ConvGeometry, FloatArray
from refnet_kernels.target import ROWS, WIDTH_BYTES

TILE_BYTES = ROWS * WIDTH_BYTES


def pack_channels(values: FloatArray) -> FloatArray:
    """One value per channel, padded with zeros to whole panels."""
    width = WIDTH_BYTES // values.itemsize
    packed = np.zeros(-(-values.size // width) * width, values.dtype)
    packed[: values.size] = values
    return packed


class Tiles(NamedTuple):
    """The places of the pixels of a step's tiles.

    Attributes
    ----------
    table : int64 array [tiles, taps, ROWS]
        Address of the data of each tap of each pixel.
    offsets : int64 array [tiles, ROWS]
        Offset of each pixel in the output, in bytes.
    inside : bool array [tiles, taps]
        Whether a tap is inside the image for any of a tile's pixels.
    heights : int64 array [tiles]
        Number of pixels in a tile; its other rows repeat the last one.
    """

    table: np.ndarray
    offsets: np.ndarray
    inside: np.ndarray
    heights: np.ndarray


def tiles_of(
    g: ConvGeometry, taps: np.ndarray, x: int, outside: int, itemsize: int, short: bool = False, alike: bool = False
) -> Tiles:
    """Tiles of pixels.

    Parameters
    ----------
    g : ConvGeometry
    taps : int64 array [taps, 2]
        How far each tap is below and to the right of a window's first pixel, in pixels.
    x, outside : int
        Addresses of the images, and of the values that replace a pixel outside the image.
    itemsize : int
        Bytes of a number.
    short : bool
        Whether tiles may have one pixel less than `ROWS`.
    alike : bool
        Whether pixels that have the same taps outside the image share tiles, as far as possible. If not, a tile's
        pixels follow one another.
    """
    rows_inside = taps_inside(g.out_height, g.stride, g.pad_top, g.height, taps[:, 0])
    columns_inside = taps_inside(g.out_width, g.stride, g.pad_left, g.width, taps[:, 1])
    groups = _alike(rows_inside, columns_inside, g.batch) if alike and g.pixels else [np.arange(g.pixels)]
    pixel, heights = map(np.concatenate, zip(*[_fill(group, short) for group in groups], strict=True))
    # In the order of their first pixels, so that tiles that are close in time share cached data.
    by_place = np.argsort(pixel[:, 0], kind="stable")
    pixel, heights = pixel[by_place], heights[by_place]
    offsets = pixel * (g.out_channels * itemsize)
    pixel = np.ascontiguousarray(pixel.T)  # NumPy's reductions are slow along a short last axis
    pixel, column = np.divmod(pixel, g.out_width)
    image, row = np.divmod(pixel, g.out_height)
    top, left = row * g.stride - g.pad_top, column * g.stride - g.pad_left
    corner = x + ((image * g.height + top) * g.width + left) * (g.channels * itemsize)
    table = np.empty((len(heights), len(taps), ROWS), np.int64)
    inside = np.empty((len(heights), len(taps)), bool)
    for tap, (down, right) in enumerate(taps):
        there = rows_inside[row, tap] & columns_inside[column, tap]
        table[:, tap] = np.where(there, corner + (down * g.width + right) * (g.channels * itemsize), outside).T
        inside[:, tap] = there.any(axis=0)
    return Tiles(table, offsets, inside, heights)


def _fill(group: np.ndarray, short: bool) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [tiles, ROWS] of as few tiles as possible, and the number of pixels in each.

    That is `ROWS`; if ``short``, it is one less in as many tiles as leaves the fewest rows empty.
    """
    tiles = -(-len(group) // ROWS)
    tall = _places(len(group)) - tiles * (ROWS - 1) if short else tiles
    heights = np.repeat((ROWS, ROWS - 1), (tall, tiles - tall))
    number = (heights.cumsum() - heights)[:, None] + np.minimum(np.arange(ROWS), heights[:, None] - 1)
    # Rows past the last pixel, of a tile or of the group, repeat it: they compute and store the same value again.
    return group[np.minimum(number, len(group) - 1)], heights


def _places(pixels: int) -> int:
    """The number of places in the tiles of this many pixels, if some tiles may be short."""
    return max(pixels, -(-pixels // ROWS) * (ROWS - 1))


def _alike(rows_inside: np.ndarray, columns_inside: np.ndarray, batch: int) -> list[np.ndarray]:
    """Groups of pixels that have the same taps inside the image, so that each group fills its tiles.

    Pixels that do not fill a whole tile go where they cost the fewest products: to a partly filled tile of their kind,
    or to pixels with more taps inside.
    """
    rows, columns = _stretches(rows_inside), _stretches(columns_inside)
    kinds = np.tile((rows[:, None] * len(columns) + columns).ravel(), batch)
    numbers, firsts = np.unique(kinds, return_index=True)
    row, column = np.divmod(firsts, len(columns))
    inside = [frozenset(np.flatnonzero(taps).tolist()) for taps in rows_inside[row] & columns_inside[column]]
    by_taps = sorted(range(len(numbers)), key=lambda kind: len(inside[kind]))
    inside = [inside[kind] for kind in by_taps]
    groups = [np.flatnonzero(kinds == numbers[kind]) for kind in by_taps]

    def cost(host: int, more: int) -> int:
        pixels = len(groups[host])
        return (_places(pixels + more) - _places(pixels)) * len(inside[host])

    for kind, group in enumerate(groups):
        rest = next(rest for rest in range(ROWS) if _places(len(group) - rest) == len(group) - rest)
        if rest:
            groups[kind], moved = np.split(group, [-rest])
            hosts = [host for host in range(kind, len(groups)) if inside[kind] <= inside[host]]
            host = min(hosts, key=lambda host: cost(host, rest))
            groups[host] = np.sort(np.append(groups[host], moved))
    return groups


def taps_inside(positions: int, stride: int, pad: int, size: int, taps: np.ndarray) -> np.ndarray:
    """Along a side of the image, whether each tap of each position is inside: bool array [positions, taps]."""
    start = np.arange(positions)[:, None] * stride - pad + taps
    inside: np.ndarray = (start >= 0) & (start < size)
    return inside


def _stretches(inside: np.ndarray) -> np.ndarray:
    """A number for each position, the same for neighbours that have the same taps inside."""
    changes = np.zeros(len(inside), np.int64)
    changes[1:] = (inside[1:] != inside[:-1]).any(axis=1)
    return np.cumsum(changes)
