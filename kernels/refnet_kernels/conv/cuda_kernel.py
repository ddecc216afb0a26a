"""The compiled part of convolution on CUDA: the main loop; see `cuda.py`.

Its parts, each in a file of its own, are made for a tile: ``cuda_tile`` defines where numbers are in shared memory,
``cuda_copies`` brings them there, ``cuda_sums`` adds up their products, and ``cuda_epilogue`` writes the output.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.contract import RUN
from refnet_kernels.conv.cuda_copies import copies
from refnet_kernels.conv.cuda_epilogue import epilogue
from refnet_kernels.conv.cuda_sums import sums
from refnet_kernels.conv.cuda_tile import Tile
from refnet_kernels.gpu.code import commit_group, start_of_shared, wait_group
from refnet_kernels.gpu.launch import CudaKernel

#: The parameters: addresses (int64; 0 stands for "none"), then integers (int32).
OPERANDS = (
    "x", "weights", "taps", "bias", "mean", "scale", "beta", "shortcut", "out",
    "next_mean", "next_scale", "next_beta", "preact",
)  # fmt: skip
INTEGERS = (
    "relu", "sum_relu", "whole", "pixels", "out_channels", "products", "panels", "steps",
    "image_size", "height", "width", "channels", "out_height", "out_width", "stride", "pad_top", "pad_left",
)  # fmt: skip
SIGNATURE = types.void(*[types.int64] * len(OPERANDS), *[types.int32] * len(INTEGERS))


@cache
def conv_kernel(tile: Tile) -> CudaKernel:
    """The kernel of a tile.

    Its parameters are `OPERANDS` and `INTEGERS`. Of the integers, ``relu`` and ``sum_relu`` are 1 if ReLU
    follows the batch norm and the sum with the shortcut; ``whole`` is 1 if all vectors of the output are at multiples
    of 16 bytes. ``products`` are those of an output, padded as in the packed weights; ``steps`` is
    ``tile.steps(products)``, ``panels`` the number of tiles side by side, ``image_size`` the floats of an image, and
    ``pixels`` those of the whole output. The others are `ConvGeometry`'s.
    """
    team_threads, tile_pixels, tile_channels = tile.team_threads, tile.pixels, tile.channels
    teams, stages, buffer, run_steps = tile.teams, tile.stages, tile.buffer_bytes, RUN // tile.depth
    last_buffer = (stages - 1) * buffer
    find_share, find_tap, copy_step = copies(tile)
    find_reads, find_places, zero, accumulate, begin_runs, add_runs, end_runs = sums(tile)
    finish_tile = epilogue(tile)
    wait = wait_group(stages - 2)

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
        start = start_of_shared()
        image = pixels, image_size, height, width, channels, out_height, out_width, stride, pad_top, pad_left
        share = find_share(first_pixel, first_channel, team, member, start, image, x, weights, taps, products)
        corner, a_read, b_read = find_reads(start, team, member)

        # Fill all buffers except the last.
        at, tap, left = np.int32(0), find_tap(share), np.int32(products - team * RUN)
        filled = np.int32(0)
        while filled < stages - 1:
            if filled < steps:
                at, tap = copy_step(share, left, np.int32(filled * buffer), at, tap, np.int32(filled + 1))
            commit_group()
            filled = np.int32(filled + 1)

        parked, handed = find_places(start, team, corner)
        begin_runs(start, thread)
        current = np.int32(0)
        t = zero()
        done, uncopied = np.int32(0), np.int32(steps - (stages - 1))
        while done < steps:
            s = zero()
            stop = min(np.int32(done + run_steps), steps)
            while done < stop:
                # Wait until all threads' copies of this step have arrived, and no thread reads the step before.
                wait()
                cuda.syncthreads()
                if done < uncopied:
                    free = np.int32(current - buffer) if current > 0 else np.int32(last_buffer)
                    at, tap = copy_step(share, left, free, at, tap, np.int32(done + stages))
                commit_group()
                s = accumulate(s, a_read, b_read)
                to_next = np.int32(buffer) if current < last_buffer else np.int32(-last_buffer)
                current = np.int32(current + to_next)
                a_read, b_read = np.int32(a_read + to_next), np.int32(b_read + to_next)
                done = np.int32(done + 1)
            t = add_runs(t, s, handed, start, thread)
        end_runs(t, parked)

        values = bias, mean, scale, beta, next_mean, next_scale, next_beta
        relus, to = (relu, sum_relu), (shortcut, out, preact)
        finish_tile(start, thread, first_pixel, first_channel, pixels, out_channels, whole, relus, to, values)

    conv.__name__ = "_".join(map(str, ("conv_kernel", *map(int, tile))))
    return CudaKernel(conv, SIGNATURE, tile.threads, tile.blocks, tile.shared_bytes)
