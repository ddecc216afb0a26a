"""The geometry that every kernel receives, and the constants of the arithmetic contract.

The contract itself is in ``kernels/README.md``. Geometry reaches a kernel as plain numbers: "SAME", "VALID" and rates
are resolved here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from refnet_kernels.system.float_mode import contract_mode

Float32Array = NDArray[np.float32]
#: An array of the computation's dtype: float32, or float64 if everything is computed in binary64 (rule A8).
FloatArray = NDArray[np.floating[Any]]

BINARY32 = np.dtype(np.float32)
BINARY64 = np.dtype(np.float64)

#: The contract's version. A sum in another order needs another version.
CONTRACT_VERSION = 1
#: Products in a run of a convolution's sum (rule A1).
RUN = 64


class Geometry(Protocol):
    """The interface of every op's geometry: a NamedTuple of numbers, among them the number of images."""

    @property
    def batch(self) -> int:
        """The number of images."""

    def _replace(self, *, batch: int) -> Self:
        """The same geometry with another number of images."""

    def __iter__(self) -> Iterator[float]:
        """The numbers."""


def _shape(array: Any) -> tuple[int, int, int, int]:
    """Four sizes, of an array or given as such."""
    shape = tuple(getattr(array, "shape", array))
    if len(shape) != 4:
        raise ValueError(f"The shape {shape} has {len(shape)} axes, where four are needed.")
    first, second, third, last = shape
    return first, second, third, last


def _sides(x: Sequence[int], weights: Sequence[int]) -> list[tuple[int, int]]:
    """The sizes of image and window along the height and the width."""
    if x[3] != weights[2]:
        raise ValueError(f"x has {x[3]} channels, and the weights {weights[2]} (they are [height, width, in, out]).")
    return [(x[1], weights[0]), (x[2], weights[1])]


class ImageGeometry(NamedTuple):
    """The shape of NHWC images, for an op that needs nothing else."""

    batch: int
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> ImageGeometry:
        """From an array's shape; an axis that it lacks, as [N, classes] lacks height and width, counts as 1."""
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
        """From an array's shape, as in `ImageGeometry.of`."""
        return cls(*ImageGeometry.of(shape), epsilon)

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width


class GroupNormGeometry(NamedTuple):
    """A group norm of NHWC images: ``groups`` divides the channels, and ``epsilon`` is added to the variance."""

    batch: int
    height: int
    width: int
    channels: int
    groups: int
    epsilon: float

    @classmethod
    def of(cls, shape: Sequence[int], groups: int, epsilon: float) -> GroupNormGeometry:
        """From an array's shape, as in `ImageGeometry.of`."""
        return cls(*ImageGeometry.of(shape), groups, epsilon)

    @property
    def group_channels(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups


class SubsampleGeometry(NamedTuple):
    """Every ``factor``-th row and column of NHWC images."""

    batch: int
    height: int
    width: int
    channels: int
    factor: int

    @classmethod
    def of(cls, x: Any, factor: int) -> SubsampleGeometry:
        """From an array [N, H, W, C], or its shape."""
        batch, height, width, channels = _shape(x)
        return cls(batch, height, width, channels, factor)

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

    @classmethod
    def same(cls, x: Any, weights: Any, stride: int = 1, rate: int = 1) -> ConvGeometry:
        """TF-Slim's ``conv2d_same``: pads that depend on the kernel alone, then "VALID".

        Parameters
        ----------
        x : array [N, H, W, C], or its shape
        weights : array [height, width, C, outputs], or its shape
        stride, rate : int

        Examples
        --------
        >>> from refnet_kernels.contract import ConvGeometry
        >>> ConvGeometry.same((1, 8, 8, 3), (3, 3, 3, 16), stride=2)[4:7]
        (4, 4, 16)
        """
        shapes = _shape(x), _shape(weights)
        sides = [(-(-size // stride), ((window - 1) * rate) // 2) for size, window in _sides(*shapes)]
        return cls._of(*shapes, sides, stride, rate)

    @classmethod
    def tensorflow_same(cls, x: Any, weights: Any, stride: int = 1, rate: int = 1) -> ConvGeometry:
        """TensorFlow's "SAME": pads that depend on the image's size too; parameters as for `same`."""
        shapes = _shape(x), _shape(weights)
        sides = [same_padding(size, window + (window - 1) * (rate - 1), stride) for size, window in _sides(*shapes)]
        return cls._of(*shapes, sides, stride, rate)

    @classmethod
    def _of(
        cls, x: Sequence[int], weights: Sequence[int], sides: Sequence[tuple[int, int]], stride: int, rate: int
    ) -> ConvGeometry:
        (out_height, top), (out_width, left) = sides
        batch, height, width, channels = x
        kernel_height, kernel_width, _, out_channels = weights
        return cls(
            batch, height, width, channels, out_height, out_width, out_channels, kernel_height, kernel_width, stride,
            rate, top, left,
        )  # fmt: skip

    @property
    def products(self) -> int:
        """Products in each output's sum."""
        return self.kernel_height * self.kernel_width * self.channels

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * self.out_height * self.out_width


class Frame(NamedTuple):
    """The layout that a kernel prefers for its images: with zeros around them.

    Attributes
    ----------
    geometry : ConvGeometry
        The geometry of the same operation on the frames.
    top, left : int
        Row and column of the frame where an image begins.
    """

    geometry: ConvGeometry
    top: int
    left: int


class PoolGeometry(NamedTuple):
    """A pool over NHWC images; pads as in `ConvGeometry`.

    ``zero_padding`` is 1 if pixels outside the image take part as +0, and 0 if they do not take part.
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

    @classmethod
    def same(cls, x: Any, window: int, stride: int) -> PoolGeometry:
        """TensorFlow's "SAME", as in TF-Slim's pool1.

        Parameters
        ----------
        x : array [N, H, W, C], or its shape
        window, stride : int
        """
        return cls.padded(x, window, stride, same_padding)

    @classmethod
    def padded(
        cls, x: Any, window: int, stride: int, padding: Callable[[int, int, int], tuple[int, int]],
        zero_padding: int = 0,
    ) -> PoolGeometry:  # fmt: skip
        """Any padding, alike along both axes.

        Parameters
        ----------
        x : array [N, H, W, C], or its shape
        window, stride : int
        padding : callable
            ``padding(size, window, stride)`` gives the output's size, and the pads before the first element.
        zero_padding : int
        """
        batch, height, width, channels = _shape(x)
        (out_height, top), (out_width, left) = (padding(size, window, stride) for size in (height, width))
        return cls(batch, height, width, channels, out_height, out_width, window, stride, top, left, zero_padding)

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * self.out_height * self.out_width


class Flags(NamedTuple):
    """The options of a launch, in addition to its geometry.

    Attributes
    ----------
    relu : bool
        Whether ReLU follows; in a convolution it comes before the sum with the shortcut.
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
        The dtype of all arrays; CUDA supports float32 only.
    workers : int
        The number of CPU threads, or of a CUDA device's multiprocessors, that share the work.
    zeros : bool
        Whether products with zeros may be left out. If not, a launch takes the same time whatever its images are.
    model : str
        A CUDA device's compute capability, as "sm_90".
    """

    dtype: np.dtype[Any] = BINARY32
    workers: int = 1
    zeros: bool = True
    model: str = ""


class Packed(NamedTuple):
    """Weights as a backend's kernel reads them.

    Attributes
    ----------
    values : array or device memory
        The packed numbers, on the host or on the device.
    finite : bool
        Whether all of them are known to be finite.
    """

    values: Any
    finite: bool


class Norm(NamedTuple):
    """A batch norm, ready to apply: ``fma(x - mean, scale, beta)``, each with one number per channel."""

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


def border_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Half a window on each side, then "VALID": the output's size, and the pads before the first element."""
    pad = window // 2
    return (size + 2 * pad - window) // stride + 1, pad


def valid_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "VALID": the output's size, and no pads."""
    return (size - window) // stride + 1, 0
