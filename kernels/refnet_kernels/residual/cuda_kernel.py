"""The compiled part of the residual sum on CUDA."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.gpu.vector import add4, read4, relu4, write4


def residual_kernel(shortcut, x, out, relu, whole, count):
    """Four numbers, or the rest."""
    first = (np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x) * 4
    left = min(count - first, 4)
    if left <= 0:
        return
    vector = whole if left == 4 else np.int32(0)
    offset = first * 4
    value = add4(read4(shortcut + offset, vector, left), read4(x + offset, vector, left))
    if relu != 0:
        value = relu4(value)
    write4(out + offset, value, vector, left)


RESIDUAL = CudaKernel(residual_kernel, types.void(*[types.int64] * 3, *[types.int32] * 3), 256, 4)
