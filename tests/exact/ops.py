"""The arithmetic contract, op by op, in exact arithmetic: ``kernels/README.md`` clause by clause, one output at a time.

It shares no code with the kernels nor with their definitions in NumPy, and imports neither. Images, weights and
channels are nested lists of floats. The format of the numbers is a parameter: with `BINARY64` for `BINARY32` these are
the same rules in binary64, where the contract's own binary64 steps stay and a rounding to the format changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.exact.arithmetic import BINARY64, Format

Channels = Sequence[float]
Image = Sequence[Sequence[Channels]]

RUN = 64


class Window(NamedTuple):
    """How a kernel or a pool's window moves over an image."""

    stride: int
    pad_top: int
    pad_left: int
    rate: int = 1


class Norm(NamedTuple):
    """A batch norm's numbers for one channel."""

    mean: float
    scale: float
    beta: float


def conv(f: Format, image: Image, weights: Sequence[Image], window: Window, y: int, x: int, o: int) -> float:
    """Rule A1: one output of a convolution, from one image [height][width][channel] and HWIO weights."""
    height, width = len(image), len(image[0])
    t = s = 0.0
    k = 0
    for kh, kernel_row in enumerate(weights):
        for kw, tap in enumerate(kernel_row):
            row = y * window.stride + kh * window.rate - window.pad_top
            column = x * window.stride + kw * window.rate - window.pad_left
            inside = 0 <= row < height and 0 <= column < width
            for c, outputs in enumerate(tap):
                v = image[row][column][c] if inside else 0.0
                s = f.fma(v, outputs[o], s)
                k += 1
                if k % RUN == 0:
                    t, s = f.add(t, s), 0.0
    return f.add(t, s) if k % RUN else t


def norm(f: Format, x: float, n: Norm) -> float:
    """Rule A3: batch norm of one number."""
    return f.fma(f.subtract(x, n.mean), n.scale, n.beta)


def relu(x: float) -> float:
    """Rule A2: NaN stays NaN, -0 stays -0."""
    return 0.0 if x < 0 else x


def preact(f: Format, x: float, n: Norm) -> float:
    """Rule A2: the second output."""
    return relu(norm(f, x, n))


def epilogue(
    f: Format,
    t: float,
    bias: float | None,
    n: Norm | None,
    with_relu: bool,
    shortcut: float | None,
    with_sum_relu: bool,
) -> float:
    """Rule A2: what follows a convolution; None stands for a part that is left out."""
    if bias is not None:
        t = f.add(t, bias)
    if n is not None:
        t = norm(f, t, n)
    if with_relu:
        t = relu(t)
    if shortcut is None:
        return t
    t = f.add(shortcut, t)
    return relu(t) if with_sum_relu else t


def scale(f: Format, gamma: float | None, variance: float, epsilon: float) -> float:
    """Rule A3: binary64, then rounded to the format."""
    deviation = BINARY64.sqrt(BINARY64.add(variance, epsilon))
    return f.round(BINARY64.divide(1.0 if gamma is None else gamma, deviation))


def batch_statistics(f: Format, values: Sequence[float], gamma: float | None, epsilon: float) -> tuple[float, float]:
    """Rule A3: mean and scale of one channel, its values in row-major order of (n, h, w)."""
    count = float(len(values))
    mean = BINARY64.divide(_sum(values), count)
    deviations = [BINARY64.subtract(x, mean) for x in values]
    variance = BINARY64.divide(_sum(BINARY64.multiply(d, d) for d in deviations), count)
    return f.round(mean), scale(f, gamma, variance, epsilon)


def group_statistics(
    f: Format, channels: Sequence[Sequence[Sequence[float]]], gamma: float | None, epsilon: float
) -> tuple[float, float]:
    """Rule A9: mean and scale of one channel of an image, from the channels [height][width] of its group."""
    count = float(sum(len(row) for rows in channels for row in rows))
    mean = BINARY64.divide(_group_sum(channels), count)
    deviations = [[[BINARY64.subtract(x, mean) for x in row] for row in rows] for rows in channels]
    squares = [[[BINARY64.multiply(d, d) for d in row] for row in rows] for rows in deviations]
    return f.round(mean), scale(f, gamma, BINARY64.divide(_group_sum(squares), count), epsilon)


def _group_sum(channels: Sequence[Sequence[Sequence[float]]]) -> float:
    """Rule A9: along each row, then over the rows, then over the channels."""
    return _sum(_sum(_sum(row) for row in rows) for rows in channels)


def max_pool(image: Image, size: int, window: Window, zero_padding: bool, y: int, x: int, c: int) -> float:
    """Rule A4: one output of a max pool with windows of ``size`` x ``size``."""
    m = -math.inf
    for v in _pixels(image, size, window, zero_padding, y, x, c):
        m = v if v > m or math.isnan(v) else m
    return m


def _pixels(image: Image, size: int, window: Window, zero_padding: bool, y: int, x: int, c: int) -> Iterator[float]:
    """Rule A4: what takes part in a pool's window, in row-major order."""
    top, left = y * window.stride - window.pad_top, x * window.stride - window.pad_left
    for row in range(top, top + size):
        for column in range(left, left + size):
            inside = 0 <= row < len(image) and 0 <= column < len(image[0])
            if inside or zero_padding:
                yield image[row][column][c] if inside else 0.0


def subsample(image: Image, factor: int, y: int, x: int, c: int) -> float:
    """Rule A4: one output of a subsampling."""
    return image[y * factor][x * factor][c]


def mean(f: Format, values: Sequence[float]) -> float:
    """Rule A5: the mean of one channel of an image, its values in row-major order of (h, w)."""
    return f.round(BINARY64.divide(_sum(values), float(len(values))))


def avg_pool(f: Format, image: Image, size: int, window: Window, zero_padding: bool, y: int, x: int, c: int) -> float:
    """Rule A5: one output of an average pool with windows of ``size`` x ``size``."""
    return mean(f, list(_pixels(image, size, window, zero_padding, y, x, c)))


def softmax(f: Format, logits: Sequence[float]) -> list[float]:
    """Rule A6: a row of logits."""
    m = -math.inf
    for v in logits:
        m = v if v > m else m
    powers = [exp(BINARY64.subtract(v, m)) for v in logits]
    total = _sum(powers)
    return [f.round(BINARY64.divide(power, total)) for power in powers]


LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
#: 1 / n! for n = 0 to 13.
COEFFICIENTS = [BINARY64.divide(1.0, float(math.factorial(n))) for n in range(14)]


def exp(d: float) -> float:
    """Rule A6: the exponential of 0 or less."""
    if math.isnan(d):
        return d
    if d < -708:
        return 0.0
    multiply, add, subtract = BINARY64.multiply, BINARY64.add, BINARY64.subtract
    k = float(math.floor(add(multiply(d, LOG2_E), 0.5)))
    r = subtract(subtract(d, multiply(k, LN2_HIGH)), multiply(k, LN2_LOW))
    p = COEFFICIENTS[13]
    for coefficient in reversed(COEFFICIENTS[:13]):
        p = add(multiply(p, r), coefficient)
    return multiply(p, math.ldexp(1.0, int(k)))


def _sum(values: Iterable[float]) -> float:
    total = 0.0
    for value in values:
        total = BINARY64.add(total, value)
    return total
