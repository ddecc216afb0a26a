"""The compiled part of batch norm and of the statistics of a batch, on CUDA."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import load, load4, multiply, store
from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import batch_norm4, place, read4, relu4, write4


def batch_norm_kernel(x, mean, scale, beta, out, relu, whole, pixels, channels):
    """Four channels of a pixel, or the rest."""
    pixel, channel, left = place(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x, channels)
    if pixel >= np.uint32(pixels):
        return
    values = np.int64(channel) * 4
    offset = (np.int64(pixel) * channels + channel) * 4
    value = read4(x + offset, whole, left)
    value = batch_norm4(value, load4(mean + values), load4(scale + values), load4(beta + values))
    if relu != 0:
        value = relu4(value)
    write4(out + offset, value, whole, left)


def batch_statistics_kernel(x, gamma, mean, scale, pixels, channels, epsilon):
    """The mean and the scale of a channel."""
    channel = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    if channel >= channels:
        return
    count = np.float64(pixels)
    first, step = x + channel * 4, np.int64(channels) * 4
    total = np.float64(0)
    for pixel in range(pixels):
        total += np.float64(load(first + pixel * step))
    average = total / count
    squares = np.float64(0)
    for pixel in range(pixels):
        deviation = np.float64(load(first + pixel * step)) - average
        squares += multiply(deviation, deviation)
    numerator = np.float64(1)
    if gamma != 0:
        numerator = np.float64(load(gamma + channel * 4))
    store(mean + channel * 4, np.float32(average))
    store(scale + channel * 4, np.float32(numerator / math.sqrt(squares / count + epsilon)))


BATCH_NORM = CudaKernel(batch_norm_kernel, types.void(*[types.int64] * 5, *[types.int32] * 4), 256, 4)
BATCH_STATISTICS = CudaKernel(
    batch_statistics_kernel, types.void(*[types.int64] * 4, types.int32, types.int32, types.float64), 32, 8
)
