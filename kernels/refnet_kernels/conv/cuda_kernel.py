"""The compiled part of convolution on CUDA; see `cuda.py`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.contract import RUN
from refnet_kernels.gpu.code import (
    commit_group,
    copy_shared,
    copy_shared4,
    helper,
    load4,
    load_shared4,
    load_tap,
    register_tile,
    start_of_shared,
    store_shared4,
    wait_group,
)
from refnet_kernels.gpu.launch import CudaKernel, TileLayout
from refnet_kernels.gpu.vector import add4, batch_norm4, read4, relu4, write4, zero4

OPERANDS = (
    "x", "weights", "taps", "bias", "mean", "scale", "beta", "shortcut", "out",
    "next_mean", "next_scale", "next_beta", "preact",
)  # fmt: skip
INTEGERS = (
    "relu", "sum_relu", "whole", "pixels", "out_channels", "products", "panels", "steps",
    "image_size", "height", "width", "channels", "out_height", "out_width", "stride", "pad_top", "pad_left",
)  # fmt: skip
SIGNATURE = types.void(*[types.int64] * len(OPERANDS), *[types.int32] * len(INTEGERS))

#: Packed weights are filled up to a multiple of this many products with +0: the longest step.
PRODUCTS = 32
#: Weights lie in panels of this many output channels, a vector of them a product: a warp's copies lie side by side.
PANEL = 32
#: Output channels are filled up to a multiple of this, so that every tile finds its weights.
CHANNELS = 128
#: A row that lies in no image, whatever tap is added.
OUTSIDE = -(2**30)
#: Rows of the finished tile whose shortcuts a thread reads at a time.
AHEAD = 4
#: Bytes of a row of the table of taps.
TAP = 16


class Tile(NamedTuple):
    """A block's tile of pixels x output channels, each thread's share of it, and how its numbers come from memory.

    Attributes
    ----------
    pixels, channels : int
        Of the block.
    rows, columns : int
        Of the thread.
    depth : int
        Products that are copied at a time: a run is a whole number of them.
    stages : int
        Buffers in shared memory: while one is worked on, the copies to all others are on their way.
    blocks : int
        Blocks that a multiprocessor works on at once.
    vectors : bool
        Whether four channels of the image are copied as one, or each number for itself.
    teams : int
        So many teams of threads share a tile. They take runs in turn, through buffers of their own.
    """

    pixels: int
    channels: int
    rows: int
    columns: int
    depth: int
    stages: int
    blocks: int
    vectors: bool
    teams: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.teams * self.pixels * self.channels // (self.rows * self.columns)

    @property
    def a_stride(self) -> int:
        """Floats from a pixel's numbers in a buffer to the next one's, which a warp reads from other banks."""
        return self.depth + 4

    @property
    def buffer_bytes(self) -> int:
        """Of the numbers of all pixels, and then of all channels, that are copied at a time."""
        return 4 * (self.pixels * self.a_stride + self.depth * self.channels)

    @property
    def park_stride(self) -> int:
        """Floats from a pixel's sums in a parked tile to the next one's, which a warp reads from other banks."""
        return self.channels + 16

    @property
    def parked_bytes(self) -> int:
        """Of a tile that is parked in shared memory."""
        return 4 * self.pixels * self.park_stride

    @property
    def finished_start(self) -> int:
        """Where the finished tile lies in shared memory: in the place of the buffers, or after those of all teams."""
        return self.teams * self.stages * self.buffer_bytes if self.teams > 1 else 0

    @property
    def shared_bytes(self) -> int:
        """Of shared memory. After the finished tile, teams have a tile each for the sums that they hand over."""
        if self.teams > 1:
            return self.finished_start + (self.teams + 1) * self.parked_bytes
        return max(self.stages * self.buffer_bytes, self.parked_bytes)

    def steps(self, products: int) -> int:
        """How many the first team has; the others have no more, and fill up with zeros."""
        rounds, rest = divmod(products, RUN * self.teams)
        return rounds * (RUN // self.depth) + -(-min(rest, RUN) // self.depth)

    @property
    def name(self) -> str:
        """``"32 x 128, vectors"``."""
        return f"{self.pixels} x {self.channels}, {'vectors' if self.vectors else 'numbers'}"


#: From the one with the most work for each number that it reads to those that spread small problems the most.
TILES = (
    Tile(32, 128, 8, 4, 16, 3, 4, vectors=True),
    Tile(16, 64, 4, 4, 16, 2, 3, vectors=True, teams=4),
    Tile(32, 64, 4, 4, 32, 3, 4, vectors=True),
    Tile(16, 32, 4, 4, 16, 2, 2, vectors=True, teams=8),
    Tile(64, 64, 8, 8, 8, 4, 4, vectors=False),
)
#: The most teams of a tile: the table of taps is filled up to a whole run of each.
TEAMS = max(tile.teams for tile in TILES)


@helper
def window(pixel, pixels, x, image_size, width, channels, out_height, out_width, stride, pad_top, pad_left):
    """The row and column where a pixel's window begins, and the address; rows outside any image past the last pixel."""
    if pixel >= np.uint32(pixels):
        return np.int32(OUTSIDE), np.int32(0), x
    column = np.int32(pixel % np.uint32(out_width))
    rows = pixel // np.uint32(out_width)
    row, image = np.int32(rows % np.uint32(out_height)), np.int64(rows // np.uint32(out_height))
    top, left = np.int32(row * stride - pad_top), np.int32(column * stride - pad_left)
    return top, left, x + (image * image_size + (np.int64(top) * width + left) * channels) * 4


@helper
def load_channels(address, channel):
    """Four channels' values, or zeros where there are none."""
    return load4(address + np.int64(channel) * 4) if address != 0 else zero4()


@helper
def at_first(address, offset):
    """Where an array's numbers of a tile begin; 0 for none."""
    return address + offset if address != 0 else np.int64(0)


@cache
def conv_kernel(tile: Tile) -> CudaKernel:
    """The kernel of a tile."""
    teams, team_threads = tile.teams, tile.threads // tile.teams
    a_stride, b_stride, park_stride = tile.a_stride, tile.channels, tile.park_stride
    b_start = tile.pixels * a_stride
    buffer, stages = tile.buffer_bytes, tile.stages
    team_bytes, parked_bytes, finished_start = stages * buffer, tile.parked_bytes, tile.finished_start
    # Threads of a warp: 4 x 8, of a team: warps side by side.
    across = tile.channels // tile.columns // 8
    layout = TileLayout(
        tile.rows, tile.columns, tile.depth, a_stride, b_stride, tile.pixels // tile.rows,
        4 * tile.channels // tile.columns, park_stride,
    )  # fmt: skip
    zero, plus, accumulate, park = register_tile(layout)
    tile_pixels, tile_channels, depth = tile.pixels, tile.channels, tile.depth
    # A thread copies vectors or numbers of some pixels at one tap of the step, and vectors of weights of some products.
    taps_at_once = depth // 4 if tile.vectors else depth
    tap_products = depth // taps_at_once
    pixels_at_once = team_threads // taps_at_once
    copy_pixel = copy_shared4 if tile.vectors else copy_shared
    fours = tile.channels // 4
    rows_at_once = team_threads // fours
    weight_rows = depth // rows_at_once
    run_steps = RUN // depth
    last_buffer = (stages - 1) * buffer
    wait = wait_group(stages - 2)
    # A thread finishes a vector of a row, that of so many rows on, and so forth.
    rows_apart = tile.threads // fours
    ahead = min(AHEAD, max(tile.pixels // rows_apart, 1))

    @helper
    def copy_tap(place, window, tap, height, width):
        """A pixel's number or vector at a tap; outside the image, zeros."""
        top, left, corner = window
        offset, y, x = tap
        inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
        copy_pixel(place, corner + np.int64(offset) * 4, inside)

    def of_pixels(count):
        """`window` and `copy_tap` of so many pixels, a power of two, as two halves."""
        if count == 1:
            return window, copy_tap
        find_half, copy_half = of_pixels(count // 2)
        distance = count // 2 * pixels_at_once

        @helper
        def find(pixel, pixels, x, image_size, width, channels, out_height, out_width, stride, pad_top, pad_left):
            other = np.uint32(pixel + np.uint32(distance))
            return (
                find_half(
                    pixel, pixels, x, image_size, width, channels, out_height, out_width, stride, pad_top, pad_left
                ),
                find_half(
                    other, pixels, x, image_size, width, channels, out_height, out_width, stride, pad_top, pad_left
                ),
            )

        @helper
        def copy_both(place, windows, tap, height, width):
            copy_half(place, windows[0], tap, height, width)
            copy_half(np.int32(place + distance * a_stride * 4), windows[1], tap, height, width)

        return find, copy_both

    find_windows, copy_image = of_pixels(tile.pixels // pixels_at_once)

    @helper
    def copy_weights(place, weights, inside):
        """The weights of neighbouring products, so that one address serves them all; past the last product, zeros."""
        for i in range(weight_rows):
            copy_shared4(np.int32(place + np.int32(i) * np.int32(b_stride * 4)), weights + i * (PANEL * 4), inside)

    @helper
    def first_product(step):
        """How far from a team's first product its step begins: past the other teams' runs."""
        return np.int32(step * depth + np.uint32(step) // np.uint32(run_steps) * (RUN * (teams - 1)))

    @helper
    def finished(start, thread):
        """What a thread finishes: the first of its rows of the tile, the channel, and the place of its vector in row 0.

        Its next row is ``rows_apart`` further on.
        """
        channel = np.int32(thread % fours * 4)
        return np.int32(thread // fours), channel, np.int32(start + finished_start + channel * 4)

    @helper
    def begin_run(start, thread):
        """There is nothing to do."""

    @helper
    def add_run(t, s, handed, start, thread):
        """The sums of the runs so far and of one more."""
        return plus(t, s)

    @helper
    def begin_runs_of_teams(start, thread):
        """All sums are +0."""
        row, _, place = finished(start, thread)
        while row < tile_pixels:
            store_shared4(np.int32(place + row * np.int32(park_stride * 4)), zero4())
            row = np.int32(row + rows_apart)

    @helper
    def add_runs_of_teams(t, s, handed, start, thread):
        """And of one more of each team, in order: each thread adds up the vectors that it will finish.

        The barrier of the next step keeps the teams from handing over the next ones too early.
        """
        park(s, handed)
        cuda.syncthreads()
        row, _, place = finished(start, thread)
        while row < tile_pixels:
            at = np.int32(place + row * np.int32(park_stride * 4))
            total = load_shared4(at)
            for team in range(teams):
                total = add4(total, load_shared4(np.int32(at + np.int32(team + 1) * np.int32(parked_bytes))))
            store_shared4(at, total)
            row = np.int32(row + rows_apart)
        return t

    begin_runs, add_runs = (begin_run, add_run) if teams == 1 else (begin_runs_of_teams, add_runs_of_teams)

    @helper
    def read_row(shortcut, row, limit, row_bytes, whole, count):
        """The shortcut's vector of a row; zeros where there is none."""
        if shortcut != 0 and row < limit:
            return read4(shortcut + np.int64(row) * row_bytes, whole, count)
        return zero4()

    @helper
    def finish_row(shortcut4, row, limit, row_bytes, whole, count, place, to, relus, values):
        """A row's vector of the finished tile, through the epilogue."""
        if row >= limit:
            return
        (bias, mean, shortcut, out, preact), (relu, sum_relu) = to, relus
        bias4, mean4, scale4, beta4, next_mean4, next_scale4, next_beta4 = values
        offset = np.int64(row) * row_bytes
        value = load_shared4(np.int32(place + row * np.int32(park_stride * 4)))
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

    def of_rows(count):
        """`read_row` and `finish_row` of so many rows, a power of two, as two halves."""
        if count == 1:
            return read_row, finish_row
        read_half, finish_half = of_rows(count // 2)
        distance = count // 2 * rows_apart

        @helper
        def read(shortcut, row, limit, row_bytes, whole, count):
            other = np.int32(row + distance)
            return (
                read_half(shortcut, row, limit, row_bytes, whole, count),
                read_half(shortcut, other, limit, row_bytes, whole, count),
            )

        @helper
        def finish(shortcuts, row, limit, row_bytes, whole, count, place, to, relus, values):
            other = np.int32(row + distance)
            finish_half(shortcuts[0], row, limit, row_bytes, whole, count, place, to, relus, values)
            finish_half(shortcuts[1], other, limit, row_bytes, whole, count, place, to, relus, values)

        return read, finish

    read_rows, finish_rows = of_rows(ahead)

    def conv(
        x, weights, taps, bias, mean, scale, beta, shortcut, out, next_mean, next_scale, next_beta, preact,
        relu, sum_relu, whole, pixels, out_channels, products, panels, steps,
        image_size, height, width, channels, out_height, out_width, stride, pad_top, pad_left,
    ):  # fmt: skip
        thread, block = np.int32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
        first_pixel = np.int32(block // np.uint32(panels)) * np.int32(tile_pixels)
        first_channel = np.int32(block % np.uint32(panels)) * np.int32(tile_channels)
        team = np.int32(thread // team_threads) if teams > 1 else np.int32(0)
        member = np.int32(thread - team * team_threads)

        # What this thread copies: some pixels' numbers at one of a step's taps, and weights of some products.
        pixel, tap_number = member // taps_at_once, member % taps_at_once
        windows = find_windows(
            np.uint32(first_pixel + pixel), pixels, x,
            image_size, width, channels, out_height, out_width, stride, pad_top, pad_left,
        )  # fmt: skip
        first_tap = np.int32(team * RUN + tap_number * tap_products)
        start = start_of_shared()
        buffers = np.int32(start + team * team_bytes)
        a_place = np.int32(buffers + (pixel * a_stride + tap_number * tap_products) * 4)
        product, four = member // fours, member % fours
        first_four = np.int32(first_channel + four * 4)
        panel, column = first_four // PANEL, first_four % PANEL
        weights += ((np.int64(panel) * products + team * RUN + product * weight_rows) * PANEL + column) * 4
        b_place = np.int32(buffers + (b_start + product * weight_rows * b_stride + four * 4) * 4)

        # Where this thread's sums lie in the tile. Of its neighbours in the warp one reads the same row, one the same
        # columns: so a vector that a warp reads takes two turns of shared memory and not four.
        lane, warp = member & 31, member >> 5
        first_row = np.int32(warp // across * 4 + ((lane >> 3) & 2) + (lane & 1))
        column4 = np.int32((warp % across * 8 + ((lane >> 1) & 7)) * 4)
        a_read = np.int32(buffers + first_row * a_stride * 4)
        b_read = np.int32(buffers + (b_start + column4) * 4)

        at, tap = np.int32(0), load_tap(taps + np.int64(first_tap) * TAP)
        # One team's last step is full, and the packed weights are filled up for it.
        left = np.int32(products - team * RUN)
        filled = np.int32(0)
        while filled < stages - 1:
            if filled < steps:
                copy_image(np.int32(a_place + filled * buffer), windows, tap, height, width)
                inside = teams == 1 or at < left
                copy_weights(np.int32(b_place + filled * buffer), weights + np.int64(at) * (PANEL * 4), inside)
                at = first_product(np.int32(filled + 1))
                tap = load_tap(taps + np.int64(first_tap + at) * TAP)
            commit_group()
            filled = np.int32(filled + 1)

        parked = np.int32(start + finished_start + (first_row * park_stride + column4) * 4)
        handed = np.int32(parked + (team + 1) * parked_bytes)
        begin_runs(start, thread)
        current = np.int32(0)
        t = zero()
        done, uncopied = np.int32(0), np.int32(steps - (stages - 1))
        while done < steps:
            s = zero()
            stop = min(np.int32(done + run_steps), steps)
            while done < stop:
                # This step's copies have arrived, those of all threads; and nobody reads the step before any more.
                wait()
                cuda.syncthreads()
                if done < uncopied:
                    free = np.int32(current - buffer) if current > 0 else np.int32(last_buffer)
                    copy_image(np.int32(a_place + free), windows, tap, height, width)
                    inside = teams == 1 or at < left
                    copy_weights(np.int32(b_place + free), weights + np.int64(at) * (PANEL * 4), inside)
                    at = first_product(np.int32(done + stages))
                    tap = load_tap(taps + np.int64(first_tap + at) * TAP)
                commit_group()
                s = accumulate(s, a_read, b_read)
                to_next = np.int32(buffer) if current < last_buffer else np.int32(-last_buffer)
                current = np.int32(current + to_next)
                a_read, b_read = np.int32(a_read + to_next), np.int32(b_read + to_next)
                done = np.int32(done + 1)
            t = add_runs(t, s, handed, start, thread)

        if teams == 1:
            # The buffers are read no more; the tile takes their place.
            cuda.syncthreads()
            park(t, parked)
            cuda.syncthreads()

        row, channel, place = finished(start, thread)
        channel = np.int32(first_channel + channel)
        count = np.int32(min(out_channels - channel, 4))
        if count <= 0:
            return
        values = (
            load_channels(bias, channel),
            load_channels(mean, channel), load_channels(scale, channel), load_channels(beta, channel),
            load_channels(next_mean, channel), load_channels(next_scale, channel), load_channels(next_beta, channel),
        )  # fmt: skip
        first = (np.int64(first_pixel) * out_channels + channel) * 4
        row_bytes, limit = np.int64(out_channels) * 4, np.int32(min(pixels - first_pixel, tile_pixels))
        shortcut, out, preact = at_first(shortcut, first), at_first(out, first), at_first(preact, first)
        to = bias, mean, shortcut, out, preact
        while row < limit:
            # All are read before one is written, so that they are on their way together.
            shortcuts = read_rows(shortcut, row, limit, row_bytes, whole, count)
            finish_rows(shortcuts, row, limit, row_bytes, whole, count, place, to, (relu, sum_relu), values)
            row = np.int32(row + ahead * rows_apart)

    conv.__name__ = "_".join(map(str, ("conv_kernel", *map(int, tile))))
    return CudaKernel(conv, SIGNATURE, tile.threads, tile.blocks, tile.shared_bytes)
