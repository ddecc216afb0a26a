"""Convolution on CUDA: an implicit GEMM of pixels by output channels, one chain of products an output (rule A1).

A block makes a tile of the output. Products are taken a step at a time, through buffers of shared memory: while the
threads work on one, copies to all the others are on their way from the image and the weights (``cp.async``, which fills
with zeros what lies outside the image). The image is read through a table, a row a product: how far from the window's
corner its number lies. So one kernel serves every size, stride, rate and pad. Each thread has two tiles of sums, one of
the run (``s``) and one of all runs (``t``). Of small problems two teams of threads share a tile, and each has every
other run: where there are too few tiles for the device, a chain of runs is what takes long. The first team adds up the
sums of both, in order.

The finished tile is parked in shared memory and comes out in vectors of four channels, for the epilogue (rule A2).

The kernels are ``cuda_kernel.conv_kernel(tile)`` for each tile of `TILES`; some copy four channels of the image as one
vector, which must lie at a multiple of 16 bytes, and the others copy number by number. Parameters: the addresses
`OPERANDS` (int64; 0 stands for "none"), then the integers `INTEGERS` (int32). `launch` gives kernel, grid and
arguments; the block is ``kernel.threads`` threads, shared memory is static.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from refnet_kernels.contract import ConvGeometry, Float32Array, Norm
from refnet_kernels.conv.cuda_kernel import CHANNELS, OPERANDS, OUTSIDE, PANEL, PRODUCTS, TILES, Tile, conv_kernel
from refnet_kernels.gpu import device
from refnet_kernels.gpu.launch import CudaLaunch, make_launch


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def pack(weights: Float32Array) -> Float32Array:
    """HWIO weights as [panels, products, channels of a panel], filled up with zeros to whole steps and tiles."""
    height, width, channels, out_channels = weights.shape
    products = height * width * channels
    flat = np.zeros((_padded(products, PRODUCTS), _padded(out_channels, CHANNELS)), np.float32)
    flat[:products, :out_channels] = weights.reshape(products, out_channels)
    return np.ascontiguousarray(flat.reshape(len(flat), -1, PANEL).swapaxes(0, 1))


def tap_table(geometry: ConvGeometry) -> np.ndarray:
    """For each product the numbers from the window's corner, the row and the column; the last ones outside any image.

    There are enough of the last ones for every team to look one step ahead.
    """
    g = geometry
    kind = [(name, "<i4") for name in ("offset", "row", "column", "filling")]
    table = np.zeros(_padded(g.products, PRODUCTS) + PRODUCTS, kind)
    rows, columns, channels = np.indices((g.kernel_height, g.kernel_width, g.channels)).reshape(3, -1)
    used = table[: g.products]
    used["row"], used["column"] = rows * g.rate, columns * g.rate
    used["offset"] = (rows * g.rate * g.width + columns * g.rate) * g.channels + channels
    table["row"][g.products :] = OUTSIDE
    return table


def launch(
    geometry: ConvGeometry, addresses: dict[str, int], relu: bool, sum_relu: bool, processors: int = 132
) -> CudaLaunch:
    """The launch that convolves, with the addresses of its operands.

    Parameters
    ----------
    geometry : ConvGeometry
    addresses : dict
        ``x``, ``weights`` (from `pack`), ``taps`` (from `tap_table`); if wanted ``bias``; ``mean``, ``scale``,
        ``beta``; ``shortcut``; ``out``; ``next_mean``, ``next_scale``, ``next_beta``, ``preact``. The values a
        channel come from `refnet_kernels.gpu.device.pack_channels`. All that is packed lies at multiples of 16 bytes.
    relu : bool
        Whether ReLU follows the batch norm.
    sum_relu : bool
        Whether ReLU follows the sum with the shortcut.
    processors : int
        Multiprocessors of the device, which all should have work.
    """
    g = geometry
    at = {name: addresses.get(name, 0) for name in OPERANDS}
    tile = _tile(g, g.channels % 4 == 0 and at["x"] % 16 == 0, processors)
    panels = -(-g.out_channels // tile.channels)
    whole = g.out_channels % 4 == 0 and all(at[name] % 16 == 0 for name in ("shortcut", "out", "preact"))
    integers = (
        int(relu), int(sum_relu), int(whole), g.pixels, g.out_channels, _padded(g.products, PRODUCTS), panels,
        tile.steps(g.products), g.height * g.width * g.channels,
        g.height, g.width, g.channels, g.out_height, g.out_width, g.stride, g.pad_top, g.pad_left,
    )  # fmt: skip
    return make_launch(conv_kernel(tile), panels * -(-g.pixels // tile.pixels), at.values(), integers)


def _tile(g: ConvGeometry, vectors: bool, processors: int) -> Tile:
    """The tile with which the busiest multiprocessor is done first."""

    def clocks(tile: Tile) -> float:
        """Of the busiest multiprocessor, for a product."""
        blocks = -(-g.out_channels // tile.channels) * -(-g.pixels // tile.pixels)
        warps, read = -(-blocks // processors) * tile.threads // 32, tile.rows + tile.columns
        # An instruction for each sum of a thread, and about half of one for each number that it reads: one a clock for
        # each of four warps. A warp's read of four numbers takes two clocks of shared memory.
        return max(-(-warps // 4) * (tile.rows * tile.columns + read / 2), warps * read / 2) / tile.teams

    return min((tile for tile in TILES if tile.vectors == vectors), key=clocks)


def call(
    x: Float32Array,
    weights: Float32Array,
    geometry: ConvGeometry,
    bias: Float32Array | None = None,
    norm: Norm | None = None,
    relu: bool = False,
    shortcut: Float32Array | None = None,
    sum_relu: bool = False,
    next_norm: Norm | None = None,
    keep_out: bool = True,
) -> tuple[Float32Array | None, Float32Array | None]:
    """`refnet_kernels.conv` with its epilogue, on arrays.

    Returns
    -------
    out, preact : float32 arrays [batch, out_height, out_width, out_channels], or None
        ``out`` unless ``keep_out`` is False; ``preact`` if there is a ``next_norm``.
    """
    g = geometry
    arrays = {"x": x, "weights": pack(weights), "taps": tap_table(g)}
    if bias is not None:
        arrays["bias"] = device.pack_channels(bias)
    for prefix, statistics in (("", norm), ("next_", next_norm)):
        if statistics is not None:
            arrays |= {f"{prefix}{role}": device.pack_channels(values) for role, values in statistics._asdict().items()}
    if shortcut is not None:
        arrays["shortcut"] = shortcut
    shape = (g.batch, g.out_height, g.out_width, g.out_channels)
    shapes = {name: shape for name, kept in (("out", keep_out), ("preact", next_norm is not None)) if kept}
    make = partial(launch, g, relu=relu, processors=device.first_device().processors, sum_relu=sum_relu)
    outputs = device.run_once(make, arrays, shapes)
    return outputs.get("out"), outputs.get("preact")
