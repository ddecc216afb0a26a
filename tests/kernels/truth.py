"""What a problem's outputs are in exact arithmetic, place by place, and the check of a kernel's outputs against it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.catalog import select
from tests.exact import ops
from tests.exact.arithmetic import BINARY32, BINARY64, Format
from tests.kernels.problems import (
    Arrays,
    AvgPoolProblem,
    BatchNormProblem,
    ConvProblem,
    MaxPoolProblem,
    MeanProblem,
    Problem,
    ResidualProblem,
    SoftmaxProblem,
    StatisticsProblem,
    SubsampleProblem,
)

Place = tuple[int, ...]
At = Callable[[Place], dict[str, float]]


class Truth(NamedTuple):
    """The exact outputs of a problem.

    Attributes
    ----------
    shape : tuple of int
        Of each output.
    operations : int
        About how many exact operations one place takes.
    at : callable
        The outputs' values at a place, by name.
    """

    shape: tuple[int, ...]
    operations: int
    at: At


def _norm(values: Any, channel: int) -> ops.Norm:
    return ops.Norm(*(array[channel].item() for array in values))


def conv(p: ConvProblem, f: Format = BINARY32) -> Truth:
    g = p.geometry
    window = ops.Window(g.stride, g.pad_top, g.pad_left, g.rate)
    images, weights = p.x.tolist(), p.weights.tolist()

    def at(place: Place) -> dict[str, float]:
        n, y, x, o = place
        t = ops.conv(f, images[n], weights, window, y, x, o)
        bias = None if p.bias is None else p.bias[o].item()
        norm = None if p.norm is None else _norm(p.norm, o)
        shortcut = None if p.shortcut is None else p.shortcut[place].item()
        t = ops.epilogue(f, t, bias, norm, p.relu, shortcut, p.sum_relu)
        values = {"out": t} if p.keep_out else {}
        return values if p.next_norm is None else values | {"preact": ops.preact(f, t, _norm(p.next_norm, o))}

    return Truth((g.batch, g.out_height, g.out_width, g.out_channels), g.products, at)


def batch_norm(p: BatchNormProblem, f: Format = BINARY32) -> Truth:
    def at(place: Place) -> dict[str, float]:
        value = ops.norm(f, p.x[place].item(), _norm(p.norm, place[-1]))
        return {"out": ops.relu(value) if p.relu else value}

    return Truth(p.x.shape, 2, at)


def batch_statistics(p: StatisticsProblem, f: Format = BINARY32) -> Truth:
    pixels = p.x.reshape(-1, p.x.shape[-1])

    def at(place: Place) -> dict[str, float]:
        gamma = None if p.gamma is None else p.gamma[place].item()
        values = pixels[:, place[0]].tolist()
        return dict(zip(("mean", "scale"), ops.batch_statistics(f, values, gamma, p.epsilon), strict=True))

    return Truth(p.x.shape[-1:], 4 * len(pixels), at)


def subsample(p: SubsampleProblem, _: Format = BINARY32) -> Truth:
    batch, height, width, channels = p.x.shape
    images = p.x.tolist()
    shape = (batch, math.ceil(height / p.factor), math.ceil(width / p.factor), channels)
    return Truth(shape, 1, lambda place: {"out": ops.subsample(images[place[0]], p.factor, *place[1:])})


def residual(p: ResidualProblem, f: Format = BINARY32) -> Truth:
    def at(place: Place) -> dict[str, float]:
        total = f.add(p.shortcut[place].item(), p.x[place].item())
        return {"out": ops.relu(total) if p.relu else total}

    return Truth(p.x.shape, 1, at)


def max_pool(p: MaxPoolProblem, f: Format = BINARY32) -> Truth:
    g = p.geometry
    window = ops.Window(g.stride, g.pad_top, g.pad_left)
    images = p.x.tolist()

    def at(place: Place) -> dict[str, float]:
        n, y, x, c = place
        m = ops.max_pool(images[n], g.window, window, bool(g.zero_padding), y, x, c)
        if p.next_norm is None:
            return {"out": m}
        return {"out": m, "preact": ops.preact(f, m, _norm(p.next_norm, c))}

    return Truth((g.batch, g.out_height, g.out_width, g.channels), g.window**2, at)


def avg_pool(p: AvgPoolProblem, f: Format = BINARY32) -> Truth:
    g = p.geometry
    window = ops.Window(g.stride, g.pad_top, g.pad_left)
    images = p.x.tolist()

    def at(place: Place) -> dict[str, float]:
        n, y, x, c = place
        return {"out": ops.avg_pool(f, images[n], g.window, window, bool(g.zero_padding), y, x, c)}

    return Truth((g.batch, g.out_height, g.out_width, g.channels), g.window**2, at)


def mean(p: MeanProblem, f: Format = BINARY32) -> Truth:
    batch, height, width, channels = p.x.shape
    pixels = p.x.reshape(batch, height * width, channels)

    def at(place: Place) -> dict[str, float]:
        return {"out": ops.mean(f, pixels[place[0], :, place[-1]].tolist())}

    return Truth((batch, 1, 1, channels), height * width, at)


def softmax(p: SoftmaxProblem, f: Format = BINARY32) -> Truth:
    def at(place: Place) -> dict[str, float]:
        return {"out": ops.softmax(f, p.x[place[:-1]].tolist())[place[-1]]}

    return Truth(p.x.shape, 40 * p.x.shape[-1], at)


#: How the outputs of each op's problems are found.
TRUTHS: dict[str, Callable[..., Truth]] = {
    "conv": conv,
    "batch_norm": batch_norm,
    "batch_statistics": batch_statistics,
    "subsample": subsample,
    "residual": residual,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "mean": mean,
    "softmax": softmax,
}

FORMATS = {np.dtype(np.float32): BINARY32, np.dtype(np.float64): BINARY64}

#: Exact operations that one check takes, about 20 ms; places beyond it are left to other draws.
BUDGET = 15_000


def _places(truth: Truth, seed: int) -> list[Place]:
    """The first place, the last one, and as many others as the budget allows."""
    size = math.prod(truth.shape)
    count = min(size, max(2, BUDGET // max(truth.operations, 100)))
    chosen = random.Random(seed).sample(range(size), count)
    if size:
        chosen[:2] = [0, size - 1]
    return [tuple(map(int, np.unravel_index(i, truth.shape))) for i in chosen]


def same(found: float, exact: float) -> bool:
    """The same number and sign, or both NaN."""
    if math.isnan(found) or math.isnan(exact):
        return math.isnan(found) and math.isnan(exact)
    return found == exact and math.copysign(1, found) == math.copysign(1, exact)


def solve(problem: Problem, backend: str) -> Arrays:
    """By a kernel as it is fused; by the reference one op after another."""
    return problem.defined() if backend == "reference" else problem.call(select(problem.op, backend))


def check(problem: Problem, backend: str, seed: int) -> None:
    """Hold a backend's outputs to exact arithmetic, at places that the seed chooses."""
    case = f"{problem.op} on {backend}, {problem.name!r}"
    found = solve(problem, backend)
    truth = TRUTHS[problem.op](problem, FORMATS[problem.x.dtype])
    for name, array in found.items():
        assert (array.shape, array.dtype) == (truth.shape, problem.x.dtype), f"{case}: {name}"
    for place in _places(truth, seed):
        exact = truth.at(place)
        assert list(found) == list(exact), case
        for name, value in exact.items():
            other = found[name][place].item()
            assert same(other, value), f"{case}: {name}{list(place)} is {other.hex()}, exactly {value.hex()}"
