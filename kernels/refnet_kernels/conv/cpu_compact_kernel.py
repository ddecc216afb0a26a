"""Each pixel's products with its inputs that are not 0, from a copy of them without the zeros.

The copy is made with an item's notes. A vector of it then serves as many products as it has numbers, each of which is
repeated by one instruction. So beside the weights hardly anything is loaded, which counts where a core multiplies as
many vectors per cycle as it loads.
"""

from __future__ import annotations

from refnet_kernels.contract import RUN
from refnet_kernels.conv.cpu import AT, PART_BYTES, SUMS_BYTES
from refnet_kernels.conv.tuning import LINES_AHEAD, THOUSAND
from refnet_kernels.cpu.kernel import helper
from refnet_kernels.cpu.layout import TILE_BYTES
from refnet_kernels.cpu.memory import count_ones, integers, lowest_one, prefetch_to_second, size_of
from refnet_kernels.cpu.tile import (
    add_places,
    add_tiles,
    compact_nonzero,
    load_tile,
    load_vector,
    move_rows,
    multiply_add_place,
    repeat_place,
    scale_rows,
    store_tile,
    zero_tile,
)
from refnet_kernels.target import LINE_BYTES, ROWS, VECTOR_BYTES, WIDTH_BYTES

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
SHORTCUT = AT.shortcut
OUT = AT.out
PREACT = AT.preact
TABLE = AT.table
OFFSETS = AT.offsets
PARTS = AT.parts
PRODUCTS = AT.products
TAP_COUNT = AT.tap_count
LENGTH = AT.length
ITEM_TILES = AT.item_tiles
MOST_NONZERO = AT.most_nonzero
ONE = AT.one
OUTSIDE = AT.outside
PIXEL_BYTES = AT.pixel_bytes
LOWEST = AT.lowest
SPAN = AT.span
SLOTS = AT.slots


@helper
def prefetch_outputs(step, place, size):
    """Prefetch what the epilogue reads and writes at a place of the output, while sums are computed."""
    for operand in (SHORTCUT, OUT, PREACT):
        if step[operand] != 0:
            for offset in range(0, size, LINE_BYTES):
                prefetch_to_second(step[operand] + place + offset)


@helper
def _parts_of(step, notes, element):
    """The addresses of an item's notes: inputs and masks by run and slot; slots by tap and pixel; places; marks."""
    slots, pixels = step[LENGTH] // RUN * step[SLOTS], step[ITEM_TILES] * ROWS + 1
    masks = notes + slots * RUN * size_of(element)
    numbers = masks + slots * 8
    places = numbers + step[TAP_COUNT] * pixels * 8
    return notes, masks, numbers, places, places + pixels * 8


@helper
def compact_inputs(step, tiles, notes, element):
    """Note and copy some tiles' inputs that are not 0, run by run. True if they are few enough.

    Each tap has a slot, which pixels that have it in common share. Slot 0 is that of the zeros outside the image.
    """
    inputs, masks, numbers, places, marks = _parts_of(step, notes, element)
    lowest = integers(step[LOWEST])[tiles[0] // step[ITEM_TILES]]
    runs, run_bytes = step[LENGTH] // RUN, RUN * size_of(element)
    slots, pixels = step[SLOTS], step[ITEM_TILES] * ROWS + 1
    for at in range(0, step[SPAN] + 1, step[PIXEL_BYTES]):
        integers(marks)[at // run_bytes] = 0
    for run in range(runs):
        integers(masks)[run * slots] = 0
    used, count, nonzero = 1, 0, 0
    for tile in range(tiles[0], tiles[1]):
        for row in range(integers(step[PARTS] + tile * PART_BYTES)[2]):
            integers(places)[count] = (tile - tiles[0]) * TILE_BYTES + row * WIDTH_BYTES
            for tap in range(step[TAP_COUNT]):
                address, slot = integers(step[TABLE] + (tile * step[TAP_COUNT] + tap) * ROWS * 8)[row], 0
                if address != step[OUTSIDE]:
                    mark = (address - lowest) // run_bytes
                    slot = integers(marks)[mark]
                    if slot == 0:
                        slot = used
                        used += 1
                        integers(marks)[mark] = slot
                        for run in range(runs):
                            at = run * slots + slot
                            found = compact_nonzero(address + run * run_bytes, inputs + at * run_bytes, element)
                            integers(masks)[at] = found
                            nonzero += count_ones(found)
                integers(numbers)[tap * pixels + count] = slot
            count += 1
    # What comes after the last pixel is loaded, but not used.
    for tap in range(step[TAP_COUNT]):
        integers(numbers)[tap * pixels + count] = 0
    integers(places)[pixels - 1] = count
    return THOUSAND * nonzero <= step[MOST_NONZERO] * (used - 1) * step[LENGTH]


@helper
def _add_products(s, left, vector, inputs, columns, one, element):
    """Add a run's products of one pixel: those whose bit is set. ``vector`` is the first of their inputs."""
    while left != 0:
        place = repeat_place(0, element)
        for _ in range(VECTOR_BYTES // size_of(element)):
            s = multiply_add_place(s, vector, place, lowest_one(left), columns)
            place = add_places(place, one)
            left &= left - 1
            if left == 0:
                break
        inputs += VECTOR_BYTES
        if left != 0:
            vector = load_vector(inputs, element)
    return s


@helper
def sum_compacted(step, tiles, channels, weights, notes, sums, panels, element):
    """The sums of some tiles and panels, over the products with inputs that are not 0.

    The parameters are those of `refnet_kernels.conv.cpu_kernel._sum_nonzero`, with the notes of `compact_inputs`.
    """
    inputs, masks, numbers, places, _ = _parts_of(step, notes, element)
    runs, run_bytes = step[LENGTH] // RUN, RUN * size_of(element)
    taps, slots, pixels = step[TAP_COUNT], step[SLOTS], step[ITEM_TILES] * ROWS + 1
    count, apart = integers(places)[pixels - 1], scale_rows(panels, SUMS_BYTES)
    panel_bytes = step[PRODUCTS] * WIDTH_BYTES
    # LLVM would load a constant again for each product.
    one = repeat_place(step[ONE], element)
    is_first = True
    for tap in range(taps):
        numbers_of_tap = integers(numbers + tap * pixels * 8)
        for run in range(runs):
            columns = move_rows(scale_rows(panels, panel_bytes), weights)
            ahead = RUN * WIDTH_BYTES
            is_last = tap == taps - 1 and run == runs - 1
            inputs_of_run, masks_of_run = inputs + run * slots * run_bytes, integers(masks + run * slots * 8)
            next_inputs, next_left = inputs_of_run + numbers_of_tap[0] * run_bytes, masks_of_run[numbers_of_tap[0]]
            next_vector = load_vector(next_inputs, element)
            for pixel in range(count):
                # Load what the next pixel starts with: where this one ends, the processor guesses wrong.
                found, left, vector = next_inputs, next_left, next_vector
                slot = numbers_of_tap[pixel + 1]
                next_inputs, next_left = inputs_of_run + slot * run_bytes, masks_of_run[slot]
                next_vector = load_vector(next_inputs, element)
                # Prefetch the weights of the next run, spread over the pixels of this one.
                for panel in range(len(panels)):
                    for line in range(LINES_AHEAD):
                        prefetch_to_second(columns[panel] + ahead + line * LINE_BYTES)
                ahead += LINES_AHEAD * LINE_BYTES
                if is_last:
                    number = tiles[0] * ROWS + integers(places)[pixel] // WIDTH_BYTES
                    prefetch_outputs(step, integers(step[OFFSETS])[number] + channels, len(panels) * WIDTH_BYTES)
                s = _add_products(zero_tile(panels, element), left, vector, found, columns, one, element)
                at = sums + integers(places)[pixel]
                if is_first:
                    store_tile(add_tiles(zero_tile(panels, element), s), at, apart)
                else:
                    store_tile(add_tiles(load_tile(at, apart, element), s), at, apart)
            weights += RUN * WIDTH_BYTES
            is_first = False
