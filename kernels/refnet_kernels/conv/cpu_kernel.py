"""The compiled part of the convolution."""

from __future__ import annotations

from refnet_kernels.contract import RUN
from refnet_kernels.conv.cpu import (
    AHEAD,
    BETA,
    BIAS,
    CHANNELS,
    ITEM_PANELS,
    ITEM_TILES,
    LENGTH,
    MEAN,
    NEXT_BETA,
    NEXT_MEAN,
    NEXT_SCALE,
    OFFSETS,
    OUT,
    PANELS,
    PARTS,
    PREACT,
    PRODUCTS,
    RELU,
    SCALE,
    SHORTCUT,
    SUM_RELU,
    TABLE,
    TAP_COUNT,
    TAPS,
    TILES,
    TURN,
    WEIGHTS,
)
from refnet_kernels.kernel import helper, kernel
from refnet_kernels.layout import TILE_BYTES
from refnet_kernels.memory import integers, prefetch, size_of
from refnet_kernels.target import ROWS, WIDTH_BYTES
from refnet_kernels.tile import (
    CLOSE_ROWS,
    add_bias,
    add_tiles,
    add_to_tile,
    copy_columns,
    load_rows,
    load_tile,
    move_rows,
    multiply_add,
    normalize,
    prefetch_tile,
    relu_tile,
    repeat_last_row,
    store_tile,
    zero_tile,
)


@helper
def _finish(step, t, place, element):
    """The epilogue of a tile's sums, and the stores."""
    channels, shortcut, out, preact, rows = place
    if step[BIAS] != 0:
        t = add_bias(t, step[BIAS] + channels)
    if step[SCALE] != 0:
        t = normalize(t, step[MEAN] + channels, step[SCALE] + channels, step[BETA] + channels)
    if step[RELU] != 0:
        t = relu_tile(t)
    if step[SHORTCUT] != 0:
        t = add_tiles(load_tile(shortcut, rows, element), t)
        if step[SUM_RELU] != 0:
            t = relu_tile(t)
    if step[OUT] != 0:
        store_tile(t, out, rows)
    if step[PREACT] != 0:
        t = normalize(t, step[NEXT_MEAN] + channels, step[NEXT_SCALE] + channels, step[NEXT_BETA] + channels)
        store_tile(relu_tile(t), preact, rows)


@helper
def _finish_part(step, t, place, edge, columns, element):
    """The epilogue of a tile of which only some columns exist: on a copy of them."""
    channels, shortcut, out, preact, rows = place
    edge_preact = edge + TILE_BYTES
    if step[SHORTCUT] != 0:
        copy_columns(shortcut, rows, edge, CLOSE_ROWS, columns, element)
    _finish(step, t, (channels, edge, edge, edge_preact, CLOSE_ROWS), element)
    if step[OUT] != 0:
        copy_columns(edge, CLOSE_ROWS, out, rows, columns, element)
    if step[PREACT] != 0:
        copy_columns(edge_preact, CLOSE_ROWS, preact, rows, columns, element)


@helper
def _sum_products(step, taps, tap_rows, weights, turn, ahead, scratch, close, element):
    """A tile's sums, with as many rows as there are offsets of close ones.

    The sums of the runs that are done lie in the scratch: registers are for the run in hand. At its end everything but
    its sums stays in registers. Products come by turns of so many, a constant that divides those of a tap.
    """
    which = integers(step[TAPS])
    address, distance = ahead
    several_runs = step[PRODUCTS] > RUN
    s = zero_tile(close, element)
    if several_runs:
        store_tile(s, scratch, close)
    left = RUN // turn
    for tap in range(taps[0], taps[1]):
        pixels = load_rows(tap_rows + which[tap] * ROWS * 8, close)
        at = weights + which[tap] * step[LENGTH] * WIDTH_BYTES
        for _ in range(step[LENGTH] // turn):
            if left == 0:
                add_to_tile(scratch, s)
                s = zero_tile(close, element)
                left = RUN // turn
            left -= 1
            for k in range(turn):
                s = multiply_add(s, pixels, k, at + k * WIDTH_BYTES)
                if k % 2 == 0:
                    prefetch(address)
                    address += distance
            pixels = move_rows(pixels, turn * size_of(element))
            at += turn * WIDTH_BYTES
    # The first run's sum is added to +0, too. Where there are others, it was, and no bit is changed here.
    s = add_tiles(zero_tile(close, element), s)
    if several_runs:
        s = add_tiles(load_tile(scratch, close, element), s)
    return s


@kernel
def conv_kernel(step, item, scratch, element):
    """One item: some tiles of pixels by some panels of output channels."""
    blocks = (step[TILES] + step[ITEM_TILES] - 1) // step[ITEM_TILES]
    first_tile = item % blocks * step[ITEM_TILES]
    last_tile = min(first_tile + step[ITEM_TILES], step[TILES])
    first_panel = item // blocks * step[ITEM_PANELS]
    last_panel = min(first_panel + step[ITEM_PANELS], step[PANELS])
    ahead_of = integers(step[AHEAD] + item * 32)
    first_ahead, ahead_step, ahead_tile, ahead_panel = ahead_of[0], ahead_of[1], ahead_of[2], ahead_of[3]
    width = WIDTH_BYTES // size_of(element)
    for tile in range(first_tile, last_tile):
        tap_rows = step[TABLE] + tile * step[TAP_COUNT] * ROWS * 8
        rows = load_rows(step[OFFSETS] + tile * ROWS * 8, CLOSE_ROWS)
        part = integers(step[PARTS] + tile * 32)
        taps = part[0], part[1]
        for panel in range(first_panel, last_panel):
            weights = step[WEIGHTS] + panel * step[PRODUCTS] * WIDTH_BYTES
            channels = panel * WIDTH_BYTES
            columns = min(step[CHANNELS] - panel * width, width)
            shortcut = step[SHORTCUT] + channels
            place = channels, shortcut, step[OUT] + channels, step[PREACT] + channels, rows
            if step[SHORTCUT] != 0:
                # On its way while the sums are made. What is only written to needs no fetching: stores wait in a queue.
                prefetch_tile(shortcut, rows)
            ahead = first_ahead + part[2] * ahead_tile + (panel - first_panel) * ahead_panel, ahead_step
            if step[LENGTH] % TURN != 0:
                s = _sum_products(step, taps, tap_rows, weights, 1, ahead, scratch, CLOSE_ROWS, element)
            elif part[3] == ROWS:
                s = _sum_products(step, taps, tap_rows, weights, TURN, ahead, scratch, CLOSE_ROWS, element)
            else:
                short = _sum_products(step, taps, tap_rows, weights, TURN, ahead, scratch, CLOSE_ROWS[:-1], element)
                s = repeat_last_row(short, CLOSE_ROWS)
            if columns == width:
                _finish(step, s, place, element)
            else:
                _finish_part(step, s, place, scratch, columns, element)
