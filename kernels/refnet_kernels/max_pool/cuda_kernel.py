"""The compiled part of max pool on CUDA."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import helper, load4
from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import batch_norm4, place, read4, relu4, window_of, write4


@helper
def larger(largest, value):
    """``value`` if it is larger or NaN, else ``largest``."""
    return value if value > largest or value != value else largest


def max_pool_kernel(
    x, out, next_mean, next_scale, next_beta, preact,
    whole, pixels, channels, height, width, out_height, out_width, window, stride, pad_top, pad_left, zero_padding,
):  # fmt: skip
    """Four channels of an output pixel, or the rest."""
    pixel, channel, left = place(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x, channels)
    if pixel >= np.uint32(pixels):
        return
    image, top, begin = window_of(pixel, out_height, out_width, stride, pad_top, pad_left)
    lowest = np.float32(-np.inf)
    m = (lowest, lowest, lowest, lowest)
    zero = np.float32(0)
    for y in range(top, top + window):
        for c in range(begin, begin + window):
            inside = y >= 0 and y < height and c >= 0 and c < width
            if inside or zero_padding != 0:
                v = (zero, zero, zero, zero)
                if inside:
                    v = read4(x + (((image * height + y) * width + c) * channels + channel) * 4, whole, left)
                m = (larger(m[0], v[0]), larger(m[1], v[1]), larger(m[2], v[2]), larger(m[3], v[3]))
    offset = (np.int64(pixel) * channels + channel) * 4
    if out != 0:
        write4(out + offset, m, whole, left)
    if preact != 0:
        values = np.int64(channel) * 4
        m = batch_norm4(m, load4(next_mean + values), load4(next_scale + values), load4(next_beta + values))
        write4(preact + offset, relu4(m), whole, left)


MAX_POOL = CudaKernel(max_pool_kernel, types.void(*[types.int64] * 6, *[types.int32] * 12), 256, 4)
