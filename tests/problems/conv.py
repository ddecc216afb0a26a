"""Problems of a convolution with its epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import BINARY32, ConvGeometry, Flags, FloatArray, Norm, Target, same_padding
from refnet_kernels.conv.cpu import pack
from refnet_kernels.cpu.layout import pack_channels
from refnet_kernels.cpu.team import Launch
from refnet_kernels.target import ROWS, WIDTH_BYTES
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import (
    Place,
    Problem,
    Truth,
    definition,
    exact_norm,
    norm,
    numbers,
    packed_norm,
    vector_norm,
)
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class ConvProblem(Problem):
    op: ClassVar = "conv"
    outputs: ClassVar = ("out", "preact")

    x: FloatArray
    weights: FloatArray
    geometry: ConvGeometry
    bias: FloatArray | None = None
    norm: Norm | None = None
    relu: bool = False
    shortcut: FloatArray | None = None
    sum_relu: bool = False
    next_norm: Norm | None = None
    keep_out: bool = True

    def defined(self) -> Arrays:
        t = definition("conv", self.x, self.weights, self.geometry, self.bias)
        if self.norm is not None:
            t = definition("batch_norm", t, self.norm, self.relu)
        elif self.relu:
            t = np.where(t < 0, t.dtype.type(0), t)
        if self.shortcut is not None:
            t = definition("residual", self.shortcut, t, self.sum_relu)
        outputs = {"out": t} if self.keep_out else {}
        if self.next_norm is not None:
            outputs["preact"] = definition("batch_norm", t, self.next_norm, True)
        return outputs

    def inputs(self) -> Arrays:
        arrays = {"x": self.x, "weights": pack(self.weights)}
        if self.bias is not None:
            arrays["bias"] = pack_channels(self.bias)
        if self.shortcut is not None:
            arrays["shortcut"] = self.shortcut
        return arrays | packed_norm("", self.norm) | packed_norm("next_", self.next_norm)

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        flags = Flags(self.relu, self.sum_relu, bool(np.isfinite(self.weights).all()))
        return kernel.launch(self.geometry, addresses, flags, Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        g = self.geometry
        window = ops.Window(g.stride, g.pad_top, g.pad_left, g.rate)
        images, weights = self.x.tolist(), self.weights.tolist()

        def at(place: Place) -> dict[str, float]:
            n, y, x, o = place
            t = ops.conv(f, images[n], weights, window, y, x, o)
            bias = None if self.bias is None else self.bias[o].item()
            norm = None if self.norm is None else exact_norm(self.norm, o)
            shortcut = None if self.shortcut is None else self.shortcut[place].item()
            t = ops.epilogue(f, t, bias, norm, self.relu, shortcut, self.sum_relu)
            values = {"out": t} if self.keep_out else {}
            if self.next_norm is not None:
                values["preact"] = ops.preact(f, t, exact_norm(self.next_norm, o))
            return values

        return Truth((g.batch, g.out_height, g.out_width, g.out_channels), g.products, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> ConvProblem:
        return cls(
            name,
            arrays["x"],
            arrays["weights"],
            ConvGeometry(*(integers[field] for field in ConvGeometry._fields)),
            arrays.get("bias"),
            vector_norm(arrays),
            bool(integers["relu"]),
            arrays.get("shortcut"),
            bool(integers.get("sum_relu")),
            vector_norm(arrays, "next_"),
        )

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[ConvProblem]:
        conv = partial(conv_problem, dtype=dtype)
        return [
            conv("a sum's ReLU", conv_same(1, 6, 6, 3, 17, 3, 1), "rarely special", "norm,shortcut,sum relu"),
            conv("3 x 3, several items", conv_same(1, 24, 23, 64, 65, 3, 1), epilogue="bias,relu,preact"),
            # Its 147 products are cut into runs of 64, 64 and 19, which cross taps.
            conv("root block's 7 x 7", conv_same(2, 15, 14, 3, 64, 7, 2), epilogue="bias,preact"),
            conv("root block on a padded image", ConvGeometry(1, 17, 19, 3, 6, 7, 64, 7, 7, 2, 1, 0, 0)),
            conv("no output channels", conv_same(1, 6, 6, 5, 0, 3, 1)),
            conv("one product", conv_same(1, 3, 3, 1, 1, 1, 1), epilogue="norm"),
            conv("a run and no more", conv_same(1, 5, 5, 64, 33, 1, 1), epilogue="norm,relu"),
            conv("a run and one product", conv_same(1, 5, 5, 65, 33, 1, 1), epilogue="shortcut,preact only"),
            conv("two runs, subsampled", conv_same(3, 5, 5, 128, 15, 1, 2), epilogue="bias,shortcut"),
            conv("atrous", ConvGeometry(1, 9, 8, 16, 9, 8, 31, 3, 3, 1, 2, 2, 2), epilogue="norm,relu"),
            conv("nothing but zeros around", ConvGeometry(1, 2, 2, 3, 4, 4, 5, 2, 2, 3, 3, 4, 4), epilogue="bias"),
            conv("special values", conv_same(1, 6, 6, 3, 17, 3, 1), "rarely special", "bias,norm,relu,shortcut,preact"),
            conv("subnormal products", conv_same(1, 6, 6, 5, 17, 3, 1), "tiny"),
            conv("overflow", conv_same(1, 6, 6, 5, 17, 3, 1), "huge"),
            conv("many zeros", conv_same(1, 7, 9, 64, 200, 3, 1), "many zeros", "bias,norm,relu,shortcut,preact"),
            conv(
                "many zeros, subsampled",
                conv_same(2, 9, 9, 128, 33, 1, 2),
                "many zeros, rarely special",
                weights="tiny",
            ),
            conv(
                "zeros and an infinite weight", conv_same(1, 6, 6, 64, 5, 1, 1), "many zeros", weights="rarely special"
            ),
            conv("no images", conv_same(0, 6, 6, 5, 17, 3, 1)),
            rounded_once(dtype),
            nan_among_zeros(dtype),
        ]


def conv_same(batch: int, height: int, width: int, channels: int, out: int, kernel: int, stride: int) -> ConvGeometry:
    """A convolution with TensorFlow's "SAME" padding, without a rate."""
    (out_height, top), (out_width, left) = (same_padding(size, kernel, stride) for size in (height, width))
    return ConvGeometry(
        batch, height, width, channels, out_height, out_width, out, kernel, kernel, stride, 1, top, left
    )


def conv_problem(
    name: str,
    g: ConvGeometry,
    kind: str = "normal",
    epilogue: str = "",
    seed: int = 0,
    dtype: np.dtype[Any] = BINARY32,
    weights: str | None = None,
) -> ConvProblem:
    """A convolution with the parts of the epilogue that are named, separated by commas.

    All numbers are of a kind, except the ``weights`` where they have one of their own.
    """
    parts = epilogue.split(",")
    draw, draw_norm = partial(numbers, kind, dtype=dtype), partial(norm, kind, channels=g.out_channels, dtype=dtype)
    return ConvProblem(
        name,
        draw(seed, g.batch, g.height, g.width, g.channels),
        numbers(weights or kind, seed + 1, g.kernel_height, g.kernel_width, g.channels, g.out_channels, dtype=dtype),
        g,
        draw(seed + 2, g.out_channels) if "bias" in parts else None,
        draw_norm(seed + 3) if "norm" in parts else None,
        "relu" in parts,
        draw(seed + 6, g.batch, g.out_height, g.out_width, g.out_channels) if "shortcut" in parts else None,
        "sum relu" in parts,
        draw_norm(seed + 7) if "preact" in parts or "preact only" in parts else None,
        "preact only" not in parts,
    )


def rounded_once(dtype: np.dtype[Any]) -> ConvProblem:
    """Sums of two products that lie so close to the middle of two numbers that twice as many bits cannot tell."""
    bits = np.finfo(dtype).nmant
    c = 1 + 2.0**-bits
    # a * b is a little less than half the distance of c's neighbours.
    a, b = (1 + 2.0**-bits) * 2.0**-3, (1 - 2.0**-bits) * 2.0 ** (2 - bits)
    weights = np.array([[c, c], [b, -b]], dtype).reshape(1, 1, 2, 2)
    x = np.array([1, a], dtype).reshape(1, 1, 1, 2)
    return ConvProblem("sums next to a tie", x, weights, conv_same(1, 1, 1, 2, 2, 1, 1))


def nan_among_zeros(dtype: np.dtype[Any]) -> ConvProblem:
    """All of a pixel's inputs are 0 but one, which is NaN."""
    x = np.zeros((1, 6, 6, 64), dtype)
    x[..., 7] = np.nan
    return ConvProblem("NaN among zeros", x, np.ones((1, 1, 64, 3), dtype), conv_same(1, 6, 6, 64, 3, 1, 1))


def edges(dtype: np.dtype[Any]) -> list[ConvProblem]:
    """Pixels and channels next to the tile's own sizes on this machine."""
    width = WIDTH_BYTES // dtype.itemsize
    sizes = [(pixels, out) for pixels in (ROWS - 1, ROWS, ROWS + 1, 2 * ROWS) for out in (width - 1, width, width + 1)]
    return [
        conv_problem(
            f"{p} pixels, {channels} to {out} channels",
            conv_same(1, 1, p, channels, out, 1, 1),
            epilogue="bias,norm,shortcut,preact",
            dtype=dtype,
        )
        for p, out in sizes
        # Whole turns of products, and none: of those, tiles of a pixel less are not used.
        for channels in (8, 5)
    ]
