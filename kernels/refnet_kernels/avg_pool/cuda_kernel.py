"""The compiled part of the average pool on CUDA."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import helper
from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import place, read4, window_of, write4


@helper
def add_wide4(total, values):
    """``total + values``, in binary64."""
    return (
        total[0] + np.float64(values[0]),
        total[1] + np.float64(values[1]),
        total[2] + np.float64(values[2]),
        total[3] + np.float64(values[3]),
    )


@helper
def mean4(total, count):
    """``total / count`` in binary64, rounded to binary32."""
    return (
        np.float32(total[0] / count),
        np.float32(total[1] / count),
        np.float32(total[2] / count),
        np.float32(total[3] / count),
    )


def avg_pool_kernel(
    x, out,
    whole, pixels, channels, height, width, out_height, out_width, window, stride, pad_top, pad_left, zero_padding,
):  # fmt: skip
    """Four channels of an output pixel, or the rest."""
    pixel, channel, left = place(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x, channels)
    if pixel >= np.uint32(pixels):
        return
    image, top, begin = window_of(pixel, out_height, out_width, stride, pad_top, pad_left)
    zero = np.float64(0)
    total = (zero, zero, zero, zero)
    count = np.int32(0)
    for y in range(top, top + window):
        for c in range(begin, begin + window):
            inside = y >= 0 and y < height and c >= 0 and c < width
            if inside:
                at = x + (((image * height + y) * width + c) * channels + channel) * 4
                total = add_wide4(total, read4(at, whole, left))
            if inside or zero_padding != 0:
                count = np.int32(count + 1)
    write4(out + (np.int64(pixel) * channels + channel) * 4, mean4(total, np.float64(count)), whole, left)


AVG_POOL = CudaKernel(avg_pool_kernel, types.void(*[types.int64] * 2, *[types.int32] * 12), 256, 4)
