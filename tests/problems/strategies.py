"""What Hypothesis draws for each op."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from refnet_kernels.contract import BINARY32, BINARY64, ConvGeometry, FloatArray, PoolGeometry
from refnet_kernels.target import WIDTH
from tests.problems.avg_pool import AvgPoolProblem
from tests.problems.base import KINDS, norm, numbers
from tests.problems.batch_norm import BatchNormProblem
from tests.problems.batch_statistics import StatisticsProblem
from tests.problems.conv import ConvProblem, conv_problem
from tests.problems.group_norm import GroupNormProblem, cancelling
from tests.problems.max_pool import MaxPoolProblem
from tests.problems.mean import MeanProblem
from tests.problems.pools import pool_same
from tests.problems.residual import ResidualProblem
from tests.problems.softmax import SoftmaxProblem
from tests.problems.subsample import SubsampleProblem

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
def group_norms(draw: st.DrawFn) -> GroupNormProblem:
    batch, height, width = draw(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)))
    groups, each = draw(st.sampled_from([1, 2, 3, 8, 32, 33])), draw(st.sampled_from([1, 2, 3, 5, 8, 17]))
    kind, seed, dtype = draw(st.sampled_from(KINDS)), draw(st.integers(0, 999)), draw(dtypes)
    x = numbers(kind, seed, batch, height, width, groups * each, dtype=dtype)
    other = draw(st.sampled_from(KINDS))
    gamma = numbers(other, 5, groups * each, dtype=dtype) if draw(st.booleans()) else None
    beta = numbers(other, 7, groups * each, dtype=dtype)
    epsilon = draw(st.sampled_from([0.0, 1e-5, 1.001e-5, 1e-3]))
    if draw(st.booleans()):
        with np.errstate(all="ignore"):
            x, beta = cancelling(x, groups), np.zeros_like(beta)
    return GroupNormProblem("drawn", x, gamma, beta, groups, epsilon, draw(st.booleans()))


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
    "group_norm": group_norms(),
}
