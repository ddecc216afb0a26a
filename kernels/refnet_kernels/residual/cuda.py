"""The residual sum on CUDA: a thread adds four numbers.

The kernel is ``cuda_kernel.RESIDUAL``: the addresses ``shortcut``, ``x``, ``out`` (int64), then the integers (int32)
``relu``, ``whole`` (whether all three lie at multiples of 16 bytes) and ``count``.
"""

from __future__ import annotations

from functools import partial

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.residual.cuda_kernel import RESIDUAL


def launch(count: int, addresses: dict[str, int], relu: bool) -> CudaLaunch:
    """The launch of ``out = shortcut + x``, or its ReLU, over ``count`` numbers, with the addresses of the three."""
    at = [addresses[name] for name in ("shortcut", "x", "out")]
    whole = all(address % 16 == 0 for address in at)
    return make_launch(RESIDUAL, -(-count // (4 * RESIDUAL.threads)), at, (int(relu), int(whole), count))


def call(shortcut: Float32Array, x: Float32Array, relu: bool) -> Float32Array:
    """`refnet_kernels.residual` on arrays."""
    return run_once(partial(launch, x.size, relu=relu), {"shortcut": shortcut, "x": x}, {"out": x.shape})["out"]
