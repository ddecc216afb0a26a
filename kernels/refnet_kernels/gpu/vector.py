"""Arithmetic on vectors of four binary32 numbers, shared by the CUDA kernels (rule A2)."""

from __future__ import annotations

import numpy as np

from refnet_kernels.gpu.code import fma, helper, inlined, load, load4, store, store4


@helper
def zero4():
    """Four times +0."""
    return np.float32(0), np.float32(0), np.float32(0), np.float32(0)


@helper
def add4(a, b):
    """``a + b``."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


@helper
def batch_norm(x, mean, scale, beta):
    """``fma(x - mean, scale, beta)`` of numbers."""
    return fma(x - mean, scale, beta)


@helper
def relu(x):
    """``0 if x < 0 else x`` of a number."""
    return np.float32(0) if x < np.float32(0) else x


@helper
def batch_norm4(x, mean, scale, beta):
    """``fma(x - mean, scale, beta)``."""
    return (
        batch_norm(x[0], mean[0], scale[0], beta[0]),
        batch_norm(x[1], mean[1], scale[1], beta[1]),
        batch_norm(x[2], mean[2], scale[2], beta[2]),
        batch_norm(x[3], mean[3], scale[3], beta[3]),
    )


@helper
def relu4(x):
    """``0 if x < 0 else x``."""
    return relu(x[0]), relu(x[1]), relu(x[2]), relu(x[3])


@helper
def read4(address, whole, count):
    """The vector at an address; unless it is whole and at a multiple of 16 bytes, ``count`` numbers, then zeros."""
    if whole != 0:
        return load4(address)
    a = load(address) if count > 0 else np.float32(0)
    b = load(address + 4) if count > 1 else np.float32(0)
    c = load(address + 8) if count > 2 else np.float32(0)
    d = load(address + 12) if count > 3 else np.float32(0)
    return a, b, c, d


@helper
def write4(address, x, whole, count):
    """Write a vector; unless it is whole and goes to a multiple of 16 bytes, only its first ``count`` numbers."""
    if whole != 0:
        store4(address, x)
        return
    if count > 0:
        store(address, x[0])
    if count > 1:
        store(address + 4, x[1])
    if count > 2:
        store(address + 8, x[2])
    if count > 3:
        store(address + 12, x[3])


@helper
def place(block, threads, thread, channels):
    """A thread's share of four channels of a pixel: the pixel, the first channel, and how many of the four exist."""
    index = np.uint32(np.uint32(block) * np.uint32(threads) + np.uint32(thread))
    fours = np.uint32((channels + 3) >> 2)
    channel = np.int32(index % fours) * 4
    return index // fours, channel, min(channels - channel, 4)


@inlined
def window_of(pixel, out_height, out_width, stride, pad_top, pad_left):
    """The image of an output pixel, and the row and the column of that image where the pixel's window begins."""
    row, column = pixel // np.uint32(out_width), pixel % np.uint32(out_width)
    image, row = np.int64(row // np.uint32(out_height)), row % np.uint32(out_height)
    return image, np.int32(np.int64(row) * stride - pad_top), np.int32(np.int64(column) * stride - pad_left)
