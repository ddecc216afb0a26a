"""The compiled part of softmax on CUDA."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda
from numba.cuda import types

from refnet_kernels.gpu.code import float_of_bits, helper, load, multiply, shared_doubles, store
from refnet_kernels.gpu.launch import CudaKernel
from refnet_kernels.softmax import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E, UNDERFLOW

THREADS = 128

_load, _store = shared_doubles("softmax", THREADS)


@helper
def _exp(x):
    """The exponential of 0 or less; see the op's contract."""
    if x != x:
        return x
    if x < UNDERFLOW:
        return np.float64(0)
    k = np.float64(math.floor(multiply(x, LOG2_E) + 0.5))
    r = (x - multiply(k, LN2_HIGH)) - multiply(k, LN2_LOW)
    p = np.float64(0)
    for coefficient in COEFFICIENTS:
        p = multiply(p, r) + coefficient
    return multiply(p, float_of_bits((np.int64(k) + 1023) << 52))


def softmax_kernel(x, out, classes):
    """One row of logits."""
    thread = np.int32(cuda.threadIdx.x)
    first = np.int64(cuda.blockIdx.x) * classes * 4
    largest = np.float64(-np.inf)
    for i in range(thread, classes, THREADS):
        v = np.float64(load(x + first + np.int64(i) * 4))
        largest = v if v > largest else largest
    _store(thread, largest)
    cuda.syncthreads()
    for i in range(min(classes, THREADS)):
        v = _load(np.int32(i))
        largest = v if v > largest else largest

    total = np.float64(0)
    for start in range(0, classes, THREADS):
        # All threads have read the shared numbers.
        cuda.syncthreads()
        if start + thread < classes:
            v = np.float64(load(x + first + np.int64(start + thread) * 4))
            _store(thread, _exp(v - largest))
        cuda.syncthreads()
        for i in range(min(classes - start, THREADS)):
            total += _load(np.int32(i))

    for i in range(thread, classes, THREADS):
        v = np.float64(load(x + first + np.int64(i) * 4))
        store(out + first + np.int64(i) * 4, np.float32(_exp(v - largest) / total))


SOFTMAX = CudaKernel(softmax_kernel, types.void(types.int64, types.int64, types.int32), THREADS, 4)
