"""The compiled part of the convolution."""

from __future__ import annotations

from refnet_kernels.contract import RUN
from refnet_kernels.conv.cpu import (
    AT,
    COMPACTS,
    NOTES_AT,
    PART_BYTES,
    SUMS_AT,
    SUMS_BYTES,
    TURN,
)
from refnet_kernels.conv.cpu_compact_kernel import compact_inputs, prefetch_outputs, sum_compacted
from refnet_kernels.conv.tuning import LARGE_GROUP, LINES_AHEAD, THOUSAND
from refnet_kernels.cpu.kernel import helper, kernel
from refnet_kernels.cpu.layout import TILE_BYTES
from refnet_kernels.cpu.memory import count_ones, integers, lowest_one, prefetch, prefetch_to_second, size_of
from refnet_kernels.cpu.tile import (
    CLOSE_ROWS,
    add_bias,
    add_tiles,
    add_to_tile,
    copy_columns,
    find_nonzero,
    load_rows,
    load_tile,
    move_rows,
    multiply_add,
    multiply_add_pixel,
    normalize,
    prefetch_tile,
    relu_tile,
    repeat_last_row,
    scale_rows,
    store_tile,
    zero_tile,
)
from refnet_kernels.target import LINE_BYTES, ROWS, WIDTH_BYTES

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
WEIGHTS = AT.weights
BIAS = AT.bias
MEAN = AT.mean
SCALE = AT.scale
BETA = AT.beta
SHORTCUT = AT.shortcut
OUT = AT.out
NEXT_MEAN = AT.next_mean
NEXT_SCALE = AT.next_scale
NEXT_BETA = AT.next_beta
PREACT = AT.preact
TABLE = AT.table
OFFSETS = AT.offsets
PARTS = AT.parts
TAPS = AT.taps
RELU = AT.relu
SUM_RELU = AT.sum_relu
CHANNELS = AT.channels
PRODUCTS = AT.products
TAP_COUNT = AT.tap_count
LENGTH = AT.length
PANELS = AT.panels
TILES = AT.tiles
ITEM_PANELS = AT.item_panels
ITEM_TILES = AT.item_tiles
MOST_NONZERO = AT.most_nonzero
GROUP_PANELS = AT.group_panels

#: Panels of a group of more than two, except the last one.
FIRST_OF_MANY = tuple(range(LARGE_GROUP - 1))


@helper
def _finish(step, t, channels, columns, rows, edge, element):
    """The epilogue of a tile's sums, and the stores.

    Parameters
    ----------
    channels : int64
        Offset of the tile's channels in a pixel, in bytes.
    columns : int64
        Number of the tile's columns that exist. If not all do, a copy of the tile at ``edge`` is finished.
    rows : tuple of int64
        Offsets of the tile's pixels in the output, in bytes.
    """
    shortcut, out, preact, apart = step[SHORTCUT] + channels, step[OUT] + channels, step[PREACT] + channels, rows
    is_part = columns * size_of(element) < WIDTH_BYTES
    if is_part:
        if step[SHORTCUT] != 0:
            copy_columns(shortcut, rows, edge, CLOSE_ROWS, columns, element)
        shortcut, out, preact, apart = edge, edge, edge + TILE_BYTES, move_rows(CLOSE_ROWS, 0)
    if step[BIAS] != 0:
        t = add_bias(t, step[BIAS] + channels)
    if step[SCALE] != 0:
        t = normalize(t, step[MEAN] + channels, step[SCALE] + channels, step[BETA] + channels)
    if step[RELU] != 0:
        t = relu_tile(t)
    if step[SHORTCUT] != 0:
        t = add_tiles(load_tile(shortcut, apart, element), t)
        if step[SUM_RELU] != 0:
            t = relu_tile(t)
    if step[OUT] != 0:
        store_tile(t, out, apart)
    if step[PREACT] != 0:
        t = normalize(t, step[NEXT_MEAN] + channels, step[NEXT_SCALE] + channels, step[NEXT_BETA] + channels)
        store_tile(relu_tile(t), preact, apart)
    if is_part:
        if step[OUT] != 0:
            copy_columns(out, CLOSE_ROWS, step[OUT] + channels, rows, columns, element)
        if step[PREACT] != 0:
            copy_columns(preact, CLOSE_ROWS, step[PREACT] + channels, rows, columns, element)


@helper
def _sum_products(step, taps, tap_rows, weights, turn, ahead, scratch, close, element):
    """A tile's sums, with as many rows as ``close`` has offsets.

    Sums of finished runs are in the scratch memory; registers hold the current run. At its end only its sums leave
    them. Each turn adds ``turn`` products, a constant that divides those of a tap.
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
        turns = step[LENGTH] // turn
        while turns != 0:
            if left == 0:
                add_to_tile(scratch, s)
                s = zero_tile(close, element)
                left = RUN // turn
            count = min(left, turns)
            left -= count
            turns -= count
            for _ in range(count):
                for k in range(turn):
                    s = multiply_add(s, pixels, k, at + k * WIDTH_BYTES)
                    if k % 2 == 0:
                        prefetch(address)
                        address += distance
                pixels = move_rows(pixels, turn * size_of(element))
                at += turn * WIDTH_BYTES
    # The first run's sum is added to +0, too. If there are several runs, that was done, and this changes no bit.
    s = add_tiles(zero_tile(close, element), s)
    if several_runs:
        s = add_tiles(load_tile(scratch, close, element), s)
    return s


@helper
def _sum_tile(step, tile, tiles, panel, scratch, element):
    """A tile's sums in a panel. Meanwhile each of the item's tiles prefetches its part of the next panel's weights."""
    part = integers(step[PARTS] + tile * PART_BYTES)
    taps, height = (part[0], part[1]), part[2]
    tap_rows = step[TABLE] + tile * step[TAP_COUNT] * ROWS * 8
    weights = step[WEIGHTS] + panel * step[PRODUCTS] * WIDTH_BYTES
    products_per_fetch = 2 if step[LENGTH] % TURN == 0 else 1
    distance = min(products_per_fetch * WIDTH_BYTES // (tiles[1] - tiles[0]), LINE_BYTES)
    fetched = (tile - tiles[0]) * (step[PRODUCTS] // products_per_fetch) * distance
    ahead = weights + step[PRODUCTS] * WIDTH_BYTES + fetched, distance
    if step[LENGTH] % TURN != 0:
        return _sum_products(step, taps, tap_rows, weights, 1, ahead, scratch, CLOSE_ROWS, element)
    if height == ROWS:
        return _sum_products(step, taps, tap_rows, weights, TURN, ahead, scratch, CLOSE_ROWS, element)
    short = _sum_products(step, taps, tap_rows, weights, TURN, ahead, scratch, CLOSE_ROWS[:-1], element)
    return repeat_last_row(short, CLOSE_ROWS)


@helper
def _find_nonzero(step, tiles, masks, element):
    """Note which inputs of some tiles' pixels are not 0, run by run. True if they are few enough."""
    first, last = tiles
    runs = step[LENGTH] // RUN
    inputs, nonzero = 0, 0
    for tile in range(first, last):
        part = integers(step[PARTS] + tile * PART_BYTES)
        inputs += (part[1] - part[0]) * step[LENGTH] * part[2]
        for tap in range(step[TAP_COUNT]):
            pixels = integers(step[TABLE] + (tile * step[TAP_COUNT] + tap) * ROWS * 8)
            for row in range(part[2]):
                for run in range(runs):
                    found = find_nonzero(pixels[row] + run * RUN * size_of(element), element)
                    integers(masks)[((tap * runs + run) * (last - first) + tile - first) * ROWS + row] = found
                    nonzero += count_ones(found)
    return THOUSAND * nonzero <= step[MOST_NONZERO] * inputs


@helper
def _sum_nonzero(step, tiles, channels, weights, masks, sums, panels, element):
    """The sums of some tiles and panels, over the products with inputs that are not 0.

    Parameters
    ----------
    channels : int64
        Offset of the first panel's channels in a pixel, in bytes.
    weights : int64
        The address of the first panel.
    masks : int64
        The address of the notes of `_find_nonzero`.
    sums : int64
        The address for the sums: one tile after the other, and panels `SUMS_BYTES` apart.
    panels : tuple of int64
        The panels whose sums a pixel has in registers, counted from 0. One that is listed twice is summed twice, with
        the same result.
    """
    first, last = tiles
    places = scale_rows(panels, SUMS_BYTES)
    is_first = True
    for tap in range(step[TAP_COUNT]):
        for run in range(step[LENGTH] // RUN):
            columns = move_rows(scale_rows(panels, step[PRODUCTS] * WIDTH_BYTES), weights)
            ahead = RUN * WIDTH_BYTES
            is_last = tap == step[TAP_COUNT] - 1 and run == step[LENGTH] // RUN - 1
            if is_last:
                # The next group's first run.
                ahead += (len(panels) - 1) * step[PRODUCTS] * WIDTH_BYTES
            for tile in range(first, last):
                pixels = integers(step[TABLE] + (tile * step[TAP_COUNT] + tap) * ROWS * 8)
                for row in range(integers(step[PARTS] + tile * PART_BYTES)[2]):
                    # Prefetch the weights of the next run, spread over the pixels of this one.
                    for panel in range(len(panels)):
                        for line in range(LINES_AHEAD):
                            prefetch_to_second(columns[panel] + ahead + line * LINE_BYTES)
                    ahead += LINES_AHEAD * LINE_BYTES
                    if is_last:
                        place = integers(step[OFFSETS] + tile * ROWS * 8)[row] + channels
                        prefetch_outputs(step, place, len(panels) * WIDTH_BYTES)
                    pixel = pixels[row] + run * RUN * size_of(element)
                    left = integers(masks)[row]
                    s = zero_tile(panels, element)
                    while left != 0:
                        s = multiply_add_pixel(s, pixel, lowest_one(left), columns)
                        left &= left - 1
                    at = sums + (tile - first) * TILE_BYTES + row * WIDTH_BYTES
                    if is_first:
                        store_tile(add_tiles(zero_tile(panels, element), s), at, places)
                    else:
                        store_tile(add_tiles(load_tile(at, places, element), s), at, places)
                masks += ROWS * 8
            weights += RUN * WIDTH_BYTES
            is_first = False


_note, _sum = (compact_inputs, sum_compacted) if COMPACTS else (_find_nonzero, _sum_nonzero)


@helper
def _sum_group(step, tiles, group, last, notes, sums, element):
    """The sums of the panels from ``group`` to ``last``, both included, over the products with inputs not 0."""
    channels = group * WIDTH_BYTES
    weights = step[WEIGHTS] + step[PRODUCTS] * channels
    if last - group < 2:
        few = 0, last - group
        _sum(step, tiles, channels, weights, notes, sums, few, element)
    else:
        many = *FIRST_OF_MANY, last - group
        _sum(step, tiles, channels, weights, notes, sums, many, element)


@helper
def _load_sums(sums, height, element):
    """The tile that `_sum_nonzero` wrote to an address."""
    if height == ROWS:
        return load_tile(sums, CLOSE_ROWS, element)
    return repeat_last_row(load_tile(sums, CLOSE_ROWS[:-1], element), CLOSE_ROWS)


@kernel
def conv_kernel(step, item, scratch, element):
    """One item: some tiles of pixels by some panels of output channels."""
    blocks = (step[TILES] + step[ITEM_TILES] - 1) // step[ITEM_TILES]
    first_tile = item % blocks * step[ITEM_TILES]
    tiles = first_tile, min(first_tile + step[ITEM_TILES], step[TILES])
    first_panel = item // blocks * step[ITEM_PANELS]
    last_panel = min(first_panel + step[ITEM_PANELS], step[PANELS])
    width = WIDTH_BYTES // size_of(element)
    sums, notes = scratch + SUMS_AT, scratch + NOTES_AT
    skips = step[MOST_NONZERO] != 0 and _note(step, tiles, notes, element)
    count = last_panel - first_panel
    groups = (count + step[GROUP_PANELS] - 1) // step[GROUP_PANELS] if skips else count
    for i in range(groups):
        group, last = first_panel + i * count // groups, first_panel + (i + 1) * count // groups - 1
        if skips:
            _sum_group(step, tiles, group, last, notes, sums, element)
        for tile in range(tiles[0], tiles[1]):
            rows = load_rows(step[OFFSETS] + tile * ROWS * 8, CLOSE_ROWS)
            for panel in range(group, last + 1):
                channels = panel * WIDTH_BYTES
                columns = min(step[CHANNELS] - panel * width, width)
                if skips:
                    at = sums + (panel - group) * SUMS_BYTES + (tile - first_tile) * TILE_BYTES
                    s = _load_sums(at, integers(step[PARTS] + tile * PART_BYTES)[2], element)
                else:
                    for operand in (SHORTCUT, OUT, PREACT):
                        if step[operand] != 0:
                            prefetch_tile(step[operand] + channels, rows)
                    s = _sum_tile(step, tile, tiles, panel, scratch, element)
                _finish(step, s, channels, columns, rows, scratch, element)
