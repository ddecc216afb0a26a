"""Convolution on the CPU: an indirect GEMM over register tiles of `ROWS` pixels x `WIDTH_BYTES` of output channels.

Some tiles have a pixel less where that leaves none empty: with `ROWS` of 6, 49 pixels are 4 tiles of 6 and 5 of 5.

Every output is a chain of its own (rule A1), so tiles, panels and threads divide the outputs as they like.

The image is read through a table of addresses, one a pixel and tap, that is made with the step; a tap outside the
image points to a row of zeros. So one kernel serves every size, stride, rate and pad. The weights are packed by panels
of `WIDTH_BYTES` of output channels, k by k.

Pixels that have the same taps outside share tiles, and a tile leaves out what is outside for all of them, where taps
are whole runs and weights are finite: such a run's sum is +0, and adding it changes nothing, as no sum of runs is -0.
At 7 x 7 pixels these are 9% of a 3 x 3 kernel's products, and 12% at 41 x 41 with a rate of 4.

The epilogue (rule A2) is applied to the sums while they are in registers: bias, batch norm, ReLU, residual, ReLU; and,
from the stored value, a second output that the next unit starts with: its ``preact``.

An item is some tiles by a group of panels, and items run through all tiles of a group before the next group: a thread's
share has the fewest weights that can be. What comes next is fetched ahead of its use, evenly spread over the work; at
the end of a thread's share, that is the first weights of the following convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.contract import BINARY32, RUN, ConvGeometry, FloatArray, Norm
from refnet_kernels.jit import function_address
from refnet_kernels.layout import TILE_BYTES, pack_channels, tiles_of
from refnet_kernels.target import LINE_BYTES, ROWS, WIDTH_BYTES
from refnet_kernels.team import Launch, run_once, share_of

# What a step's row holds. Addresses; 0 stands for "none".
OPERANDS = (
    "weights", "bias", "mean", "scale", "beta", "shortcut", "out", "next_mean", "next_scale", "next_beta", "preact",
)  # fmt: skip
WEIGHTS, BIAS, MEAN, SCALE, BETA, SHORTCUT, OUT, NEXT_MEAN, NEXT_SCALE, NEXT_BETA, PREACT = range(11)
TABLE, OFFSETS, PARTS, TAPS = range(11, 15)
# Integers.
RELU, SUM_RELU, CHANNELS, PRODUCTS, TAP_COUNT, LENGTH = range(15, 21)
PANELS, TILES, ITEM_PANELS, ITEM_TILES = range(21, 25)
AHEAD = 25

#: Weights of an item: panels are added up to this many bytes, so that they stay in the second-level cache.
ITEM_WEIGHT_BYTES = 256 * 1024
#: Products of an item, some 20 us of work: small enough to share out evenly, large enough to be worth drawing.
ITEM_PRODUCTS = 2 * 1024 * 1024
#: Items come in multiples of this where they can: as many for each of two or of four threads.
EVEN = 4
#: Products a turn of the innermost loop, where they divide a tap's, else one; each pair, or one, fetches a line ahead.
TURN = 4
#: Up to this many tiles a step's time depends on how soon its weights come from memory, with more on its pixels.
FEW_TILES = 64


def packed_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """The shape of packed HWIO weights: panels, products, output channels of a panel."""
    *window, out_channels = shape
    panel_width = WIDTH_BYTES // dtype.itemsize
    return -(-out_channels // panel_width), int(np.prod(window)), panel_width


def pack(weights: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """HWIO weights in `packed_shape`, the last panel filled up with zeros.

    Parameters
    ----------
    weights : float array [kernel_height, kernel_width, channels, out_channels]
    out : float array, optional
        Zeros to write to, of the shape for their dtype.
    """
    if out is None:
        out = np.zeros(packed_shape(weights.shape, weights.dtype), weights.dtype)
    _, products, width = out.shape
    flat = weights.reshape(products, weights.shape[3])
    for panel, packed in enumerate(out):
        part = flat[:, panel * width : (panel + 1) * width]
        packed[:, : part.shape[1]] = part
    return out


def packs_in_place(weights: FloatArray, dtype: np.dtype[Any]) -> bool:
    """Whether weights take as much memory packed in a dtype, and lie where packed weights may."""
    fills_panels = weights.shape[3] * dtype.itemsize % WIDTH_BYTES == 0
    return (
        fills_panels and weights.dtype == dtype and weights.flags.c_contiguous and weights.ctypes.data % LINE_BYTES == 0
    )


def pack_in_place(weights: FloatArray, spare: FloatArray) -> FloatArray:
    """The packed weights, in the memory of ``weights``; ``spare`` has room for as many numbers."""
    copy = spare[: weights.size].reshape(weights.shape)
    np.copyto(copy, weights)
    return pack(copy, weights.reshape(packed_shape(weights.shape, weights.dtype)))


def _taps(g: ConvGeometry) -> tuple[np.ndarray, int]:
    """Where each tap lies in the image, and how many contiguous products it has."""
    if g.rate == 1 and _never_outside(g):
        # A row of the kernel is one stretch of memory.
        taps = [(kh, 0) for kh in range(g.kernel_height)]
        return np.array(taps, np.int64), g.kernel_width * g.channels
    taps = [(kh * g.rate, kw * g.rate) for kh in range(g.kernel_height) for kw in range(g.kernel_width)]
    return np.array(taps, np.int64), g.channels


def _never_outside(g: ConvGeometry) -> bool:
    bottom = (g.out_height - 1) * g.stride - g.pad_top + g.kernel_height
    right = (g.out_width - 1) * g.stride - g.pad_left + g.kernel_width
    return g.pad_top == 0 and g.pad_left == 0 and bottom <= g.height and right <= g.width


def _fetches(length: int) -> int:
    """How often the kernel fetches ahead in a tap's products: with each turn of one, or with each pair."""
    return length // 2 if length % TURN == 0 else length


def _parts(wanted: np.ndarray, heights: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The taps that each tile does.

    Parameters
    ----------
    wanted : bool array [tiles, taps]
    heights : int64 array [tiles]
    length : int
        A tap's products.

    Returns
    -------
    parts : int64 array [tiles + 1, 4]
        Where in the taps a tile's first is, and its last + 1; how often a panel fetches ahead in the tiles before; and
        the tile's pixels.
    taps : int64 array
    """
    bits = np.packbits(wanted, axis=1)
    _, firsts, which = np.unique(bits.view(f"S{bits.shape[1]}").ravel(), return_index=True, return_inverse=True)
    lists = [np.flatnonzero(pattern) for pattern in wanted[firsts]]
    count = wanted.sum(axis=1)
    parts = np.zeros((len(wanted) + 1, 4), np.int64)
    parts[:-1, 1] = np.cumsum(count[firsts])[which]
    parts[:-1, 0] = parts[:-1, 1] - count
    parts[1:, 2] = np.cumsum(count) * _fetches(length)
    parts[:-1, 3] = heights
    return parts, np.concatenate([np.zeros(0, np.int64), *lists])


def _ahead(g: ConvGeometry, x: int, row: list[int], items: int, fetches: int, itemsize: int) -> np.ndarray:
    """What each item fetches while it works.

    Either the tile's part of the panel that takes this one's place in the next group of panels; or, of a 1 x 1 kernel,
    the panel's part of the next tile's pixels. Larger kernels find most of these in the cache. See also `fetch_first`.

    ``fetches`` are those of all tiles in a panel.

    Returns
    -------
    int64 array [items, 4]
        Where an item begins to fetch, and the bytes by which that moves: with every fetch, with each of the tiles
        before, and with each panel of the group.
    """
    ahead = np.zeros((items, 4), np.int64)
    ahead[:, 0] = row[WEIGHTS]
    if _fetches_weights(row):
        panel_bytes = g.products * WIDTH_BYTES
        ahead[:, 0] += (np.arange(items) // _blocks(row) + 1) * row[ITEM_PANELS] * panel_bytes
        step = min(-(-panel_bytes // max(fetches, 1)), LINE_BYTES)
        ahead[:, 1:] = step, step, panel_bytes
    elif row[TILES] > FEW_TILES and g.kernel_height == g.kernel_width == g.stride == 1:
        tile_bytes, often = g.pixels * g.channels * itemsize // row[TILES], max(_fetches(row[LENGTH]), 1)
        step = -(-tile_bytes // (often * row[ITEM_PANELS]))
        ahead[:] = x + tile_bytes, step, tile_bytes // often, often * step
    return ahead


def _blocks(row: list[int]) -> int:
    """Items of a group of panels."""
    return -(-row[TILES] // row[ITEM_TILES])


def _fetches_weights(row: list[int]) -> bool:
    return 1 < row[TILES] <= FEW_TILES


def fetch_first(following: Launch, before: Launch, threads: int) -> None:
    """Have each thread end a convolution by fetching the weights with which it begins the following one.

    Parameters
    ----------
    following, before : Launch
        From `launch`; ``before`` is changed.
    threads : int
        Of the program that they become part of.
    """
    *_, parts, _, ahead = before.kept
    row, after = before.row, following.row
    blocks, group_bytes = _blocks(row), after[ITEM_PANELS] * after[PRODUCTS] * WIDTH_BYTES
    for number in range(threads):
        share, first = share_of(before.items, number, threads), share_of(following.items, number, threads)
        if not (share and first):
            continue
        address = after[WEIGHTS] + first.start // _blocks(after) * group_bytes
        if _fetches_weights(row):
            ahead[share[-blocks:], 0] = address
            continue
        tile, panels = share[-1] % blocks * row[ITEM_TILES], row[ITEM_PANELS]
        before_item, after_item = parts[[tile, min(tile + row[ITEM_TILES], row[TILES])], 2]
        if after_item > before_item:
            step = min(-(-group_bytes // ((after_item - before_item) * panels)), LINE_BYTES)
            panel_fetches = row[TAP_COUNT] * _fetches(row[LENGTH])
            ahead[share[-1]] = address - before_item * panels * step, step, panels * step, panel_fetches * step


def _even(tiles: int, item_tiles: int, groups: int) -> int:
    """Fewer tiles an item where that makes their number a multiple of `EVEN`, so that threads have as many each."""
    blocks = -(-tiles // item_tiles)
    if blocks * groups % EVEN == 0:
        return item_tiles
    return max(1, -(-tiles // (-(-blocks // EVEN) * EVEN)))


def launch(
    geometry: ConvGeometry,
    addresses: dict[str, int],
    relu: bool,
    sum_relu: bool,
    dtype: np.dtype[Any] = BINARY32,
) -> Launch:
    """The step that convolves, with the addresses of its operands.

    Parameters
    ----------
    geometry : ConvGeometry
    addresses : dict
        ``x``, ``zeros`` (as long as a tap), ``weights`` (from `pack`); if wanted ``bias``; ``mean``, ``scale``,
        ``beta``; ``shortcut``; ``out``; ``next_mean``, ``next_scale``, ``next_beta``, ``preact``. The values a
        channel come from `pack_channels`. At least one of ``out`` and ``preact`` is written. And ``finite``: 1 where
        all the weights are known to be, so that products outside the image may be left out.
    relu : bool
        Whether ReLU follows the batch norm.
    sum_relu : bool
        Whether ReLU follows the sum with the shortcut.
    dtype : numpy.dtype
        Of all the operands.
    """
    g = geometry
    taps, length = _taps(g)
    skips = bool(addresses.get("finite", 0)) and length % RUN == 0
    at = tiles_of(g, taps, addresses["x"], addresses["zeros"], dtype.itemsize, length % TURN == 0, skips)
    parts, wanted_taps = _parts(at.inside if skips else np.ones_like(at.inside), at.heights, length)
    width = WIDTH_BYTES // dtype.itemsize
    panels, tiles = -(-g.out_channels // width), len(at.table)
    item_panels = max(1, min(panels, ITEM_WEIGHT_BYTES // max(g.products * WIDTH_BYTES, 1)))
    item_tiles = max(1, min(tiles, ITEM_PRODUCTS // max(g.products * width * item_panels * ROWS, 1)))
    item_tiles = _even(tiles, item_tiles, -(-panels // item_panels))
    arrays = (at.table, at.offsets, parts, wanted_taps)
    row = [addresses.get(name, 0) for name in OPERANDS]
    row += [array.ctypes.data for array in arrays]
    row += [int(relu), int(sum_relu), g.out_channels, g.products, len(taps), length]
    row += [panels, tiles, item_panels, item_tiles]
    items = -(-tiles // item_tiles) * -(-panels // item_panels)
    ahead = _ahead(g, addresses["x"], row, items, int(parts[-1, 2]), dtype.itemsize)
    row.append(ahead.ctypes.data)
    kernel = function_address("refnet_kernels.conv.cpu_kernel", "conv_kernel", dtype.name)
    # The thread's scratch has room for two tiles: for sums of runs, and to put ragged edges together.
    return Launch(kernel, items, row, 2 * TILE_BYTES, (*arrays, ahead))


def call(
    x: FloatArray,
    weights: FloatArray,
    geometry: ConvGeometry,
    bias: FloatArray | None = None,
    norm: Norm | None = None,
    relu: bool = False,
    shortcut: FloatArray | None = None,
    sum_relu: bool = False,
    next_norm: Norm | None = None,
    keep_out: bool = True,
) -> tuple[FloatArray | None, FloatArray | None]:
    """`refnet_kernels.conv` with its epilogue, on arrays.

    Returns
    -------
    out, preact : float arrays [batch, out_height, out_width, out_channels], or None
        ``out`` unless ``keep_out`` is False; ``preact`` if there is a ``next_norm``.
    """
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.out_channels)
    arrays = {"x": np.ascontiguousarray(x), "weights": pack(weights)}
    arrays["zeros"] = np.zeros(g.kernel_width * g.channels, x.dtype)
    if bias is not None:
        arrays["bias"] = pack_channels(bias)
    for prefix, statistics in (("", norm), ("next_", next_norm)):
        if statistics is not None:
            arrays |= {f"{prefix}{role}": pack_channels(values) for role, values in statistics._asdict().items()}
    if shortcut is not None:
        arrays["shortcut"] = np.ascontiguousarray(shortcut)
    outputs = {"out": np.empty(shape, x.dtype)} if keep_out else {}
    if next_norm is not None:
        outputs["preact"] = np.empty(shape, x.dtype)
    addresses = {name: array.ctypes.data for name, array in (arrays | outputs).items()}
    addresses["finite"] = int(np.isfinite(weights).all())
    run_once(launch(g, addresses, relu, sum_relu, x.dtype))
    return outputs.get("out"), outputs.get("preact")
