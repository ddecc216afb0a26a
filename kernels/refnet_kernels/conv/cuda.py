"""Convolution on CUDA: an implicit GEMM of pixels by output channels, one chain of products per output (rule A1).

A block computes a tile of the output. Products are taken a step at a time, through buffers of shared memory: while the
threads work on one, copies from the image and the weights to all the others are under way (``cp.async``, which writes
zeros for pixels outside the image). The image is read through a table with one row per product: the distance of its
value from the window's corner. So one kernel serves every size, stride, rate and pad. Each thread has two tiles of
sums, one of the current run (``s``) and one of all runs (``t``). In small problems several teams of threads share a
tile and take turns with the runs: with too few tiles for the device, the chain of runs decides the time. The teams pass
on their sums in shared memory, where all threads add them up, in order.

The finished tile goes to shared memory and is read back in vectors of four channels, for the epilogue (rule A2).

The kernels are ``cuda_kernel.conv_kernel(tile)`` for each tile of `TILES`. Some copy four channels of the image as one
vector, which must be at a multiple of 16 bytes; the others copy number by number. Of the addresses `OPERANDS`, 0 stands
for "none". `launch` gives kernel, grid and arguments; a block has ``kernel.threads`` threads and
``kernel.shared_bytes`` of dynamic shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from refnet_kernels.contract import RUN, ConvGeometry, Flags, Float32Array, Norm, Packed, Target
from refnet_kernels.conv.cuda_copies import OUTSIDE
from refnet_kernels.conv.cuda_kernel import INTEGERS, OPERANDS, conv_kernel
from refnet_kernels.conv.cuda_tile import CHANNELS, PANEL, PRODUCTS, TEAMS, TILES, Tile
from refnet_kernels.conv.cuda_tuning import cuda_tuning
from refnet_kernels.gpu.device import first_device, pack_channels
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def pack(weights: Float32Array) -> Float32Array:
    """HWIO weights as [panels, products, channels of a panel], padded with zeros to whole steps and tiles."""
    height, width, channels, out_channels = weights.shape
    products = height * width * channels
    flat = np.zeros((_padded(products, PRODUCTS), _padded(out_channels, CHANNELS)), np.float32)
    flat[:products, :out_channels] = weights.reshape(products, out_channels)
    return np.ascontiguousarray(flat.reshape(len(flat), -1, PANEL).swapaxes(0, 1))


def prepare(weights: Mapping[str, Float32Array], packed: dict[str, Packed], owned: bool, target: Target) -> None:
    """Pack kernels by name into ``packed``; ``weights`` stay as they are."""
    packed |= {name: Packed(pack(array), finite=False) for name, array in weights.items()}


class Taps(NamedTuple):
    """The table through which an image is read, as a key of everything that it depends on."""

    width: int
    channels: int
    kernel_height: int
    kernel_width: int
    rate: int

    def values(self) -> np.ndarray:
        """One row per product: its distance from the window's corner, in floats, its row and its column.

        The last rows are outside any image. They suffice for every team to end its last run and to read a step ahead.
        """
        products = self.kernel_height * self.kernel_width * self.channels
        kind = [(name, "<i4") for name in ("offset", "row", "column", "filling")]
        table = np.zeros(_padded(products, TEAMS * RUN) + TEAMS * RUN, kind)
        rows, columns, channels = np.indices((self.kernel_height, self.kernel_width, self.channels)).reshape(3, -1)
        used = table[:products]
        used["row"], used["column"] = rows * self.rate, columns * self.rate
        used["offset"] = (rows * self.rate * self.width + columns * self.rate) * self.channels + channels
        table["row"][products:] = OUTSIDE
        return table


def tables(g: ConvGeometry) -> dict[str, Taps]:
    """The tables that a launch reads, by the names of their addresses."""
    return {"taps": Taps(g.width, g.channels, g.kernel_height, g.kernel_width, g.rate)}


def launch(geometry: ConvGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that convolves, with the addresses of its operands.

    Parameters
    ----------
    geometry : ConvGeometry
    addresses : mapping of str to int
        ``x``, ``weights`` (from `pack`), ``taps`` (from `tables`); optionally ``bias``; ``mean``, ``scale``, ``beta``;
        ``shortcut``; ``out``; ``next_mean``, ``next_scale``, ``next_beta``, ``preact``. The values per channel come
        from `refnet_kernels.gpu.device.pack_channels`. Everything packed is at multiples of 16 bytes.
    flags : Flags
    target : Target
        All of the device's multiprocessors, its ``workers``, should have work.
    """
    g = geometry
    at = {name: addresses.get(name, 0) for name in OPERANDS}
    tile = _tile(g, g.channels % 4 == 0 and at["x"] % 16 == 0, target)
    panels = -(-g.out_channels // tile.channels)
    whole = g.out_channels % 4 == 0 and all(at[name] % 16 == 0 for name in ("shortcut", "out", "preact"))
    integers = {name: size for name, size in g._asdict().items() if name in INTEGERS} | {
        "relu": int(flags.relu),
        "sum_relu": int(flags.sum_relu),
        "whole": int(whole),
        "pixels": g.pixels,
        "products": _padded(g.products, PRODUCTS),
        "panels": panels,
        "steps": tile.steps(g.products),
        "image_size": g.height * g.width * g.channels,
    }
    return make_launch(conv_kernel(tile), panels * -(-g.pixels // tile.pixels), at | integers)


def _tile(g: ConvGeometry, vectors: bool, target: Target) -> Tile:
    """The tile with which the busiest multiprocessor should finish first."""
    processors, numbers = target.workers, cuda_tuning(target.model)

    def clocks(tile: Tile) -> float:
        """Clocks of the busiest multiprocessor."""
        grid = -(-g.pixels // tile.pixels) * -(-g.out_channels // tile.channels)
        rounds, rest = divmod(-(-grid // processors), tile.blocks)
        return rounds * at_once(tile, tile.blocks) + (at_once(tile, rest) if rest else 0)

    def at_once(tile: Tile, blocks: int) -> float:
        """Clocks of this many blocks at the same time: per step, its instructions or the wait for its copies."""
        # There are four schedulers, and an instruction for each sum of a thread.
        warps = -(-blocks * tile.threads // 128)
        each = tile.rows * tile.columns + numbers.reads * (tile.rows + tile.columns)
        copied = numbers.wait + numbers.copies / (tile.stages - 1)
        return tile.steps(g.products) * max(warps * tile.depth * each / numbers.issue, copied) + numbers.block

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
    arrays = {"x": x, "weights": pack(weights), "taps": tables(g)["taps"].values()}
    if bias is not None:
        arrays["bias"] = pack_channels(bias)
    for prefix, statistics in (("", norm), ("next_", next_norm)):
        if statistics is not None:
            arrays |= {f"{prefix}{role}": pack_channels(values) for role, values in statistics._asdict().items()}
    if shortcut is not None:
        arrays["shortcut"] = shortcut
    shape = (g.batch, g.out_height, g.out_width, g.out_channels)
    shapes = {name: shape for name, kept in (("out", keep_out), ("preact", next_norm is not None)) if kept}
    target = Target(workers=first_device().processors, model=first_device().model)
    make = partial(launch, g, flags=Flags(relu, sum_relu), target=target)
    outputs = run_once(make, arrays, shapes)
    return outputs.get("out"), outputs.get("preact")
