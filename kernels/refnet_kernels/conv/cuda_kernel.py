"""The compiled part of convolution on CUDA; see `cuda.py`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.contract import RUN
from refnet_kernels.gpu.code import commit_group, helper, load4, load_tap, register_tile, shared_memory, wait_group
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

#: Packed weights and tables of taps are filled up to a multiple of this many products, a run of each of two teams, with
#: +0 and with taps outside any image; a product +0 times +0 leaves t as it is.
PRODUCTS = 2 * RUN
#: Weights lie in panels of this many output channels, a vector of them a product: a warp's copies lie side by side.
PANEL = 32
#: Output channels are filled up to a multiple of this, so that every tile finds its weights.
CHANNELS = 128
#: A row that lies in no image, whatever tap is added.
OUTSIDE = -(2**30)
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
        Blocks of a multiprocessor.
    vectors : bool
        Whether four channels of the image are copied as one, or each number for itself.
    teams : int
        1 or 2. Two teams of threads share a tile: each makes the sums of every other run, in buffers of its own.
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

    def steps(self, products: int) -> int:
        """How many the first team has; the second one has no more, and fills up with zeros."""
        rounds, rest = divmod(products, RUN * self.teams)
        return rounds * (RUN // self.depth) + -(-min(rest, RUN) // self.depth)

    @property
    def name(self) -> str:
        """``"64 x 128, vectors"``."""
        return f"{self.pixels} x {self.channels}, {'vectors' if self.vectors else 'numbers'}"


#: From the ones with the most work for each number read to the ones that spread small problems the most.
TILES = (
    Tile(64, 128, 8, 8, 16, 3, 2, vectors=True),
    Tile(64, 64, 8, 4, 16, 4, 3, vectors=True),
    Tile(32, 32, 4, 4, 32, 3, 6, vectors=True),
    Tile(16, 64, 4, 4, 32, 2, 4, vectors=True, teams=2),
    Tile(64, 64, 8, 8, 8, 4, 4, vectors=False),
)


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


@cache
def conv_kernel(tile: Tile) -> CudaKernel:
    """The kernel of a tile."""
    teams, team_threads = tile.teams, tile.threads // tile.teams
    # Rows are set apart, so that the reads of a warp fall into different banks.
    a_stride, b_stride, park_stride = tile.depth + 4, tile.channels, tile.channels + 16
    b_start = tile.pixels * a_stride
    buffer, stages = 4 * (b_start + tile.depth * b_stride), tile.stages
    name = "conv_" + "_".join(map(str, tile))
    # After the buffers of both teams there is room for the sums that one hands to the other.
    team_bytes, handed_start = stages * buffer, teams * stages * buffer
    parked_floats = tile.pixels * park_stride
    size = max(handed_start // 4 + (teams - 1) * parked_floats, parked_floats)
    # Threads of a warp: 4 x 8, of a team: warps side by side.
    across = tile.channels // tile.columns // 8
    layout = TileLayout(
        tile.rows, tile.columns, tile.depth, a_stride, b_stride, tile.pixels // tile.rows,
        4 * tile.channels // tile.columns, park_stride,
    )  # fmt: skip
    shared_start, shared_load4, copy4, copy = shared_memory(name, size)
    zero, plus, accumulate, park, parked = register_tile(layout)
    tile_pixels, tile_channels, depth = tile.pixels, tile.channels, tile.depth
    # A thread copies vectors or numbers of some pixels at one tap of the step, and vectors of weights of some products.
    taps_at_once = depth // 4 if tile.vectors else depth
    tap_products = depth // taps_at_once
    pixels_at_once = team_threads // taps_at_once
    copy_pixel = copy4 if tile.vectors else copy
    fours = tile.channels // 4
    rows_at_once = team_threads // fours
    weight_rows = depth // rows_at_once
    run_steps = RUN // depth
    last_buffer = (stages - 1) * buffer
    wait = wait_group(stages - 2)

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
    def copy_weights(place, weights):
        """The weights of neighbouring products, so that one address serves them all."""
        for i in range(weight_rows):
            copy4(np.int32(place + np.int32(i) * np.int32(b_stride * 4)), weights + i * (PANEL * 4), True)

    @helper
    def first_product(step):
        """How far from a team's first product its step begins: past the other team's runs."""
        return np.int32(step * depth + np.uint32(step) // np.uint32(run_steps) * (RUN * (teams - 1)))

    @helper
    def add_run(t, s, team, place):
        """The sums of the runs so far and of one more."""
        return plus(t, s)

    @helper
    def add_two_runs(t, s, team, place):
        """And of two more, in order: only the first team has these sums; the second one hands it those of its run.

        The barrier of the next step keeps the second team from handing over the next ones too early.
        """
        if team == 1:
            park(s, place)
        cuda.syncthreads()
        return t if team == 1 else plus(plus(t, s), parked(place))

    add_runs = add_run if teams == 1 else add_two_runs

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
        taps += (team * RUN + tap_number * tap_products) * TAP
        start = shared_start()
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

        at, tap = np.int32(0), load_tap(taps)
        filled = np.int32(0)
        while filled < stages - 1:
            if filled < steps:
                copy_image(np.int32(a_place + filled * buffer), windows, tap, height, width)
                copy_weights(np.int32(b_place + filled * buffer), weights + np.int64(at) * (PANEL * 4))
                at = first_product(np.int32(filled + 1))
                tap = load_tap(taps + np.int64(at) * TAP)
            commit_group()
            filled = np.int32(filled + 1)
        current, free = np.int32(0), np.int32(last_buffer)
        handed = np.int32(start + handed_start + (first_row * park_stride + column4) * 4)
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
                    copy_image(np.int32(a_place + free), windows, tap, height, width)
                    copy_weights(np.int32(b_place + free), weights + np.int64(at) * (PANEL * 4))
                    at = first_product(np.int32(done + stages))
                    tap = load_tap(taps + np.int64(at) * TAP)
                commit_group()
                s = accumulate(s, a_read, b_read)
                free = current
                to_next = np.int32(buffer) if current < last_buffer else np.int32(-last_buffer)
                current = np.int32(current + to_next)
                a_read, b_read = np.int32(a_read + to_next), np.int32(b_read + to_next)
                done = np.int32(done + 1)
            t = add_runs(t, s, team, handed)

        # The buffers are read no more; the tile takes their place.
        cuda.syncthreads()
        if team == 0:
            park(t, np.int32(start + (first_row * park_stride + column4) * 4))
        cuda.syncthreads()

        channel = np.int32(first_channel + four * 4)
        count = np.int32(min(out_channels - channel, 4))
        if count <= 0:
            return
        bias4 = load_channels(bias, channel)
        mean4, scale4, beta4 = load_channels(mean, channel), load_channels(scale, channel), load_channels(beta, channel)
        next_mean4, next_scale4 = load_channels(next_mean, channel), load_channels(next_scale, channel)
        next_beta4 = load_channels(next_beta, channel)
        row = np.int32(thread // fours)
        while row < tile_pixels and first_pixel + row < pixels:
            offset = (np.int64(first_pixel + row) * out_channels + channel) * 4
            value = shared_load4(np.int32(start + (row * park_stride + four * 4) * 4))
            if bias != 0:
                value = add4(value, bias4)
            if mean != 0:
                value = batch_norm4(value, mean4, scale4, beta4)
            if relu != 0:
                value = relu4(value)
            if shortcut != 0:
                value = add4(read4(shortcut + offset, whole, count), value)
                if sum_relu != 0:
                    value = relu4(value)
            if out != 0:
                write4(out + offset, value, whole, count)
            if preact != 0:
                value = relu4(batch_norm4(value, next_mean4, next_scale4, next_beta4))
                write4(preact + offset, value, whole, count)
            row = np.int32(row + teams * rows_at_once)

    return CudaKernel(conv, SIGNATURE, tile.threads, tile.blocks)
