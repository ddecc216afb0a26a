"""What the contract's arithmetic may differ from exact arithmetic by, derived step by step in NumPy.

A tensor is carried as a pair ``Bounded(value, bound)``: the exact result, and for each element how far a result of
binary32 or binary64 arithmetic in the contract's order may lie from it. ``u`` is the unit roundoff, 2**-24 or 2**-53; a
rounding of a number near ``v`` costs at most ``u |v|``, or half the smallest subnormal where v is subnormal. Exact
results are computed in a wider format, and the dtype of ``value`` tells for which arithmetic: float64 for binary32,
longdouble for binary64.

``end_points`` gives two bounds. The *running* bound holds for a whole network, but grows by ``sum |w||x| / |sum w x|``
at each convolution, so it is a wide net after many layers. The *layer* bound takes the end points that were observed
as the exact inputs of the next layer; it stays as narrow at layer 200 as at layer 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tests.slim.oracle import Net

RUN = 64


class Precision(NamedTuple):
    """The arithmetic that is bounded, and the wider one of this module.

    Attributes
    ----------
    u : float
        Unit roundoff.
    subnormal : float
        What a rounding to a subnormal number costs at most: half of the smallest one; in binary64 all of it, since
        float64 cannot hold its half.
    wide : dtype
        In which exact results are computed.
    slack : float
        Covers the roundings of the wider format.
    scale_roundings : int
        Of a batch norm's scale: in binary32 only the last one counts beside those of binary64.
    """

    u: float
    subnormal: float
    wide: np.dtype[np.floating]
    slack: float
    scale_roundings: int


#: The wider roundings are 2**-29 of the binary32 ones and at most 2**9 as many.
BINARY32 = Precision(2.0**-24, 2.0**-150, np.dtype(np.float64), 1 + 2.0**-20, 1)
#: Those of a longdouble of 64 bits are 2**-11 of the binary64 ones and, the convolution's aside, at most 2**3 as many.
BINARY64 = Precision(2.0**-53, 2.0**-1074, np.dtype(np.longdouble), 1 + 2.0**-8, 3)


class Bounded(NamedTuple):
    """An exact value, and the distance that a computed one keeps to it."""

    value: np.ndarray
    bound: np.ndarray

    @property
    def precision(self) -> Precision:
        """Of the arithmetic that is bounded."""
        return BINARY32 if self.value.dtype == BINARY32.wide else BINARY64


def exact(x: np.ndarray, precision: Precision = BINARY32) -> Bounded:
    """Data of the precision itself."""
    value = np.asarray(x, precision.wide)
    return Bounded(value, np.zeros_like(value))


def rounded(x: Bounded) -> Bounded:
    """One rounding of a result near ``x.value``."""
    p = x.precision
    return Bounded(x.value, (x.bound + p.u * (np.abs(x.value) + x.bound) + p.subnormal) * p.slack)


def _patches(x: np.ndarray, size: int, stride: int, rate: int) -> np.ndarray:
    """[N, H, W, kh * kw * C] windows of the image under conv2d_same's explicit padding."""
    extent = (size - 1) * rate + 1
    before = (extent - 1) // 2
    pads = (before, extent - 1 - before)
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    windows = sliding_window_view(padded, (extent, extent), (1, 2))[:, ::stride, ::stride, :, ::rate, ::rate]
    windows = np.moveaxis(windows, 3, -1)
    return windows.reshape(*windows.shape[:3], -1)


def sums_of_products(x: Bounded, kernel: np.ndarray, kernel_error: float = 0.0) -> Bounded:
    """``x @ kernel``, where each value of the kernel may be off by ``kernel_error`` of itself.

    A product goes through at most one run of fma's and one addition for each run. With n such roundings,
    gamma = n u / (1 - n u) bounds the relative error of each term (Higham, 2002, Lemma 3.1). The wider format's sum has
    one for each term, in any order.
    """
    p = x.precision
    kernel = kernel.astype(p.wide)
    terms = len(kernel)
    n = min(terms, RUN) + -(-terms // RUN)
    gamma = n * p.u / (1 - n * p.u) + terms * np.finfo(p.wide).eps + kernel_error
    bound = (x.bound + gamma * (np.abs(x.value) + x.bound)) @ np.abs(kernel)
    return Bounded(x.value @ kernel, (bound + 2 * terms * p.subnormal) * p.slack)


def conv2d_same(x: Bounded, weights: np.ndarray, stride: int = 1, rate: int = 1, kernel_error: float = 0.0) -> Bounded:
    """Convolution under TF-Slim's explicit padding."""
    size, *_, depth = weights.shape
    patches = Bounded(*(_patches(a, size, stride, rate) for a in x))
    return sums_of_products(patches, weights.reshape(-1, depth), kernel_error)


def add(x: Bounded, y: Bounded | np.ndarray) -> Bounded:
    """Addition of a bias or of a shortcut, rounded."""
    y = y if isinstance(y, Bounded) else exact(y, x.precision)
    return rounded(Bounded(x.value + y.value, x.bound + y.bound))


def relu(x: Bounded) -> Bounded:
    """ReLU never moves two numbers apart, and both are 0 where the largest computed value is negative."""
    return Bounded(np.maximum(x.value, 0), np.where(x.value >= 0, x.bound, np.maximum(x.value + x.bound, 0)))


def batch_norm(x: Bounded, variables: Mapping[str, np.ndarray], scope: str, net: Net) -> Bounded:
    """`normalize` with the scale computed in binary64 and rounded once."""
    wide = x.precision.wide
    beta = variables[f"{scope}/beta"].astype(wide)
    gamma = variables[f"{scope}/gamma"].astype(wide) if net.batch_norm_scale else np.ones_like(beta)
    if net.is_training:
        mean, variance = _moments(x, (0, 1, 2))
    else:
        mean = exact(variables[f"{scope}/moving_mean"], x.precision)
        variance = exact(variables[f"{scope}/moving_variance"], x.precision)
    return normalize(x, mean, _scale(gamma, variance, net.batch_norm_epsilon), beta)


def group_norm(x: Bounded, gamma: np.ndarray | None, beta: np.ndarray, groups: int, epsilon: float) -> Bounded:
    """`normalize` with the moments of each image's groups of channels, by binary64 sums."""
    *pixels, channels = x.value.shape
    each = channels // groups

    def per_channel(moment: Bounded) -> Bounded:
        return Bounded(*(np.repeat(a, each, axis=1)[:, None, None] for a in moment))

    moments = _moments(Bounded(*(a.reshape(*pixels, groups, each) for a in x)), axes=(1, 2, 4))
    mean, variance = map(per_channel, moments)
    wide = x.precision.wide
    numerator = np.ones(channels, wide) if gamma is None else gamma.astype(wide)
    return normalize(x, mean, _scale(numerator, variance, epsilon), beta.astype(wide))


def normalize(x: Bounded, mean: Bounded, scale: Bounded, beta: np.ndarray) -> Bounded:
    """``fma(x - mean, scale, beta)``."""
    centred = rounded(Bounded(x.value - mean.value, x.bound + mean.bound))
    # |d's' - d s| with d' = d + a and s' = s + b is at most |d| b + a (|s| + b).
    spread = np.abs(centred.value) * scale.bound + centred.bound * (np.abs(scale.value) + scale.bound)
    return rounded(Bounded(centred.value * scale.value + beta, spread))


def _scale(gamma: np.ndarray, variance: Bounded, epsilon: float) -> Bounded:
    """gamma / sqrt(variance + epsilon), which falls with the variance."""
    value = gamma / np.sqrt(variance.value + epsilon)
    most = np.abs(gamma) / np.sqrt(np.maximum(variance.value - variance.bound, 0) + epsilon)
    least = np.abs(gamma) / np.sqrt(variance.value + variance.bound + epsilon)
    scale = Bounded(value, np.maximum(most - np.abs(value), np.abs(value) - least))
    for _ in range(variance.precision.scale_roundings):
        scale = rounded(scale)
    return scale


def _moments(x: Bounded, axes: tuple[int, ...] = (0, 1, 2)) -> tuple[Bounded, Bounded]:
    """The mean, rounded once, and the biased variance over some axes, both by binary64 sums in any order.

    A sum of n terms in binary64 adds n 2**-53 of the terms' sizes. The variance may be taken about the mean before or
    after its rounding: the distance between the two is part of the mean's bound.
    """
    u_sum = np.prod([x.value.shape[axis] for axis in axes]) * 2.0**-53
    mean = x.value.mean(axes)
    error = x.bound.mean(axes) + u_sum * (np.abs(x.value) + x.bound).mean(axes)
    rounded_mean = rounded(Bounded(mean, error))
    deviation = np.abs(x.value - np.expand_dims(mean, axes))
    distance = x.bound + np.expand_dims(rounded_mean.bound, axes)
    variance = (deviation**2).mean(axes)
    error = (2 * deviation * distance + distance**2).mean(axes)
    error += 2 * u_sum * ((deviation + distance) ** 2).mean(axes)
    return rounded_mean, Bounded(variance, error * x.precision.slack)


def max_pool(x: Bounded, mode: str) -> Bounded:
    """3x3, stride 2: the maximum of intervals, SAME or in a border of zeros (Keras), of -inf (PyTorch), or in none."""
    border = {"keras": (1, 0.0), "torch": (1, -np.inf), "valid": (0, 0.0)}
    pool = partial(_pool_in, *border[mode]) if mode in border else _pool
    upper, lower, value = (pool(a) for a in (x.value + x.bound, x.value - x.bound, x.value))
    return Bounded(value, np.maximum(upper - value, value - lower) * x.precision.slack)


def _pool(x: np.ndarray) -> np.ndarray:
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, [*pads, (0, 0)], constant_values=-np.inf)
    return np.asarray(sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1)))


def _pool_in(pad: int, border: float, x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=border)
    return np.asarray(sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1)))


def avg_pool(x: Bounded) -> Bounded:
    """2x2, stride 2, cut off at the border: a binary64 sum of four numbers at most, rounded once."""

    def pool(a: np.ndarray) -> np.ndarray:
        n, height, width, channels = a.shape
        padded = np.pad(a, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], constant_values=np.nan)
        return np.asarray(np.nanmean(padded.reshape(n, -(-height // 2), 2, -(-width // 2), 2, channels), (2, 4)))

    value, bound, magnitude = (pool(a) for a in (*x, np.abs(x.value) + x.bound))
    return rounded(Bounded(value, bound + 5 * 2.0**-53 * magnitude))


def global_mean(x: Bounded) -> Bounded:
    """Mean over rows and columns, kept as axes of 1: a binary64 sum, rounded once."""
    value, bound, magnitude = (a.mean((1, 2), keepdims=True) for a in (*x, np.abs(x.value) + x.bound))
    count = x.value.shape[1] * x.value.shape[2]
    return rounded(Bounded(value, bound + (count + 1) * 2.0**-53 * magnitude))


def softmax(x: Bounded) -> Bounded:
    """exp(x - max) / sum in binary64, rounded once.

    Logits that are wrong by e at most change each of the two exponentials by a factor of exp(e) at most, and no
    probability by more than 1. In units in the last place of binary64, each difference is off by half of its own size,
    each exp by two, each addition and the division by a half; what is below exp(-708) is 0.
    """
    shifted = np.exp(x.value - x.value.max(-1, keepdims=True))
    value = shifted / shifted.sum(-1, keepdims=True)
    error = x.bound.max(-1, keepdims=True)
    grown = np.expm1(np.minimum(2 * error, 700))
    units = np.ptp(x.value, -1, keepdims=True) + 2 * error + 4 + x.value.shape[-1] / 2 + 1
    return rounded(Bounded(value, np.minimum(value * (grown + units * 2.0**-52) + 2.0**-1021, 1)))


class _Pipeline:
    """The network, one method a part; ``seen`` collects the end points in network order."""

    def __init__(
        self,
        net: Net,
        variables: Mapping[str, np.ndarray],
        observed: Mapping[str, np.ndarray] | None,
        precision: Precision,
        kernel_error: float,
    ):
        self.net, self.variables, self.observed, self.precision = net, variables, observed, precision
        self.kernel_error = kernel_error
        self.seen: dict[str, Bounded] = {}
        self.rate = self.stride = 1
        self.grouped = any("/GroupNorm/" in name for name in variables)

    def record(self, name: str, x: Bounded) -> Bounded:
        self.seen[name] = x
        return x if self.observed is None else exact(self.observed[name], self.precision)

    def conv(
        self, name: str, x: Bounded, stride: int = 1, rate: int = 1, normalize: bool = False, activate: bool = False
    ) -> Bounded:
        """A convolution with bias, or with the norm and the activation that resnet_arg_scope gives it.

        The biases alone are those of a folded batch norm; beside a batch norm they come before it.
        """
        net, biases = self.net, self.variables.get(f"{name}/biases")
        normed = any(f"{name}/{kind}/beta" in self.variables for kind in ("BatchNorm", "GroupNorm"))
        normalize = normalize and net.use_batch_norm and (normed or biases is None)
        x = conv2d_same(x, self.variables[f"{name}/weights"], stride, rate, self.kernel_error)
        if not normalize or (net.bias_before_batch_norm is not False and biases is not None):
            assert biases is not None, name
            x = add(x, biases)
        if normalize and f"{name}/GroupNorm/beta" in self.variables:
            x = self.group_norm(f"{name}/GroupNorm", x)
        elif normalize:
            x = batch_norm(x, self.variables, f"{name}/BatchNorm", net)
        if activate and net.activation_fn:
            x = relu(x)
        return self.record(name, x)

    def norm(self, name: str, x: Bounded) -> Bounded:
        """Without moving statistics it is a group norm, if the network has others."""
        grouped = self.grouped and f"{name}/moving_mean" not in self.variables
        x = self.group_norm(name, x) if grouped else batch_norm(x, self.variables, name, self.net)
        return self.record(name, relu(x))

    def group_norm(self, scope: str, x: Bounded) -> Bounded:
        gamma, beta = (self.variables[f"{scope}/{role}"] for role in ("gamma", "beta"))
        return group_norm(x, gamma, beta, 32, self.net.batch_norm_epsilon)

    def residual(self, name: str, x: Bounded, unit: dict[str, int], stride: int, rate: int, left_out: int) -> Bounded:
        """Batch norm before the convolutions, or in the first version after them.

        A stride that is left out multiplies the rate of the convolutions after the one that would have strided.
        """
        first = self.net.version == 1
        preact = x if first else self.norm(f"{name}/preact", x)
        if f"{name}/shortcut/weights" not in self.variables:
            shortcut = Bounded(*(a[:, ::stride, ::stride] for a in x))
        elif stride > 1 and self.net.avg_down:
            pooled = self.record(f"{name}/avg_pool", avg_pool(preact))
            shortcut = self.conv(f"{name}/shortcut", pooled, normalize=first)
        else:
            shortcut = self.conv(f"{name}/shortcut", preact, stride, normalize=first)
        residual = preact
        kernels = ["conv1", "conv2"] if self.net.unit == "basic" else ["conv1", "conv2", "conv3"]
        strided = 0 if self.net.unit == "basic" or unit.get("stride_in_1x1") else 1
        for i, kernel in enumerate(kernels):
            last = kernel == kernels[-1]
            residual = self.conv(
                f"{name}/{kernel}", residual, stride if i == strided else 1, rate * (left_out if i > strided else 1),
                normalize=first or not last, activate=not last,
            )  # fmt: skip
        total = add(shortcut, residual)
        return self.record(name, relu(total) if first else total)

    def unit(self, name: str, x: Bounded, unit: dict[str, int], stride: int, target: float | None) -> Bounded:
        """A unit at the output stride runs with stride 1 and leaves its stride to the rate of the units after it."""
        rate, left_out = unit.get("unit_rate", 1), unit["stride"] // stride
        if self.stride == target:
            x = self.residual(name, x, unit, 1, self.rate * rate, stride * left_out)
            self.rate *= stride
        else:
            x = self.residual(name, x, unit, stride, rate, left_out)
            self.stride *= stride
        return x

    def block(self, scope: str, units: list[dict[str, int]], x: Bounded, target: float | None) -> Bounded:
        left = units[-1]["stride"] if self.net.store_non_strided_activations else 1
        for i, unit in enumerate(units):
            stride = 1 if left > 1 and i == len(units) - 1 else unit["stride"]
            name = f"{scope}/unit_{i + 1}/{self.net.unit_name}"
            x = self.unit(name, x, unit, stride, target)
        # An alias: the same tensor under the block's name.
        self.seen[scope] = self.seen[name]
        if self.stride == target:
            self.rate *= left
            return x
        self.stride *= left
        return Bounded(*(a[:, ::left, ::left] for a in x))

    def root(self, scope: str, x: Bounded) -> Bounded:
        """In the second version nothing follows the last convolution, unless a batch norm is there for it."""
        depths = self.net.root_depths
        names = ["conv1"] if depths is None else [f"conv1_{i + 1}" for i in range(len(depths))]
        if f"{scope}/input/BatchNorm/beta" in self.variables:
            x = self.record(f"{scope}/input", batch_norm(x, self.variables, f"{scope}/input/BatchNorm", self.net))
        for name in names:
            more = (
                self.net.version == 1
                or name != names[-1]
                or any(f"{scope}/{name}/{kind}/beta" in self.variables for kind in ("BatchNorm", "GroupNorm"))
            )
            stride = 2 if name == names[0] else 1
            x = self.conv(f"{scope}/{name}", x, stride=stride, normalize=more, activate=more)
        return x

    def run(self, x: Bounded) -> dict[str, Bounded]:
        net, scope = self.net, self.net.scope
        target: float | None = net.output_stride
        if net.include_root_block:
            target = None if target is None else target / 4
            x = self.root(scope, x)
            x = self.record(f"{scope}/pool1", max_pool(x, net.pool_mode))
        for block_scope, units in net.rated_blocks():
            x = self.block(f"{scope}/{block_scope}", units, x, target)
        if net.version == 2:
            x = self.norm(f"{scope}/postnorm", x)
        if net.global_pool:
            x = self.record(f"{scope}/pool5", global_mean(x))
        if net.num_classes is not None:
            x = self.conv(f"{scope}/logits", x)
            self.record("predictions", softmax(x))
        return self.seen


def end_points(
    net: Net,
    variables: Mapping[str, np.ndarray],
    images: np.ndarray,
    observed: Mapping[str, np.ndarray] | None = None,
    precision: Precision = BINARY32,
    kernel_error: float = 0.0,
) -> dict[str, Bounded]:
    """The exact end points in network order, each with its bound.

    Parameters
    ----------
    net : Net
        The network.
    variables : mapping of str to ndarray
        The weights, float32.
    images : ndarray
        NHWC, float32.
    observed : mapping of str to ndarray, optional
        The end points of a run in this precision, under the same names. When given, each layer starts from the observed
        output of the one before it.
    precision : Precision
        Of the arithmetic that is bounded.
    kernel_error : float
        How far each value of a kernel may be from that of the other side, relative to itself.

    Returns
    -------
    dict of str to Bounded
        tf_slim's end points, with pool1, pool5 and in the second version preact and postnorm in their places.
    """
    assert np.finfo(precision.wide).eps <= precision.u * 2.0**-10, "this machine has no wider format"
    return _Pipeline(net, variables, observed, precision, kernel_error).run(exact(images, precision))
