"""The compiled part of the convolution."""

from __future__ import annotations

from refnet_kernels.conv.cpu import (
    AHEAD,
    AHEAD_GROUP,
    AHEAD_LINES,
    AHEAD_PANEL,
    AHEAD_TILE,
    BETA,
    BIAS,
    CHANNELS,
    HEIGHT,
    IMAGE_WIDTH,
    IN_CHANNELS,
    ITEM_PANELS,
    ITEM_TILES,
    MEAN,
    NEXT_BETA,
    NEXT_MEAN,
    NEXT_SCALE,
    OUT,
    OUT_HEIGHT,
    OUT_WIDTH,
    PAD_LEFT,
    PAD_TOP,
    PANELS,
    PIECE_COUNT,
    PIECES,
    PIXELS,
    PREACT,
    PRODUCTS,
    RELU,
    SCALE,
    SHORTCUT,
    STRIDE,
    SUM_RELU,
    TAP_COUNT,
    TAPS,
    TILE_BYTES,
    TILES,
    WEIGHTS,
    ZEROS,
    X,
)
from refnet_kernels.kernel import helper, kernel
from refnet_kernels.memory import floats, integers, prefetch, size_of
from refnet_kernels.target import LINE_BYTES, ROWS, WIDTH_BYTES
from refnet_kernels.tile import (
    add_bias,
    add_tiles,
    load_rows,
    load_tile,
    multiply_add,
    normalize,
    prefetch_tile,
    relu_tile,
    store_tile,
    zero_tile,
)


@helper
def _locate(step, first, last, table, element):
    """Fill the table: for each tile, tap and row of the tile, where the pixel's data starts."""
    addresses, taps, tap_count = integers(table), integers(step[TAPS]), step[TAP_COUNT]
    # Held in registers: the compiler cannot know that writes to the table leave the step alone.
    height, width, stride = step[HEIGHT], step[IMAGE_WIDTH], step[STRIDE]
    pitch = step[IN_CHANNELS] * size_of(element)
    out_height, out_width, last_pixel = step[OUT_HEIGHT], step[OUT_WIDTH], step[PIXELS] - 1
    start, zeros, pad_top, pad_left = step[X], step[ZEROS], step[PAD_TOP], step[PAD_LEFT]
    pixel = first * ROWS
    column = pixel % out_width
    row = pixel // out_width % out_height
    image = start + pixel // out_width // out_height * height * width * pitch
    for tile in range(first, last):
        entry = (tile - first) * tap_count * ROWS
        for lane in range(ROWS):
            y, x = row * stride - pad_top, column * stride - pad_left
            for tap in range(tap_count):
                tap_y, tap_x = y + taps[2 * tap], x + taps[2 * tap + 1]
                inside = tap_y >= 0 and tap_y < height and tap_x >= 0 and tap_x < width
                address = image + (tap_y * width + tap_x) * pitch
                addresses[entry + tap * ROWS + lane] = address if inside else zeros
            # The rows past the last pixel repeat it; they are not stored.
            if pixel < last_pixel:
                pixel += 1
                column += 1
                if column == out_width:
                    column = 0
                    row += 1
                if row == out_height:
                    row = 0
                    image += height * width * pitch


@helper
def _copy(source, source_pitch, target, target_pitch, rows, columns, element):
    """Copy the part of a tile that exists, at the ragged edge."""
    for row in range(rows):
        from_row = floats(source + row * source_pitch, element)
        to_row = floats(target + row * target_pitch, element)
        for column in range(columns):
            to_row[column] = from_row[column]


@helper
def _store(t, target, pitch, edge, rows, columns, element):
    """Write a tile, or the part of it that exists."""
    width = WIDTH_BYTES // size_of(element)
    if rows == ROWS and columns == width:
        store_tile(t, target, pitch)
    else:
        edge_pitch = width * size_of(element)
        store_tile(t, edge, edge_pitch)
        _copy(edge, edge_pitch, target, pitch, rows, columns, element)


@helper
def _finish(step, t, edge, tile, panel, element):
    """The epilogue of a tile's sums, and the stores."""
    width = WIDTH_BYTES // size_of(element)
    channels = panel * WIDTH_BYTES
    if step[BIAS] != 0:
        t = add_bias(t, step[BIAS] + channels)
    if step[SCALE] != 0:
        t = normalize(t, step[MEAN] + channels, step[SCALE] + channels, step[BETA] + channels)
    if step[RELU] != 0:
        t = relu_tile(t)
    pitch = step[CHANNELS] * size_of(element)
    offset = tile * ROWS * pitch + channels
    rows = min(step[PIXELS] - tile * ROWS, ROWS)
    columns = min(step[CHANNELS] - panel * width, width)
    if step[SHORTCUT] != 0:
        if rows == ROWS and columns == width:
            t = add_tiles(load_tile(step[SHORTCUT] + offset, pitch, element), t)
        else:
            edge_pitch = width * size_of(element)
            _copy(step[SHORTCUT] + offset, pitch, edge, edge_pitch, rows, columns, element)
            t = add_tiles(load_tile(edge, edge_pitch, element), t)
        if step[SUM_RELU] != 0:
            t = relu_tile(t)
    if step[OUT] != 0:
        _store(t, step[OUT] + offset, pitch, edge, rows, columns, element)
    if step[PREACT] != 0:
        t = normalize(t, step[NEXT_MEAN] + channels, step[NEXT_SCALE] + channels, step[NEXT_BETA] + channels)
        t = relu_tile(t)
        _store(t, step[PREACT] + offset, pitch, edge, rows, columns, element)


@helper
def _prefetch(step, tile, panel, element):
    """Have what the epilogue reads and writes on its way while the sums are made."""
    pitch = step[CHANNELS] * size_of(element)
    offset = tile * ROWS * pitch + panel * WIDTH_BYTES
    if step[SHORTCUT] != 0:
        prefetch_tile(step[SHORTCUT] + offset, pitch)
    if step[OUT] != 0:
        prefetch_tile(step[OUT] + offset, pitch)
    if step[PREACT] != 0:
        prefetch_tile(step[PREACT] + offset, pitch)


@kernel
def conv_kernel(step, item, scratch, element):
    """One item: some tiles of pixels by some panels of output channels."""
    blocks = (step[TILES] + step[ITEM_TILES] - 1) // step[ITEM_TILES]
    first_tile = item % blocks * step[ITEM_TILES]
    last_tile = min(first_tile + step[ITEM_TILES], step[TILES])
    first_panel = item // blocks * step[ITEM_PANELS]
    last_panel = min(first_panel + step[ITEM_PANELS], step[PANELS])
    table = scratch + TILE_BYTES
    _locate(step, first_tile, last_tile, table, element)
    pieces = integers(step[PIECES])
    for tile in range(first_tile, last_tile):
        tap_rows = table + (tile - first_tile) * step[TAP_COUNT] * ROWS * 8
        for panel in range(first_panel, last_panel):
            weights = step[WEIGHTS] + panel * step[PRODUCTS] * WIDTH_BYTES
            _prefetch(step, tile, panel, element)
            ahead = step[AHEAD] + tile * step[AHEAD_TILE] + first_panel * step[AHEAD_GROUP]
            ahead += (panel - first_panel) * step[AHEAD_PANEL]
            t = zero_tile(element)
            s = zero_tile(element)
            for piece in range(step[PIECE_COUNT]):
                pixels = load_rows(tap_rows + pieces[4 * piece] * ROWS * 8)
                for _ in range(step[AHEAD_LINES]):
                    prefetch(ahead)
                    ahead += LINE_BYTES
                begin = pieces[4 * piece + 1]
                end = pieces[4 * piece + 2]
                for k in range(begin, end):
                    s = multiply_add(s, pixels, k, weights)
                    weights += WIDTH_BYTES
                if pieces[4 * piece + 3] != 0:
                    t = add_tiles(t, s)
                    s = zero_tile(element)
            _finish(step, t, scratch, tile, panel, element)
