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

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
OUT = AT.out
NEXT_MEAN = AT.next_mean
NEXT_SCALE = AT.next_scale
NEXT_BETA = AT.next_beta
PREACT = AT.preact
TABLE = AT.table
OFFSETS = AT.offsets
CHANNELS = AT.channels
TAP_COUNT = AT.tap_count
TILES = AT.tiles


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
    """Prefetch a tile's pixels, and the place of its outputs."""
    if step[OUT] != 0:
        prefetch_tile(step[OUT] + at, rows)
    if step[PREACT] != 0:
        prefetch_tile(step[PREACT] + at, rows)
    for tap in range(step[TAP_COUNT]):
        pixels = load_rows(taps + tap * ROWS * 8, CLOSE_ROWS)
        for row in range(ROWS):
            for offset in range(0, WIDTH_BYTES, LINE_BYTES):
                prefetch(pixels[row] + at + offset)


@kernel
def max_pool_kernel(step, item, scratch, element):
    """One item: some tiles of pixels."""
    width = WIDTH_BYTES // size_of(element)
    for tile in range(item * ITEM_TILES, min((item + 1) * ITEM_TILES, step[TILES])):
        taps = step[TABLE] + tile * step[TAP_COUNT] * ROWS * 8
        rows = load_rows(step[OFFSETS] + tile * ROWS * 8, CLOSE_ROWS)
        for channel in range(0, step[CHANNELS], width):
            columns = min(step[CHANNELS] - channel, width)
            at = channel * size_of(element)
            if tile + 1 < step[TILES]:
                _prefetch(
                    step,
                    taps + step[TAP_COUNT] * ROWS * 8,
                    load_rows(step[OFFSETS] + (tile + 1) * ROWS * 8, CLOSE_ROWS),
                    at,
                )
            t = _load(taps, channel, columns, scratch, element)
            for tap in range(1, step[TAP_COUNT]):
                t = larger_tile(t, _load(taps + tap * ROWS * 8, channel, columns, scratch, element))
            if step[OUT] != 0:
                _store(t, step[OUT] + at, rows, columns, scratch, element)
            if step[PREACT] != 0:
                t = normalize(t, step[NEXT_MEAN] + at, step[NEXT_SCALE] + at, step[NEXT_BETA] + at)
                _store(relu_tile(t), step[PREACT] + at, rows, columns, scratch, element)
