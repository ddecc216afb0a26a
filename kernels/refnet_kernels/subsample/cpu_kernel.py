"""The compiled part of subsampling: an item copies one row of the output."""

from __future__ import annotations

from refnet_kernels.cpu.kernel import kernel
from refnet_kernels.cpu.memory import floats, size_of
from refnet_kernels.subsample.cpu import AT

# The indices of the row's fields: Numba compiles a constant faster than an attribute.
X = AT.x
OUT = AT.out
HEIGHT = AT.height
WIDTH = AT.width
CHANNELS = AT.channels
FACTOR = AT.factor
OUT_HEIGHT = AT.out_height
OUT_WIDTH = AT.out_width


@kernel
def subsample_kernel(step, item, scratch, element):
    """One row of the output."""
    channels = step[CHANNELS]
    pixel_bytes = channels * size_of(element)
    image = item // step[OUT_HEIGHT]
    y = item % step[OUT_HEIGHT] * step[FACTOR]
    x = floats(step[X] + (image * step[HEIGHT] + y) * step[WIDTH] * pixel_bytes, element)
    out = floats(step[OUT] + item * step[OUT_WIDTH] * pixel_bytes, element)
    for column in range(step[OUT_WIDTH]):
        source = column * step[FACTOR] * channels
        for c in range(channels):
            out[column * channels + c] = x[source + c]
