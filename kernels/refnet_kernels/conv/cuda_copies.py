"""How the threads of a CUDA convolution copy a step's numbers to shared memory, ahead of the sums (``cp.async``).

The threads of a team share a step's copies. A thread copies the numbers of some pixels at one tap of the step (or, as a
vector, at four neighbouring channels of one tap), and the weights of some products. A number's place is read from
the table of taps, which has one row of four int32 per product: the number's distance from the corner of a pixel's
window (in floats), its row and its column in the window, and padding. A number outside the image is copied as zero. The
tap of a step is read one step ahead.

All functions here are parts of the kernel. ``image`` stands for the integers ``pixels, image_size, height, width,
channels, out_height, out_width, stride, pad_top, pad_left``; see `conv_kernel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refnet_kernels.contract import RUN
from refnet_kernels.conv.cuda_tile import PANEL, Tile
from refnet_kernels.gpu.code import copy_shared, copy_shared4, helper, inlined, load_tap

#: A row that is outside any image, whatever tap is added to it.
OUTSIDE = -(2**30)
#: Bytes per row of the table of taps.
TAP = 16


def copies(tile: Tile) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The copies of a tile's threads.

    Returns
    -------
    find_share : function(first_pixel, first_channel, team, member, start, image, x, weights, taps, products) -> share
        The share of a team's member, for a block whose tile begins at ``first_pixel`` and ``first_channel``. ``start``
        is the place where shared memory begins; ``x``, ``weights`` and ``taps`` are addresses.
    find_tap : function(share) -> tap
        The thread's tap of its team's first step.
    copy_step : function(share, left, buffer, at, tap, following) -> at, tap
        Start to copy the thread's share of a step to the buffer that is ``buffer`` bytes from the team's first one. The
        step begins at the product ``at``, and ``left`` is the number of products, both counted from the team's first
        product. Returns ``at`` and ``tap`` of the team's step number ``following``.
    """
    teams, depth, team_bytes = tile.teams, tile.depth, tile.team_bytes
    a_stride, b_stride, b_start = tile.a_stride, tile.channels, tile.b_start
    # A thread copies vectors or numbers of some pixels at one tap of the step, and vectors of weights of some products.
    taps_at_once = depth // 4 if tile.vectors else depth
    tap_products = depth // taps_at_once
    pixels_at_once = tile.team_threads // taps_at_once
    fours = tile.channels // 4
    weight_rows = depth // (tile.team_threads // fours)
    run_steps = RUN // depth
    find_windows, copy_image = _pixels(tile, tile.pixels // pixels_at_once, pixels_at_once)

    @inlined
    def find_share(first_pixel, first_channel, team, member, start, image, x, weights, taps, products):
        _, _, height, width, _, _, _, _, _, _ = image
        pixel, tap_number = member // taps_at_once, member % taps_at_once
        windows = find_windows(np.uint32(first_pixel + pixel), x, image)
        first_tap = np.int32(team * RUN + tap_number * tap_products)
        buffers = np.int32(start + team * team_bytes)
        a_place = np.int32(buffers + (pixel * a_stride + tap_number * tap_products) * 4)
        product, four = member // fours, member % fours
        first_four = np.int32(first_channel + four * 4)
        panel, column = first_four // PANEL, first_four % PANEL
        weights += ((np.int64(panel) * products + team * RUN + product * weight_rows) * PANEL + column) * 4
        b_place = np.int32(buffers + (b_start + product * weight_rows * b_stride + four * 4) * 4)
        return windows, (a_place, b_place), weights, taps, first_tap, (height, width)

    @inlined
    def find_tap(share):
        _, _, _, taps, first_tap, _ = share
        return load_tap(taps + np.int64(first_tap) * TAP)

    @inlined
    def copy_step(share, left, buffer, at, tap, following):
        windows, (a_place, b_place), weights, taps, first_tap, size = share
        copy_image(np.int32(a_place + buffer), windows, tap, size)
        # The last step of a single team is full: the packed weights are padded for it.
        copy_weights(np.int32(b_place + buffer), weights + np.int64(at) * (PANEL * 4), teams == 1 or at < left)
        at = first_product(following)
        return at, load_tap(taps + np.int64(first_tap + at) * TAP)

    @helper
    def copy_weights(place, weights, inside):
        """Copy the weights of neighbouring products: one address serves them all; past the last, zeros."""
        for i in range(weight_rows):
            copy_shared4(np.int32(place + np.int32(i) * np.int32(b_stride * 4)), weights + i * (PANEL * 4), inside)

    @helper
    def first_product(step):
        """The first product of a team's step, counted from the team's first one: past the other teams' runs."""
        return np.int32(step * depth + np.uint32(step) // np.uint32(run_steps) * (RUN * (teams - 1)))

    return find_share, find_tap, copy_step


def _pixels(tile: Tile, count: int, apart: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Windows and copies of ``count`` pixels (a power of two) that are ``apart`` from each other, as two halves.

    Returns
    -------
    find : function(pixel, x, image) -> windows
        Nested pairs of the results of `window`; ``pixel`` is the first one.
    copy : function(place, windows, tap, size)
        Copy the numbers or vectors of all these pixels at a tap. ``size`` is the image's.
    """
    if count == 1:
        return window, _copy_tap(copy_shared4 if tile.vectors else copy_shared)
    find_half, copy_half = _pixels(tile, count // 2, apart)
    distance = count // 2 * apart
    distance_bytes = distance * tile.a_stride * 4

    @helper
    def find_both(pixel, x, image):
        other = np.uint32(pixel + np.uint32(distance))
        return find_half(pixel, x, image), find_half(other, x, image)

    @helper
    def copy_both(place, windows, tap, size):
        copy_half(place, windows[0], tap, size)
        copy_half(np.int32(place + distance_bytes), windows[1], tap, size)

    return find_both, copy_both


def _copy_tap(copy: Callable[..., Any]) -> Callable[..., Any]:
    """The copy of one pixel: of a number or a vector."""

    @helper
    def copy_tap(place, window, tap, size):
        (top, left, corner), (offset, y, x), (height, width) = window, tap, size
        inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
        copy(place, corner + np.int64(offset) * 4, inside)

    return copy_tap


@helper
def window(pixel, x, image):
    """Row and column where a pixel's window begins, and its address; past the last pixel, a row outside any image."""
    pixels, image_size, _, width, channels, out_height, out_width, stride, pad_top, pad_left = image
    if pixel >= np.uint32(pixels):
        return np.int32(OUTSIDE), np.int32(0), x
    column = np.int32(pixel % np.uint32(out_width))
    rows = pixel // np.uint32(out_width)
    row, number = np.int32(rows % np.uint32(out_height)), np.int64(rows // np.uint32(out_height))
    top, left = np.int32(row * stride - pad_top), np.int32(column * stride - pad_left)
    return top, left, x + (number * image_size + (np.int64(top) * width + left) * channels) * 4
