"""The compiled part of convolution on CUDA; see `cuda.py`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.contract import RUN
from refnet_kernels.gpu.code import helper, load, load4, load_tap, register_tile, shared_memory
from refnet_kernels.gpu.launch import CudaKernel, TileLayout
from refnet_kernels.gpu.vector import add4, batch_norm4, read4, relu4, write4, zero4

OPERANDS = (
    "x", "weights", "taps", "bias", "mean", "scale", "beta", "shortcut", "out",
    "next_mean", "next_scale", "next_beta", "preact",
)  # fmt: skip
INTEGERS = (
    "relu", "sum_relu", "whole", "pixels", "out_channels", "row_channels", "panels", "steps",
    "height", "width", "channels", "out_height", "out_width", "stride", "pad_top", "pad_left",
)  # fmt: skip
SIGNATURE = types.void(*[types.int64] * len(OPERANDS), *[types.int32] * len(INTEGERS))

#: Packed weights and tables of taps are filled up to a multiple of this many products, the depth of the deepest tile,
#: with +0 and with taps outside any image; a product +0 times +0 leaves t as it is.
PRODUCTS = 32
#: Output channels are filled up to a multiple of this, so that every tile finds its weights.
CHANNELS = 128
#: A row that lies in no image, whatever tap is added.
OUTSIDE = -(2**30)
#: Bytes of a row of the table of taps.
TAP = 16


class Tile(NamedTuple):
    """A block's tile of pixels x output channels, and each thread's share of it.

    Attributes
    ----------
    pixels, channels : int
        Of the block; it has two threads for each pixel.
    rows, columns : int
        Of the thread.
    depth : int
        Products that are fetched at a time: a run is a whole number of them. With less work on each number, more of
        them hide the way from memory.
    blocks : int
        Blocks of a multiprocessor.
    """

    pixels: int
    channels: int
    rows: int
    columns: int
    depth: int
    blocks: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.pixels * self.channels // (self.rows * self.columns)


#: From the one with the most work for each number fetched to the one that spreads small problems the most.
TILES = (Tile(64, 128, 8, 8, 8, 2), Tile(64, 64, 8, 4, 16, 3), Tile(32, 32, 4, 4, 32, 6))


@helper
def window(pixel, pixels, x, height, width, channels, out_height, out_width, stride, pad_top, pad_left):
    """The row and column where a pixel's window begins, and the address; rows outside any image past the last pixel."""
    if pixel >= np.uint32(pixels):
        return np.int32(OUTSIDE), np.int32(0), x
    column = np.int32(pixel % np.uint32(out_width))
    rows = pixel // np.uint32(out_width)
    row, image = np.int32(rows % np.uint32(out_height)), np.int64(rows // np.uint32(out_height))
    top, left = np.int32(row * stride - pad_top), np.int32(column * stride - pad_left)
    return top, left, x + ((image * height + top) * width + left) * channels * 4


@helper
def load_channels(address, channel):
    """Four channels' values, or zeros where there are none."""
    return load4(address + np.int64(channel) * 4) if address != 0 else zero4()


@cache
def conv_kernel(tile: Tile, vectors: bool) -> CudaKernel:
    """The kernel of a tile, for an image whose numbers come in vectors or one by one."""
    # Rows of pixels are set apart, so that the stores of a warp fall into different banks.
    a_stride, b_stride = tile.pixels + 4, tile.channels
    b_start = tile.depth * a_stride
    buffer = b_start + tile.depth * b_stride
    park_stride = tile.channels + 4
    name = f"conv_{tile.pixels}_{tile.channels}_{vectors}"
    size = max(2 * buffer, tile.pixels * park_stride)
    # Threads of a warp: 4 x 8, of the block: warps side by side.
    across = tile.channels // tile.columns // 8
    layout = TileLayout(
        tile.rows, tile.columns, tile.depth, a_stride, b_stride, 4 * tile.pixels // tile.rows,
        4 * tile.channels // tile.columns, park_stride,
    )  # fmt: skip
    shared_load4, shared_store4, shared_store = shared_memory(name, size)
    zero, plus, accumulate, park = register_tile(name, size, layout)
    tile_pixels, tile_channels, depth = tile.pixels, tile.channels, tile.depth
    fours = tile.channels // 4
    rows_at_once = tile.threads // fours
    # Vectors that a thread fetches at a time: 1, 2 or 4 of its pixel, every eighth product; and 1, 2 or 4 of weights.
    images, weight_rows = depth // 8, depth // rows_at_once
    run_steps = RUN // depth

    @helper
    def number(corner, taps, top, left, height, width):
        offset, y, x = load_tap(taps)
        inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
        return load(corner + offset) if inside else np.float32(0)

    if vectors:

        @helper
        def look(taps):
            return load_tap(taps)

        @helper
        def fetch(corner, tap, top, left, height, width):
            """The numbers of four products, all inside the image or all outside."""
            offset, y, x = tap
            inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
            return load4(corner + offset) if inside else zero4()
    else:

        @helper
        def look(taps):
            return taps

        @helper
        def fetch(corner, taps, top, left, height, width):
            """The numbers of four products."""
            return (
                number(corner, taps, top, left, height, width),
                number(corner, taps + TAP, top, left, height, width),
                number(corner, taps + 2 * TAP, top, left, height, width),
                number(corner, taps + 3 * TAP, top, left, height, width),
            )

    @helper
    def look_ahead(taps):
        """The taps of the thread's next vectors, so that their numbers' addresses are there when they are needed."""
        first = look(taps)
        second = look(taps + 8 * TAP) if images > 1 else first
        third = look(taps + 16 * TAP) if images > 2 else first
        fourth = look(taps + 24 * TAP) if images > 2 else first
        return first, second, third, fourth

    @helper
    def fetch_image(corner, taps, top, left, height, width):
        first = fetch(corner, taps[0], top, left, height, width)
        second = fetch(corner, taps[1], top, left, height, width) if images > 1 else first
        third = fetch(corner, taps[2], top, left, height, width) if images > 2 else first
        fourth = fetch(corner, taps[3], top, left, height, width) if images > 2 else first
        return first, second, third, fourth

    @helper
    def fetch_weights(weights, step):
        first = load4(weights)
        second = load4(weights + np.int64(step)) if weight_rows > 1 else first
        third = load4(weights + np.int64(np.uint32(2 * step))) if weight_rows > 2 else first
        fourth = load4(weights + np.int64(np.uint32(3 * step))) if weight_rows > 2 else first
        return first, second, third, fourth

    @helper
    def put_pixel(place, values):
        """Four products of a pixel, as one number in each of four rows."""
        shared_store(place, values[0])
        shared_store(np.int32(place + a_stride), values[1])
        shared_store(np.int32(place + 2 * a_stride), values[2])
        shared_store(np.int32(place + 3 * a_stride), values[3])

    @helper
    def put(a_place, image, b_place, weights):
        """What was fetched into a buffer of shared memory."""
        put_pixel(a_place, image[0])
        shared_store4(b_place, weights[0])
        if images > 1:
            put_pixel(np.int32(a_place + 8 * a_stride), image[1])
        if images > 2:
            put_pixel(np.int32(a_place + 16 * a_stride), image[2])
            put_pixel(np.int32(a_place + 24 * a_stride), image[3])
        if weight_rows > 1:
            shared_store4(np.int32(b_place + rows_at_once * b_stride), weights[1])
        if weight_rows > 2:
            shared_store4(np.int32(b_place + 2 * rows_at_once * b_stride), weights[2])
            shared_store4(np.int32(b_place + 3 * rows_at_once * b_stride), weights[3])

    def conv(
        x, weights, taps, bias, mean, scale, beta, shortcut, out, next_mean, next_scale, next_beta, preact,
        relu, sum_relu, whole, pixels, out_channels, row_channels, panels, steps,
        height, width, channels, out_height, out_width, stride, pad_top, pad_left,
    ):  # fmt: skip
        thread, block = np.int32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
        first_pixel = np.int32(block // np.uint32(panels)) * np.int32(tile_pixels)
        first_channel = np.int32(block % np.uint32(panels)) * np.int32(tile_channels)

        # What this thread fetches: vectors of a pixel, and of weights.
        pixel = np.uint32(first_pixel + (thread >> 1))
        top, left, corner = window(
            pixel, pixels, x, height, width, channels, out_height, out_width, stride, pad_top, pad_left
        )
        taps += (thread & 1) * 4 * TAP
        a_place = np.int32((thread & 1) * 4 * a_stride + (thread >> 1))
        product, four = thread // fours, thread % fours
        weights += (np.int64(product) * row_channels + first_channel + four * 4) * 4
        # Unsigned, as that is widened for nothing.
        weight_step = np.uint32(row_channels * (4 * rows_at_once))
        b_place = np.int32(b_start + product * b_stride + four * 4)

        # Where this thread's sums lie in the tile.
        lane, warp = thread & 31, thread >> 5
        row4 = np.int32((warp // across * 4 + (lane >> 3)) * 4)
        column4 = np.int32((warp % across * 8 + (lane & 7)) * 4)

        image = fetch_image(corner, look_ahead(taps), top, left, height, width)
        fetched = fetch_weights(weights, weight_step)
        taps += depth * TAP
        ahead = look_ahead(taps)
        current = np.int32(0)
        t = zero()
        done = np.int32(0)
        while done < steps:
            s = zero()
            stop = np.int32(min(done + run_steps, steps))
            while done < stop:
                put(np.int32(current + a_place), image, np.int32(current + b_place), fetched)
                cuda.syncthreads()
                done = np.int32(done + 1)
                if done < steps:
                    image = fetch_image(corner, ahead, top, left, height, width)
                    weights += np.int64(np.uint32(weight_rows * weight_step))
                    fetched = fetch_weights(weights, weight_step)
                    taps += depth * TAP
                    ahead = look_ahead(taps)
                s = accumulate(s, np.int32(current + row4), np.int32(current + b_start + column4))
                current = np.int32(buffer - current)
            t = plus(t, s)

        # The buffers are read no more; the tile takes their place.
        cuda.syncthreads()
        park(t, np.int32(row4 * park_stride + column4))
        cuda.syncthreads()

        channel = np.int32(first_channel + four * 4)
        count = np.int32(min(out_channels - channel, 4))
        if count <= 0:
            return
        bias4 = load_channels(bias, channel)
        mean4, scale4, beta4 = load_channels(mean, channel), load_channels(scale, channel), load_channels(beta, channel)
        next_mean4, next_scale4 = load_channels(next_mean, channel), load_channels(next_scale, channel)
        next_beta4 = load_channels(next_beta, channel)
        row = product
        while row < tile_pixels and first_pixel + row < pixels:
            offset = (np.int64(first_pixel + row) * out_channels + channel) * 4
            value = shared_load4(np.int32(row * park_stride + four * 4))
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
            row = np.int32(row + rows_at_once)

    return CudaKernel(conv, SIGNATURE, tile.threads, tile.blocks)
