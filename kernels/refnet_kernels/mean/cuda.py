"""The global mean on CUDA: each thread computes one channel of an image.

The kernel is ``cuda_kernel.MEAN``. Of its integers, ``outputs`` is images times channels; ``pixels`` are an image's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from refnet_kernels.contract import Flags, Float32Array, ImageGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.mean.cuda_kernel import MEAN


def launch(geometry: ImageGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that averages the pixels of each image, with the addresses ``x`` and ``out``."""
    g = geometry
    outputs = g.batch * g.channels
    arguments = {"x": addresses["x"], "out": addresses["out"]}
    arguments |= {"outputs": outputs, "pixels": g.height * g.width, "channels": g.channels}
    return make_launch(MEAN, -(-outputs // MEAN.threads), arguments)


def call(x: Float32Array) -> Float32Array:
    """`refnet_kernels.mean` on arrays."""
    g = ImageGeometry(*x.shape)
    make = partial(launch, g, flags=Flags(), target=Target())
    return run_once(make, {"x": x}, {"out": (g.batch, 1, 1, g.channels)})["out"]
