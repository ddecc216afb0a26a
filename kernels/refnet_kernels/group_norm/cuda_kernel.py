"""The compiled part of group norm on CUDA."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import inlined, load, multiply, shared_doubles, store, syncthreads
from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import batch_norm
from refnet_kernels.gpu.vector import relu as relu_of

THREADS = 256
#: Channels that a block's threads share at a time, at most: a row of each is summed by one thread.
LANES = 32

_load, _store = shared_doubles("group_norm", THREADS)


@inlined
def _group_sum(share, mean, squares):
    """The sum of the group that the thread's lane belongs to: of the numbers, or of their squared deviations."""
    x, step, height, width, channels, group_channels, lane, line, lanes, lines = share
    begin = np.int32(np.uint32(lane) // np.uint32(group_channels)) * group_channels
    total = np.float64(0)
    for first in range(0, channels, lanes):
        channel = np.float64(0)
        for top in range(0, height, lines):
            row = np.float64(0)
            if first + lane < channels and top + line < height:
                at = x + np.int64(top + line) * width * step + np.int64(first + lane) * 4
                for _ in range(width):
                    value = np.float64(load(at))
                    if squares:
                        row += multiply(value - mean, value - mean)
                    else:
                        row += value
                    at += step
            _store(line * lanes + lane, row)
            syncthreads()
            if line == 0:
                for i in range(min(lines, height - top)):
                    channel += _load(np.int32(i * lanes + lane))
            syncthreads()
        if line == 0:
            _store(lane, channel)
        syncthreads()
        for i in range(begin, min(begin + group_channels, channels - first, lanes)):
            total += _load(np.int32(i))
        syncthreads()
    return total


def group_norm_kernel(
    x, gamma, beta, out, relu, height, width, channels, group_channels, block_channels, image_blocks, lanes, epsilon
):
    """Some groups of one image."""
    thread, block = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
    lines = np.int32(np.uint32(THREADS) // np.uint32(lanes))
    line, lane = np.int32(thread // np.uint32(lanes)), np.int32(thread % np.uint32(lanes))
    image = np.int64(block // np.uint32(image_blocks))
    first = np.int32(block % np.uint32(image_blocks)) * block_channels
    own = min(channels - first, block_channels)
    pixels, step = np.int64(height) * width, np.int64(channels) * 4
    offset = image * pixels * step + np.int64(first) * 4
    count = np.float64(pixels * group_channels)
    share = x + offset, step, height, width, own, group_channels, lane, line, lanes, lines
    mean = _group_sum(share, np.float64(0), False) / count
    deviation = math.sqrt(_group_sum(share, mean, True) / count + epsilon)
    rounded = np.float32(mean)
    for channel in range(lane, own, lanes):
        numerator = np.float64(1)
        if gamma != 0:
            numerator = np.float64(load(gamma + np.int64(first + channel) * 4))
        scale, shift = np.float32(numerator / deviation), load(beta + np.int64(first + channel) * 4)
        at = offset + line * step + np.int64(channel) * 4
        for _ in range(line, pixels, lines):
            value = batch_norm(load(x + at), rounded, scale, shift)
            store(out + at, relu_of(value) if relu != 0 else value)
            at += lines * step


GROUP_NORM = CudaKernel(
    group_norm_kernel, types.void(*[types.int64] * 4, *[types.int32] * 8, types.float64), THREADS, 4
)
