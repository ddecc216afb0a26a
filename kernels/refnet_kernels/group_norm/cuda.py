"""Group norm on CUDA: a block has some groups of one image.

The kernel is ``cuda_kernel.GROUP_NORM``. Of its integers, ``block_channels`` are the channels of a block, which are a
group or some whole groups; ``lanes``, a power of two, is how many channels the block's threads share at a time. A block
has more than one group only if the lanes hold all of its channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from refnet_kernels.contract import Flags, Float32Array, GroupNormGeometry, Target
from refnet_kernels.gpu.launch import CudaLaunch, make_launch
from refnet_kernels.gpu.program import run_once
from refnet_kernels.group_norm.cuda_kernel import GROUP_NORM, LANES

#: Channels that a block has at least, where there are as many: those that memory gives at once.
FEWEST_CHANNELS = 8


def launch(geometry: GroupNormGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> CudaLaunch:
    """The launch that normalises, with the addresses ``x``, ``beta``, ``out`` and any ``gamma``."""
    g = geometry
    at = {"gamma": addresses.get("gamma", 0)} | {name: addresses[name] for name in ("x", "beta", "out")}
    block_channels = max(1, FEWEST_CHANNELS // g.group_channels) * g.group_channels
    image_blocks = -(-g.channels // block_channels)
    integers = {
        "relu": int(flags.relu), "height": g.height, "width": g.width, "channels": g.channels,
        "group_channels": g.group_channels, "block_channels": block_channels, "image_blocks": image_blocks,
        "lanes": min(1 << (block_channels - 1).bit_length(), LANES),
    }  # fmt: skip
    return make_launch(GROUP_NORM, g.batch * image_blocks, at | integers | {"epsilon": float(g.epsilon)})


def call(
    x: Float32Array, gamma: Float32Array | None, beta: Float32Array, groups: int, epsilon: float, relu: bool
) -> Float32Array:
    """`refnet_kernels.group_norm` on arrays."""
    inputs: dict[str, np.ndarray] = {"x": x, "beta": beta} | ({} if gamma is None else {"gamma": gamma})
    make = partial(launch, GroupNormGeometry.of(x.shape, groups, epsilon), flags=Flags(relu), target=Target())
    return run_once(make, inputs, {"out": x.shape})["out"]
