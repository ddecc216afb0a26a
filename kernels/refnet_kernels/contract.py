"""What every kernel is told, and the numbers of the arithmetic contract.

The contract itself stands in ``kernels/README.md``. Geometry reaches a kernel as integers only: "SAME", "VALID" and
rates are resolved here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from refnet_kernels.system.float_mode import contract_mode

Float32Array = NDArray[np.float32]
#: An array of the computation's dtype: float32, or float64 where all is computed in binary64 (rule A8).
FloatArray = NDArray[np.floating[Any]]

BINARY32 = np.dtype(np.float32)
BINARY64 = np.dtype(np.float64)

#: The contract's version. Another order of any sum is another number.
CONTRACT_VERSION = 1
#: Products in a run of a convolution's sum (rule A1).
RUN = 64


class Geometry(Protocol):
    """What every op's geometry is: a NamedTuple of numbers, the batch's images among them."""

    @property
    def batch(self) -> int:
        """How many images there are."""

    def _replace(self, *, batch: int) -> Self:
        """The same for another number of images."""


class ImageGeometry(NamedTuple):
    """NHWC images, for an op that asks for nothing else."""

    batch: int
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> ImageGeometry:
        """Of an array's shape; one of fewer axes, such as [N, classes], has images of fewer pixels."""
        *outer, channels = shape
        batch, height, width = (*outer, 1, 1, 1)[:3]
        return cls(batch, height, width, channels)

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width


class NormGeometry(NamedTuple):
    """A batch norm of NHWC images; ``epsilon`` is added to the variance."""

    batch: int
    height: int
    width: int
    channels: int
    epsilon: float

    @classmethod
    def of(cls, shape: Sequence[int], epsilon: float = 0.0) -> NormGeometry:
        """Of an array's shape, as `ImageGeometry.of` has it."""
        return cls(*ImageGeometry.of(shape), epsilon)

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width


class SubsampleGeometry(NamedTuple):
    """Every ``factor``-th row and column of NHWC images."""

    batch: int
    height: int
    width: int
    channels: int
    factor: int

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return -(-self.height // self.factor)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return -(-self.width // self.factor)

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * self.out_height * self.out_width


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


class Frame(NamedTuple):
    """How a kernel would have its images: with zeros around them.

    Attributes
    ----------
    geometry : ConvGeometry
        Of the same operation on the frames.
    top, left : int
        Where an image lies in its frame.
    """

    geometry: ConvGeometry
    top: int
    left: int


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

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * self.out_height * self.out_width


class Flags(NamedTuple):
    """What a launch is told beside its geometry.

    Attributes
    ----------
    relu : bool
        Whether ReLU follows: of a convolution, before the sum with the shortcut.
    sum_relu : bool
        Whether ReLU follows that sum.
    finite : bool
        Whether all of a convolution's weights are known to be finite.
    """

    relu: bool = False
    sum_relu: bool = False
    finite: bool = False


class Target(NamedTuple):
    """Where a launch will run; the bits do not depend on it.

    Attributes
    ----------
    dtype : numpy.dtype
        Of all arrays; CUDA has binary32 alone.
    workers : int
        How many share the work: threads of the CPU, or multiprocessors of a CUDA device.
    """

    dtype: np.dtype[Any] = BINARY32
    workers: int = 1


class Packed(NamedTuple):
    """Weights as a backend's kernel reads them.

    Attributes
    ----------
    values : array
        Or the device's memory that has taken its numbers.
    finite : bool
        Whether all of them are known to be finite.
    """

    values: Any
    finite: bool


class Norm(NamedTuple):
    """A batch norm that is ready to be applied: ``fma(x - mean, scale, beta)``, one number a channel each."""

    mean: FloatArray
    scale: FloatArray
    beta: FloatArray


@contract_mode()
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
