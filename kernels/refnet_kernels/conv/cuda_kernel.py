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
    "relu", "whole", "pixels", "out_channels", "row_channels", "panels", "steps",
    "height", "width", "channels", "out_height", "out_width", "stride", "pad_top", "pad_left",
)  # fmt: skip
SIGNATURE = types.void(*[types.int64] * len(OPERANDS), *[types.int32] * len(INTEGERS))

#: Products that are fetched at a time. A run is a whole number of them; the last ones are filled up with +0 times +0,
#: which leaves t as it is.
DEPTH = 8
#: Output channels are filled up to a multiple of this, so that every tile finds its weights.
CHANNELS = 128
#: A row that lies in no image, whatever tap is added.
OUTSIDE = -(2**30)


class Tile(NamedTuple):
    """A block's tile of pixels x output channels, and each thread's share of it.

    ``pixels * DEPTH`` is four times the number of threads: each fetches one vector of the image at a time.
    """

    pixels: int
    channels: int
    rows: int
    columns: int
    blocks: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.pixels * self.channels // (self.rows * self.columns)


#: From the one with the most work for each number fetched to the one that spreads small problems the most.
TILES = (Tile(64, 128, 8, 8, 2), Tile(64, 64, 8, 4, 4), Tile(32, 32, 4, 4, 8))


@cache
def conv_kernel(tile: Tile, vectors: bool) -> CudaKernel:
    """The kernel of a tile, for an image whose numbers come in vectors or one by one."""
    # Rows of pixels are set apart, so that the stores of a warp fall into different banks.
    a_stride, b_stride = tile.pixels + 4, tile.channels
    b_start = DEPTH * a_stride
    buffer = b_start + DEPTH * b_stride
    park_stride = tile.channels + 4
    name = f"conv_{tile.pixels}_{tile.channels}_{vectors}"
    size = max(2 * buffer, tile.pixels * park_stride)
    # Threads of a warp: 4 x 8, of the block: warps side by side.
    across = tile.channels // tile.columns // 8
    layout = TileLayout(
        tile.rows, tile.columns, DEPTH, a_stride, b_stride, 4 * tile.pixels // tile.rows,
        4 * tile.channels // tile.columns, park_stride,
    )  # fmt: skip
    shared_load4, shared_store4, shared_store = shared_memory(name, size)
    zero, plus, accumulate, park = register_tile(name, size, layout)
    tile_pixels, tile_channels = tile.pixels, tile.channels
    fours = tile.channels // 4
    rows_at_once = tile.threads // fours
    two = 2 * rows_at_once == DEPTH
    run_steps = RUN // DEPTH

    @helper
    def number(corner, taps, top, left, height, width):
        """One number of the image, or 0 outside."""
        offset, y, x = load_tap(taps)
        inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
        return load(corner + offset) if inside else np.float32(0)

    @helper
    def fetch(corner, taps, top, left, height, width):
        """The numbers of four products; all outside the image, or all inside where they are read as one."""
        if vectors:
            offset, y, x = load_tap(taps)
            inside = np.uint32(top + y) < np.uint32(height) and np.uint32(left + x) < np.uint32(width)
            return load4(corner + offset) if inside else zero4()
        return (
            number(corner, taps, top, left, height, width),
            number(corner, taps + 16, top, left, height, width),
            number(corner, taps + 32, top, left, height, width),
            number(corner, taps + 48, top, left, height, width),
        )

    def conv(
        x, weights, taps, bias, mean, scale, beta, shortcut, out, next_mean, next_scale, next_beta, preact,
        relu, whole, pixels, out_channels, row_channels, panels, steps,
        height, width, channels, out_height, out_width, stride, pad_top, pad_left,
    ):  # fmt: skip
        thread = np.int32(cuda.threadIdx.x)
        block = np.uint32(cuda.blockIdx.x)
        first_pixel = np.int32(block // np.uint32(panels)) * np.int32(tile_pixels)
        first_channel = np.int32(block % np.uint32(panels)) * np.int32(tile_channels)

        # What this thread fetches: four products of a pixel, and four or eight weights of a product.
        pixel = np.uint32(first_pixel + (thread >> 1))
        top, left, corner = np.int32(OUTSIDE), np.int32(0), x
        if pixel < np.uint32(pixels):
            column = np.int32(pixel % np.uint32(out_width))
            rows = pixel // np.uint32(out_width)
            row, image = np.int32(rows % np.uint32(out_height)), np.int32(rows // np.uint32(out_height))
            top, left = np.int32(row * stride - pad_top), np.int32(column * stride - pad_left)
            corner = x + ((np.int64(image) * height + top) * width + left) * channels * 4
        taps += (thread & 1) * 64
        a_place = np.int32((thread & 1) * 4 * a_stride + (thread >> 1))
        product, four = thread // fours, thread % fours
        weights += (np.int64(product) * row_channels + first_channel + four * 4) * 4
        half = np.int64(rows_at_once) * row_channels * 4
        b_place = np.int32(b_start + product * b_stride + four * 4)

        # Where this thread's sums lie in the tile.
        lane, warp = thread & 31, thread >> 5
        row4 = np.int32((warp // across * 4 + (lane >> 3)) * 4)
        column4 = np.int32((warp % across * 8 + (lane & 7)) * 4)

        image4 = fetch(corner, taps, top, left, height, width)
        weights4 = load4(weights)
        more4 = load4(weights + half) if two else weights4
        current = np.int32(0)
        t = zero()
        done = np.int32(0)
        while done < steps:
            s = zero()
            stop = np.int32(min(done + run_steps, steps))
            while done < stop:
                shared_store(np.int32(current + a_place), image4[0])
                shared_store(np.int32(current + a_place + a_stride), image4[1])
                shared_store(np.int32(current + a_place + 2 * a_stride), image4[2])
                shared_store(np.int32(current + a_place + 3 * a_stride), image4[3])
                shared_store4(np.int32(current + b_place), weights4)
                if two:
                    shared_store4(np.int32(current + b_place + rows_at_once * b_stride), more4)
                cuda.syncthreads()
                done = np.int32(done + 1)
                if done < steps:
                    taps += DEPTH * 16
                    weights += 2 * half if two else half
                    image4 = fetch(corner, taps, top, left, height, width)
                    weights4 = load4(weights)
                    more4 = load4(weights + half) if two else weights4
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
        bias4 = load4(bias + np.int64(channel) * 4) if bias != 0 else zero4()
        if mean != 0:
            mean4, scale4 = load4(mean + np.int64(channel) * 4), load4(scale + np.int64(channel) * 4)
            beta4 = load4(beta + np.int64(channel) * 4)
        else:
            mean4, scale4, beta4 = zero4(), zero4(), zero4()
        if preact != 0:
            next_mean4 = load4(next_mean + np.int64(channel) * 4)
            next_scale4 = load4(next_scale + np.int64(channel) * 4)
            next_beta4 = load4(next_beta + np.int64(channel) * 4)
        else:
            next_mean4, next_scale4, next_beta4 = zero4(), zero4(), zero4()
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
            if out != 0:
                write4(out + offset, value, whole, count)
            if preact != 0:
                value = relu4(batch_norm4(value, next_mean4, next_scale4, next_beta4))
                write4(preact + offset, value, whole, count)
            row = np.int32(row + rows_at_once)

    return CudaKernel(conv, SIGNATURE, tile.threads, tile.blocks)
