"""The compiled part of the max pool."""

from __future__ import annotations

from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.memory import prefetch, size_of
from refnet_kernels.cpu.tile import (
    CLOSE_ROWS,
    copy_columns,
    larger_tile,
    load_rows,
    load_tile,
    normalize,
    prefetch_tile,
    relu_tile,
    store_tile,
)
from refnet_kernels.max_pool.cpu import AT, ITEM_TILES
from refnet_kernels.target import LINE_BYTES, ROWS, WIDTH_BYTES


@helper
def _load(pixels, channel, columns, scratch, element):
    """The tile that a tap reads; at the ragged edge, a copy of the columns that exist."""
    at = channel * size_of(element)
    if columns * size_of(element) == WIDTH_BYTES:
        return load_tile(at, load_rows(pixels, CLOSE_ROWS), element)
    copy_columns(at, load_rows(pixels, CLOSE_ROWS), scratch, CLOSE_ROWS, columns, element)
    return load_tile(scratch, CLOSE_ROWS, element)


@helper
def _store(t, address, rows, columns, scratch, element):
    if columns * size_of(element) == WIDTH_BYTES:
        store_tile(t, address, rows)
    else:
        store_tile(t, scratch, CLOSE_ROWS)
        copy_columns(scratch, CLOSE_ROWS, address, rows, columns, element)


@helper
def _prefetch(step, taps, rows, at):
    """Have a tile's pixels, and the place of its outputs, on their way."""
    if step[AT.out] != 0:
        prefetch_tile(step[AT.out] + at, rows)
    if step[AT.preact] != 0:
        prefetch_tile(step[AT.preact] + at, rows)
    for tap in range(step[AT.tap_count]):
        pixels = load_rows(taps + tap * ROWS * 8, CLOSE_ROWS)
        for row in range(ROWS):
            for offset in range(0, WIDTH_BYTES, LINE_BYTES):
                prefetch(pixels[row] + at + offset)


@kernel
def max_pool_kernel(step, item, scratch, element):
    """One item: some tiles of pixels."""
    width = WIDTH_BYTES // size_of(element)
    for tile in range(item * ITEM_TILES, min((item + 1) * ITEM_TILES, step[AT.tiles])):
        taps = step[AT.table] + tile * step[AT.tap_count] * ROWS * 8
        rows = load_rows(step[AT.offsets] + tile * ROWS * 8, CLOSE_ROWS)
        for channel in range(0, step[AT.channels], width):
            columns = min(step[AT.channels] - channel, width)
            at = channel * size_of(element)
            if tile + 1 < step[AT.tiles]:
                _prefetch(
                    step,
                    taps + step[AT.tap_count] * ROWS * 8,
                    load_rows(step[AT.offsets] + (tile + 1) * ROWS * 8, CLOSE_ROWS),
                    at,
                )
            t = _load(taps, channel, columns, scratch, element)
            for tap in range(1, step[AT.tap_count]):
                t = larger_tile(t, _load(taps + tap * ROWS * 8, channel, columns, scratch, element))
            if step[AT.out] != 0:
                _store(t, step[AT.out] + at, rows, columns, scratch, element)
            if step[AT.preact] != 0:
                t = normalize(t, step[AT.next_mean] + at, step[AT.next_scale] + at, step[AT.next_beta] + at)
                _store(relu_tile(t), step[AT.preact] + at, rows, columns, scratch, element)
