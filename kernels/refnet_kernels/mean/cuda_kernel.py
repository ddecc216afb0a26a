"""The compiled part of the global mean on CUDA."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import load, store
from refnet_kernels.gpu.launch import CudaKernel


def mean_kernel(x, out, outputs, pixels, channels):
    """The mean of a channel of an image."""
    index = np.uint32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if index >= np.uint32(outputs):
        return
    image, channel = np.int64(index // np.uint32(channels)), np.int64(index % np.uint32(channels))
    first = x + (image * pixels * channels + channel) * 4
    step = np.int64(channels) * 4
    total = np.float64(0)
    for pixel in range(pixels):
        total += np.float64(load(first + pixel * step))
    store(out + np.int64(index) * 4, np.float32(total / np.float64(pixels)))


MEAN = CudaKernel(mean_kernel, types.void(*[types.int64] * 2, *[types.int32] * 3), 64, 8)
