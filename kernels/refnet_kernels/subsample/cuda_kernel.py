"""The compiled part of subsampling on CUDA."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import place, read4, write4


def subsample_kernel(x, out, whole, pixels, channels, height, width, out_height, out_width, factor):
    """Four channels of a pixel, or the rest."""
    pixel, channel, left = place(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x, channels)
    if pixel >= np.uint32(pixels):
        return
    row, column = pixel // np.uint32(out_width), pixel % np.uint32(out_width)
    image, row = row // np.uint32(out_height), row % np.uint32(out_height)
    source = (np.int64(image) * height + np.int64(row) * factor) * width + np.int64(column) * factor
    value = read4(x + (source * channels + channel) * 4, whole, left)
    write4(out + (np.int64(pixel) * channels + channel) * 4, value, whole, left)


SUBSAMPLE = CudaKernel(subsample_kernel, types.void(*[types.int64] * 2, *[types.int32] * 8), 256, 4)
