"""The compiled part of subsampling: an item copies one row of the output."""

from __future__ import annotations

from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import floats, size_of
from refnet_kernels.subsample.cpu import AT


@kernel
def subsample_kernel(step, item, scratch, element):
    """One row of the output."""
    channels = step[AT.channels]
    pixel_bytes = channels * size_of(element)
    image = item // step[AT.out_height]
    y = item % step[AT.out_height] * step[AT.factor]
    x = floats(step[AT.x] + (image * step[AT.height] + y) * step[AT.width] * pixel_bytes, element)
    out = floats(step[AT.out] + item * step[AT.out_width] * pixel_bytes, element)
    for column in range(step[AT.out_width]):
        source = column * step[AT.factor] * channels
        for c in range(channels):
            out[column * channels + c] = x[source + c]
