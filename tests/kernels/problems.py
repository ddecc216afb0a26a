"""Problems: what an op is given, and what it must give by its definition. Every backend gets the same ones.

A problem knows three ways to be solved: by the definitions in NumPy, one op after another; by a kernel's ``call``; and
by its ``launch``, over memory of the test's own.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from refnet_kernels.catalog import Kernel, rows, select
from refnet_kernels.contract import (
    BINARY32,
    BINARY64,
    ConvGeometry,
    Flags,
    FloatArray,
    ImageGeometry,
    Norm,
    NormGeometry,
    PoolGeometry,
    SubsampleGeometry,
    Target,
    same_padding,
)
from refnet_kernels.conv.cpu import pack
from refnet_kernels.cpu.layout import pack_channels
from refnet_kernels.cpu.team import Launch
from refnet_kernels.target import ROWS, WIDTH, WIDTH_BYTES

Arrays = dict[str, FloatArray]

DTYPES = (BINARY32, BINARY64)
#: The rows that run on any machine. CUDA has tests of its own, for a device or its simulator.
HOST_ROWS = [row for row in rows() if row[1] != "cuda"]


def _special(dtype: np.dtype[Any]) -> FloatArray:
    """Zeros, ones, and the ends of the range."""
    info = np.finfo(dtype)
    tiny, normal, largest = info.smallest_subnormal, info.smallest_normal, info.max
    return np.array([0.0, -0.0, 1.0, -1.0, tiny, -tiny, normal, largest, -largest, np.inf, -np.inf, np.nan], dtype)


SPECIAL = {dtype: _special(dtype) for dtype in DTYPES}


def numbers(kind: str, seed: int, *shape: int, dtype: np.dtype[Any] = BINARY32) -> FloatArray:
    """Random numbers of a kind, the same bits on every machine: no logarithm or exponential of a C library."""
    rng = np.random.default_rng(seed)
    # Nearly normal: the sum of four whole numbers of 32 bits, shifted to mean 0 and a deviation of 1.15.
    total = rng.integers(0, 2**32, (4, *shape)).sum(0) - 2**33
    normal = (total * 2.0**-31).astype(dtype)
    special = SPECIAL[dtype]
    if kind == "special":
        return special[rng.integers(0, len(special), shape)]
    if kind == "rarely special":
        return np.where(rng.random(shape) < 0.01, special[rng.integers(0, len(special), shape)], normal)
    if kind == "far from 0":
        # A mean that is large against the deviation.
        return dtype.type(1000) + normal * dtype.type(1e-3)
    if kind == "small integers":
        return rng.integers(-3, 4, shape).astype(dtype)
    if kind == "zeros and ones":
        return rng.choice(special[:4], shape)
    if kind == "many zeros":
        return np.where(rng.random(shape) < 0.6, rng.choice(special[:2], shape), normal)
    if kind == "many zeros, rarely special":
        rest = np.where(rng.random(shape) < 0.01, rng.choice(special, shape), normal)
        return np.where(rng.random(shape) < 0.6, rng.choice(special[:2], shape), rest)
    if kind == "huge":
        return normal * dtype.type(1e19 if dtype == BINARY32 else 1e154)
    if kind == "tiny":
        # The products are subnormal, or less.
        return normal * dtype.type(3e-20 if dtype == BINARY32 else 3e-155)
    return normal


KINDS = (
    "normal", "far from 0", "small integers", "zeros and ones", "tiny", "huge", "rarely special", "special",
    "many zeros", "many zeros, rarely special",
)  # fmt: skip


def norm(kind: str, seed: int, channels: int, dtype: np.dtype[Any] = BINARY32) -> Norm:
    return Norm(*(numbers(kind, seed + i, channels, dtype=dtype) for i in range(3)))


def packed(prefix: str, values: Norm | None) -> Arrays:
    if values is None:
        return {}
    return {f"{prefix}{role}": pack_channels(array) for role, array in values._asdict().items()}


def definition(op: str, *arguments: Any) -> Any:
    return select(op, "reference").call(*arguments)


class ConvProblem(NamedTuple):
    name: str
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

    op = "conv"

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

    def call(self, kernel: Kernel) -> Arrays:
        out, preact = kernel.call(*self[1:])
        return {name: value for name, value in (("out", out), ("preact", preact)) if value is not None}

    def inputs(self) -> Arrays:
        arrays = {"x": self.x, "weights": pack(self.weights)}
        if self.bias is not None:
            arrays["bias"] = pack_channels(self.bias)
        if self.shortcut is not None:
            arrays["shortcut"] = self.shortcut
        return arrays | packed("", self.norm) | packed("next_", self.next_norm)

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        flags = Flags(self.relu, self.sum_relu, bool(np.isfinite(self.weights).all()))
        return kernel.launch(self.geometry, addresses, flags, Target(self.x.dtype))


class BatchNormProblem(NamedTuple):
    name: str
    x: FloatArray
    norm: Norm
    relu: bool

    op = "batch_norm"

    def defined(self) -> Arrays:
        return {"out": definition("batch_norm", *self[1:])}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(*self[1:])}

    def inputs(self) -> Arrays:
        return {"x": self.x, **self.norm._asdict()}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(NormGeometry.of(self.x.shape), addresses, Flags(self.relu), Target(self.x.dtype))


class StatisticsProblem(NamedTuple):
    name: str
    x: FloatArray
    gamma: FloatArray | None
    epsilon: float

    op = "batch_statistics"

    def defined(self) -> Arrays:
        return dict(zip(("mean", "scale"), definition(self.op, *self[1:]), strict=True))

    def call(self, kernel: Kernel) -> Arrays:
        return dict(zip(("mean", "scale"), kernel.call(*self[1:]), strict=True))

    def inputs(self) -> Arrays:
        return {"x": self.x} if self.gamma is None else {"x": self.x, "gamma": self.gamma}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(NormGeometry.of(self.x.shape, self.epsilon), addresses, Flags(), Target(self.x.dtype))


class SubsampleProblem(NamedTuple):
    name: str
    x: FloatArray
    factor: int

    op = "subsample"

    @property
    def geometry(self) -> SubsampleGeometry:
        batch, height, width, channels = self.x.shape
        return SubsampleGeometry(batch, height, width, channels, self.factor)

    def defined(self) -> Arrays:
        return {"out": definition(self.op, self.x, self.geometry)}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(self.x, self.geometry)}

    def inputs(self) -> Arrays:
        return {"x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))


class ResidualProblem(NamedTuple):
    name: str
    shortcut: FloatArray
    x: FloatArray
    relu: bool

    op = "residual"

    def defined(self) -> Arrays:
        return {"out": definition(self.op, *self[1:])}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(*self[1:])}

    def inputs(self) -> Arrays:
        return {"shortcut": self.shortcut, "x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(self.relu), Target(self.x.dtype))


class MaxPoolProblem(NamedTuple):
    name: str
    x: FloatArray
    geometry: PoolGeometry
    next_norm: Norm | None = None

    op = "max_pool"

    def defined(self) -> Arrays:
        out = definition("max_pool", self.x, self.geometry)
        if self.next_norm is None:
            return {"out": out}
        return {"out": out, "preact": definition("batch_norm", out, self.next_norm, True)}

    def call(self, kernel: Kernel) -> Arrays:
        out, preact = kernel.call(*self[1:])
        return {"out": out} if preact is None else {"out": out, "preact": preact}

    def inputs(self) -> Arrays:
        return {"x": self.x} | packed("next_", self.next_norm)

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))


class AvgPoolProblem(NamedTuple):
    name: str
    x: FloatArray
    geometry: PoolGeometry

    op = "avg_pool"

    def defined(self) -> Arrays:
        return {"out": definition(self.op, *self[1:])}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(*self[1:])}

    def inputs(self) -> Arrays:
        return {"x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))


class MeanProblem(NamedTuple):
    name: str
    x: FloatArray

    op = "mean"

    def defined(self) -> Arrays:
        return {"out": definition(self.op, *self[1:])}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(*self[1:])}

    def inputs(self) -> Arrays:
        return {"x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(), Target(self.x.dtype))


class SoftmaxProblem(NamedTuple):
    name: str
    x: FloatArray

    op = "softmax"

    def defined(self) -> Arrays:
        return {"out": definition(self.op, *self[1:])}

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(*self[1:])}

    def inputs(self) -> Arrays:
        return {"x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(), Target(self.x.dtype))


Problem = (
    ConvProblem
    | BatchNormProblem
    | StatisticsProblem
    | SubsampleProblem
    | ResidualProblem
    | MaxPoolProblem
    | AvgPoolProblem
    | MeanProblem
    | SoftmaxProblem
)


def conv_same(batch: int, height: int, width: int, channels: int, out: int, kernel: int, stride: int) -> ConvGeometry:
    """A convolution with TensorFlow's "SAME" padding, without a rate."""
    (out_height, top), (out_width, left) = (same_padding(size, kernel, stride) for size in (height, width))
    return ConvGeometry(
        batch, height, width, channels, out_height, out_width, out, kernel, kernel, stride, 1, top, left
    )


def pool_same(batch: int, height: int, width: int, channels: int, window: int, stride: int) -> PoolGeometry:
    (out_height, top), (out_width, left) = (same_padding(size, window, stride) for size in (height, width))
    return PoolGeometry(batch, height, width, channels, out_height, out_width, window, stride, top, left)


def pool_keras(batch: int, height: int, width: int, channels: int) -> PoolGeometry:
    """Keras' pool1: a border of one zero all round, then windows of 3 x 3 by 2."""
    out_height, out_width = ((size - 1) // 2 + 1 for size in (height, width))
    return PoolGeometry(batch, height, width, channels, out_height, out_width, 3, 2, 1, 1, 1)


def pool_cut_off(batch: int, height: int, width: int, channels: int) -> PoolGeometry:
    """PyTorch's ``AvgPool2d(2, 2, ceil_mode=True)``: the last windows of an odd size are cut off."""
    return PoolGeometry(batch, height, width, channels, -(-height // 2), -(-width // 2), 2, 2, 0, 0)


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

    All numbers are of a kind, but for the ``weights`` where they have one of their own.
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


#: Binary64 in one of four draws: what differs is loads, stores and the width of a tile.
dtypes = st.sampled_from([BINARY32, BINARY32, BINARY32, BINARY64])


@st.composite
def axis(draw: st.DrawFn, kernel: int, stride: int, rate: int) -> tuple[int, int, int]:
    """An axis' size, its output's size and the zeros before it: inside the image, as TF-Slim pads, or anything."""
    reach = (kernel - 1) * rate + 1
    out = draw(st.integers(1, 7))
    style = draw(st.sampled_from(["inside", "conv2d_same", "any"]))
    if style == "inside":
        return (out - 1) * stride + reach + draw(st.integers(0, 2)), out, 0
    if style == "conv2d_same":
        size = (out - 1) * stride + 1 + draw(st.integers(0, stride - 1))
        return size, out, (reach - 1) // 2
    return draw(st.integers(1, 9)), out, draw(st.integers(0, reach))


@st.composite
def convs(draw: st.DrawFn) -> ConvProblem:
    kernel_height, kernel_width = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    stride, rate = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    height, out_height, top = draw(axis(kernel_height, stride, rate))
    width, out_width, left = draw(axis(kernel_width, stride, rate))
    # About as many products as 700: the definition takes them one by one.
    most = max(1, 700 // (kernel_height * kernel_width))
    channels = draw(st.sampled_from([c for c in (1, 2, 3, 7, 16, 31, 32, 33, 63, 64, 65, 128, 130) if c <= most]))
    out = draw(st.sampled_from([1, 3, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 2 * WIDTH + 5, 4 * WIDTH, 5 * WIDTH + 1]))
    batch = draw(st.integers(0, 3))
    g = ConvGeometry(
        batch, height, width, channels, out_height, out_width, out, kernel_height, kernel_width, stride, rate, top, left
    )
    parts = [part for part in ("bias", "norm", "relu", "shortcut", "sum relu") if draw(st.booleans())]
    parts.append(draw(st.sampled_from(["", "preact", "preact only"])))
    kind, seed, dtype = draw(st.sampled_from(KINDS)), draw(st.integers(0, 999)), draw(dtypes)
    return conv_problem("drawn", g, kind, ",".join(parts), seed, dtype, draw(st.sampled_from([kind, "normal"])))


@st.composite
def images(draw: st.DrawFn) -> FloatArray:
    batch, height, width = draw(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)))
    channels = draw(st.sampled_from([1, 2, 3, 15, 16, 17, 63, 64, 65, 130, 257]))
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 999))
    return numbers(kind, seed, batch, height, width, channels, dtype=draw(dtypes))


@st.composite
def batch_norms(draw: st.DrawFn) -> BatchNormProblem:
    x = draw(images())
    statistics = norm(draw(st.sampled_from(KINDS)), draw(st.integers(0, 999)), x.shape[-1], x.dtype)
    return BatchNormProblem("drawn", x, statistics, draw(st.booleans()))


@st.composite
def statistics(draw: st.DrawFn) -> StatisticsProblem:
    x = draw(images())
    gamma = numbers(draw(st.sampled_from(KINDS)), 5, x.shape[-1], dtype=x.dtype) if draw(st.booleans()) else None
    return StatisticsProblem("drawn", x, gamma, draw(st.sampled_from([0.0, 1e-5, 1.001e-5, 1e-3])))


@st.composite
def residuals(draw: st.DrawFn) -> ResidualProblem:
    x = draw(images())
    shortcut = numbers(draw(st.sampled_from(KINDS)), 7, *x.shape, dtype=x.dtype)
    return ResidualProblem("drawn", shortcut, x, draw(st.booleans()))


@st.composite
def pools(draw: st.DrawFn, x: FloatArray) -> PoolGeometry:
    window, stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    g = pool_same(*x.shape, window, stride)
    if draw(st.booleans()):
        # Anything, windows that lie outside the image included.
        out_height, out_width = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        top, left = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
        g = PoolGeometry(*x.shape, out_height, out_width, window, stride, top, left)
    return g._replace(zero_padding=draw(st.integers(0, 1)))


@st.composite
def max_pools(draw: st.DrawFn) -> MaxPoolProblem:
    x = draw(images())
    next_norm = norm(draw(st.sampled_from(KINDS)), 9, x.shape[-1], x.dtype) if draw(st.booleans()) else None
    return MaxPoolProblem("drawn", x, draw(pools(x)), next_norm)


@st.composite
def avg_pools(draw: st.DrawFn) -> AvgPoolProblem:
    x = draw(images())
    return AvgPoolProblem("drawn", x, draw(pools(x)))


@st.composite
def softmaxes(draw: st.DrawFn) -> SoftmaxProblem:
    shape = draw(st.sampled_from([(0, 3), (1, 1), (2, 3, 5), (3, 10), (1, 1001), (2, 0)]))
    x = numbers(draw(st.sampled_from(KINDS)), draw(st.integers(0, 999)), *shape, dtype=draw(dtypes))
    with np.errstate(over="ignore"):
        return SoftmaxProblem("drawn", x * x.dtype.type(draw(st.sampled_from([1, 1e-3, 30, 1000]))))


#: What to draw for each op.
DRAWN: dict[str, st.SearchStrategy[Any]] = {
    "conv": convs(),
    "batch_norm": batch_norms(),
    "batch_statistics": statistics(),
    "subsample": st.builds(SubsampleProblem, st.just("drawn"), images(), st.integers(1, 4)),
    "residual": residuals(),
    "max_pool": max_pools(),
    "avg_pool": avg_pools(),
    "mean": st.builds(MeanProblem, st.just("drawn"), images()),
    "softmax": softmaxes(),
}

#: Logits whose softmax lies so close to the middle of two binary32 numbers that the last bit of the exp decides: found
#: by search, since of 10^10 random ones about one is such. The exp of the C library, one with fma, or one with a
#: coefficient fewer gives other bits here.
NEXT_TO_A_TIE = np.array(
    [
        [0, -0.3733517825603485, -1.7055180072784424],
        [0, -0.2654836177825928, -5.156560897827148],
        [0, -0.7415838837623596, -3.9887959957122803],
        [0, -1.0448946952819824, -6.82160758972168],
        [0, -1.520798683166504, -5.021670341491699],
        [0, -1.5358325242996216, -3.7070868015289307],
        [0, -2.567655086517334, -5.313163757324219],
        [0, -3.0248095989227295, -4.506378650665283],
        [0, -3.568624973297119, -6.601922035217285],
        [0, -5.300096035003662, -5.776457786560059],
        [0, -0.06171778589487076, -3.0526483058929443],
        [0, -1.0315377712249756, -5.3376264572143555],
        [0, -1.7314985990524292, -6.308123588562012],
        [0, -2.3848564624786377, -5.659251689910889],
    ],
    np.float32,
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


def named(dtype: np.dtype[Any]) -> list[Problem]:
    """Problems whose sizes are the same on every machine, so that their bits can be compared across vector widths.

    Each op has one that is cut into several items.
    """
    conv, draw, draw_norm = (partial(function, dtype=dtype) for function in (conv_problem, numbers, norm))
    largest = np.finfo(dtype).max
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
        conv("many zeros, subsampled", conv_same(2, 9, 9, 128, 33, 1, 2), "many zeros, rarely special", weights="tiny"),
        conv("zeros and an infinite weight", conv_same(1, 6, 6, 64, 5, 1, 1), "many zeros", weights="rarely special"),
        conv("no images", conv_same(0, 6, 6, 5, 17, 3, 1)),
        rounded_once(dtype),
        nan_among_zeros(dtype),
        BatchNormProblem("several items", draw("normal", 1, 2, 33, 35, 65), draw_norm("normal", 2, 65), True),
        BatchNormProblem("no ReLU", draw("rarely special", 1, 2, 3, 5, 17), draw_norm("special", 2, 17), False),
        StatisticsProblem("several items", draw("normal", 1, 2, 9, 7, 200), draw("normal", 2, 200), 1e-5),
        StatisticsProblem("far from 0", draw("far from 0", 1, 2, 9, 7, 30), draw("normal", 2, 30), 1e-5),
        StatisticsProblem("no gamma", draw("rarely special", 1, 3, 5, 7, 3), None, 1e-3),
        StatisticsProblem("no images", draw("normal", 1, 0, 5, 7, 3), None, 1e-3),
        SubsampleProblem("several items", draw("special", 1, 2, 7, 9, 33), 2),
        SubsampleProblem("no images", draw("special", 1, 0, 7, 9, 33), 2),
        ResidualProblem("several items", draw("normal", 1, 150_000), draw("special", 2, 150_000), False),
        ResidualProblem("ReLU", draw("normal", 1, 1003), draw("rarely special", 2, 1003), True),
        ResidualProblem("ReLU of special values", draw("special", 1, 300), draw("special", 2, 300), True),
        MaxPoolProblem(
            "pool1", draw("normal", 1, 2, 12, 13, 64), pool_same(2, 12, 13, 64, 3, 2), draw_norm("normal", 3, 64)
        ),
        MaxPoolProblem("special values", draw("special", 1, 1, 9, 9, 17), pool_same(1, 9, 9, 17, 3, 2)),
        MaxPoolProblem("zeros win", -abs(draw("normal", 1, 2, 12, 13, 64)), pool_keras(2, 12, 13, 64)),
        MaxPoolProblem("special values, zeros", draw("special", 1, 1, 9, 9, 17), pool_keras(1, 9, 9, 17)),
        MaxPoolProblem("zeros of both signs", -draw("zeros and ones", 1, 1, 5, 6, 17), pool_keras(1, 5, 6, 17)),
        AvgPoolProblem("cut off at the border", draw("normal", 1, 2, 9, 12, 65), pool_cut_off(2, 9, 12, 65)),
        AvgPoolProblem("nearly special", draw("rarely special", 1, 1, 8, 7, 17), pool_same(1, 8, 7, 17, 3, 2)),
        AvgPoolProblem("zeros count", draw("far from 0", 1, 2, 6, 5, 16), pool_keras(2, 6, 5, 16)),
        AvgPoolProblem("windows outside", draw("huge", 1, 1, 2, 3, 6), PoolGeometry(1, 2, 3, 6, 3, 3, 2, 2, 3, 2)),
        MeanProblem("several items", draw("normal", 1, 2, 7, 7, 600)),
        MeanProblem("overflow, in binary32 of a sum alone", np.full((1, 4, 4, 3), largest * dtype.type(0.9))),
        SoftmaxProblem("several items", draw("normal", 1, 9, 1001) * dtype.type(20)),
        SoftmaxProblem("special values", draw("special", 1, 40, 3)),
    ]


NAMED: list[Problem] = [*named(BINARY32), SoftmaxProblem("next to a tie", NEXT_TO_A_TIE), *named(BINARY64)]


def in_binary32(problem: Problem) -> bool:
    """Whether CUDA, which computes in binary32 alone, can do it."""
    return problem.x.dtype == BINARY32


def identity(problem: Problem) -> str:
    """An id for pytest."""
    return f"{problem.op}-{problem.name}" + ("-binary64" if problem.x.dtype == BINARY64 else "")


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


def assert_same_bits(found: Arrays, expected: Arrays) -> None:
    """The same shapes and bits; where one is NaN, so is the other, whatever its payload."""
    assert list(found) == list(expected)
    for name, value in found.items():
        other = expected[name]
        assert (value.shape, value.dtype) == (other.shape, other.dtype), name
        np.testing.assert_array_equal(np.isnan(value), np.isnan(other), name)
        numeric, bits = ~np.isnan(value), f"u{value.itemsize}"
        np.testing.assert_array_equal(value[numeric].view(bits), other[numeric].view(bits), name)


def digest(results: list[Arrays]) -> str:
    """A SHA-256 over all the bits, with one payload for every NaN."""
    sha = hashlib.sha256()
    for result in results:
        for name, value in result.items():
            sha.update(f"{name} {value.shape}".encode())
            nan = value.dtype.type(np.nan)
            sha.update(np.where(np.isnan(value), nan, value).astype(value.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()
