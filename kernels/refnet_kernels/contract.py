"""What every kernel is told, and the numbers of the arithmetic contract.

The contract itself stands in ``kernels/README.md``. Geometry reaches a kernel as integers only: "SAME", "VALID" and
rates are resolved here, once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
#: An array of the computation's dtype: float32, or float64 where all is computed in binary64 (rule A8).
FloatArray = NDArray[np.floating[Any]]

BINARY32 = np.dtype(np.float32)
BINARY64 = np.dtype(np.float64)

#: The contract's version. Another order of any sum is another number.
CONTRACT_VERSION = 1
#: Products in a run of a convolution's sum (rule A1).
RUN = 64


class ConvGeometry(NamedTuple):
    """A two-dimensional convolution of NHWC images with an HWIO kernel.

    ``pad_top`` and ``pad_left`` are the zeros before the first row and column; those after the last ones follow from
    the output's size.
    """

    batch: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride: int
    rate: int
    pad_top: int
    pad_left: int

    @property
    def products(self) -> int:
        """Products in each output's sum."""
        return self.kernel_height * self.kernel_width * self.channels

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * self.out_height * self.out_width


class PoolGeometry(NamedTuple):
    """A pool over NHWC images; pads as in `ConvGeometry`.

    ``zero_padding`` is 1 where what lies outside the image is +0 and takes part, 0 where it does not.
    """

    batch: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    window: int
    stride: int
    pad_top: int
    pad_left: int
    zero_padding: int = 0


class Norm(NamedTuple):
    """A batch norm that is ready to be applied: ``fma(x - mean, scale, beta)``, one number a channel each."""

    mean: FloatArray
    scale: FloatArray
    beta: FloatArray


def norm_scale(
    variance: FloatArray, gamma: FloatArray | None, epsilon: float, dtype: np.dtype[Any] = BINARY32
) -> FloatArray:
    """``gamma / sqrt(variance + epsilon)`` in binary64, rounded once to ``dtype`` (rule A3); without gamma, 1."""
    numerator = np.float64(1) if gamma is None else gamma.astype(np.float64)
    with np.errstate(all="ignore"):
        scale: FloatArray = numerator / np.sqrt(variance.astype(np.float64) + np.float64(epsilon))
        return scale.astype(dtype)


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": the output's size, and the pads before the first element."""
    out = -(-size // stride)
    total = max((out - 1) * stride + window - size, 0)
    return out, total // 2
