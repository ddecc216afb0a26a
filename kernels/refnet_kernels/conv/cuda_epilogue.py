"""The epilogue of a CUDA convolution (rule A2): the finished tile leaves shared memory in vectors of four channels.

All threads of a block share the tile: a thread finishes a vector of one row, then one of a row further down, and so on.
It reads the shortcuts of some of these rows before it writes the first, so that the reads overlap.

All functions here are parts of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refnet_kernels.conv.cuda_tile import Tile
from refnet_kernels.gpu.code import helper, inlined, load4, load_shared4
from refnet_kernels.gpu.vector import add4, batch_norm4, read4, relu4, write4, zero4

#: Rows of the finished tile whose shortcuts a thread reads at a time.
AHEAD = 4


def finished_share(tile: Tile) -> tuple[Callable[..., Any], int]:
    """A thread's share of the finished tile.

    Returns
    -------
    finished : function(start, thread) -> row, channel, place
        The first of the thread's rows of the tile, the first of its four channels, and the place of that vector in row
        0 of the finished tile. ``start`` is the place where shared memory begins.
    rows_apart : int
        Rows from each of its rows to the next.
    """
    fours, finished_start = tile.channels // 4, tile.finished_start

    @helper
    def finished(start, thread):
        channel = np.int32(thread % fours * 4)
        return np.int32(thread // fours), channel, np.int32(start + finished_start + channel * 4)

    return finished, tile.threads // fours


def epilogue(tile: Tile) -> Callable[..., Any]:
    """The epilogue of a tile.

    Returns
    -------
    finish_tile : function(start, thread, first_pixel, first_channel, pixels, out_channels, whole, relus, to, values)
        Write a thread's share of the tile that begins at ``first_pixel`` and ``first_channel``, through the epilogue.
        ``relus`` are ``relu`` and ``sum_relu``; ``to`` are the addresses of ``shortcut``, ``out`` and ``preact``;
        ``values`` those of the values per channel: ``bias``, ``mean``, ``scale``, ``beta``, ``next_mean``,
        ``next_scale`` and ``next_beta``. An address of 0 stands for "none".
    """
    tile_pixels = tile.pixels
    finished, rows_apart = finished_share(tile)
    ahead = min(AHEAD, max(tile_pixels // rows_apart, 1))
    read_rows, finish_rows = _rows(ahead, rows_apart, tile.park_stride)

    @inlined
    def finish_tile(start, thread, first_pixel, first_channel, pixels, out_channels, whole, relus, to, values):
        row, channel, place = finished(start, thread)
        channel = np.int32(first_channel + channel)
        count = np.int32(min(out_channels - channel, 4))
        if count <= 0:
            return
        bias, mean, scale, beta, next_mean, next_scale, next_beta = values
        vectors = (
            load_channels(bias, channel),
            load_channels(mean, channel), load_channels(scale, channel), load_channels(beta, channel),
            load_channels(next_mean, channel), load_channels(next_scale, channel), load_channels(next_beta, channel),
        )  # fmt: skip
        first = (np.int64(first_pixel) * out_channels + channel) * 4
        row_bytes, limit = np.int64(out_channels) * 4, np.int32(min(pixels - first_pixel, tile_pixels))
        shortcut, out, preact = to
        shortcut, out, preact = at_first(shortcut, first), at_first(out, first), at_first(preact, first)
        extent, addresses = (limit, row_bytes, whole, count), (bias, mean, shortcut, out, preact)
        while row < limit:
            # All are read before one is written, so that the reads overlap.
            shortcuts = read_rows(shortcut, row, extent)
            finish_rows(shortcuts, row, extent, place, addresses, relus, vectors)
            row = np.int32(row + ahead * rows_apart)

    return finish_tile


def _rows(count: int, apart: int, park_stride: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A thread's vectors in ``count`` rows (a power of two) that are ``apart`` from each other, as two halves.

    ``extent`` is: the number of rows, the bytes from each to the next in the output, and `write4`'s ``whole`` and
    ``count``.

    Returns
    -------
    read : function(shortcut, row, extent) -> shortcuts
        Nested pairs of vectors of the shortcut, from the address of the thread's vector in row 0.
    finish : function(shortcuts, row, extent, place, addresses, relus, vectors)
        Take the vectors of the finished tile through the epilogue. ``addresses`` are those of ``bias``,
        ``mean``, ``shortcut``, ``out`` and ``preact``; ``vectors`` the four channels' values.
    """
    if count == 1:
        return read_row, _finish_row(park_stride * 4)
    read_half, finish_half = _rows(count // 2, apart, park_stride)
    distance = count // 2 * apart

    @helper
    def read_both(shortcut, row, extent):
        other = np.int32(row + distance)
        return read_half(shortcut, row, extent), read_half(shortcut, other, extent)

    @helper
    def finish_both(shortcuts, row, extent, place, addresses, relus, vectors):
        other = np.int32(row + distance)
        finish_half(shortcuts[0], row, extent, place, addresses, relus, vectors)
        finish_half(shortcuts[1], other, extent, place, addresses, relus, vectors)

    return read_both, finish_both


@helper
def read_row(shortcut, row, extent):
    """The shortcut's vector in a row; zeros if there is none."""
    limit, row_bytes, whole, count = extent
    if shortcut != 0 and row < limit:
        return read4(shortcut + np.int64(row) * row_bytes, whole, count)
    return zero4()


def _finish_row(park_bytes: int) -> Callable[..., Any]:
    """The epilogue of one row of the finished tile, whose rows are ``park_bytes`` apart."""

    @helper
    def finish_row(shortcut4, row, extent, place, addresses, relus, vectors):
        limit, row_bytes, whole, count = extent
        if row >= limit:
            return
        (bias, mean, shortcut, out, preact), (relu, sum_relu) = addresses, relus
        bias4, mean4, scale4, beta4, next_mean4, next_scale4, next_beta4 = vectors
        offset = np.int64(row) * row_bytes
        value = load_shared4(np.int32(place + row * np.int32(park_bytes)))
        if bias != 0:
            value = add4(value, bias4)
        if mean != 0:
            value = batch_norm4(value, mean4, scale4, beta4)
        if relu != 0:
            value = relu4(value)
        if shortcut != 0:
            value = add4(shortcut4, value)
            if sum_relu != 0:
                value = relu4(value)
        if out != 0:
            write4(out + offset, value, whole, count)
        if preact != 0:
            value = relu4(batch_norm4(value, next_mean4, next_scale4, next_beta4))
            write4(preact + offset, value, whole, count)

    return finish_row


@helper
def load_channels(address, channel):
    """Four channels' values, or zeros if there are none."""
    return load4(address + np.int64(channel) * 4) if address != 0 else zero4()


@helper
def at_first(address, offset):
    """The address where a tile begins in an array; 0 if there is no array."""
    return address + offset if address != 0 else np.int64(0)
