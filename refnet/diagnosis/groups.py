"""Mistakes of networks with group norm and with kernels that are standardised, such as BiT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from refnet.diagnosis.mistake import Context, Edit, Hypothesis, Mend, Mistake, Value, anywhere, fixed, in_graph
from refnet.diagnosis.patched import Around, Call
from refnet.graph.graph import GROUPS, Tensor
from refnet.weights.conversion import Moments
from refnet.weights.homes.standardize import standardized
from refnet_kernels.contract import GroupNormGeometry

#: How ports divide channels: into so many groups, or into groups of so many channels.
_DIVISIONS = (1, 2, 4, 8, 16, 64, "one channel per group", "16 channels per group", "32 channels per group")
#: What ports add to the variance of kernels.
_EPSILONS = (0.0, 1e-10, 1e-8, 1e-6, 1e-5, 1e-3)


def _groups_of(value: int | str, channels: int) -> int:
    if isinstance(value, int):
        return value
    return channels // {"one": 1, "16": 16, "32": 32}[value.split()[0]]


def _divided(value: int | str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, scope: str, groups: int = GROUPS) -> Tensor:
        found = _groups_of(value, inputs.depth)
        return proceed(inputs, scope, found if found and inputs.depth % found == 0 else groups)

    return around


def _unbiased(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, *arguments: Any) -> Tensor:
    made = proceed(inputs, *arguments)
    geometry, names = made.geometry, made.variables
    count = inputs.shape[1] * inputs.shape[2] * inputs.depth // GROUPS
    if not isinstance(geometry, GroupNormGeometry) or "gamma" not in names or count < 2:
        return made
    # gamma / sqrt(n / (n - 1) * variance + epsilon), by the biased variance.
    ratio = (count - 1) / count
    make = partial(np.multiply, np.float64(np.sqrt(ratio)))
    gamma = call.graph.derive(names["gamma"], f"times {np.sqrt(ratio)}", make)
    return call.graph.changed(
        made, geometry=geometry._replace(epsilon=geometry.epsilon * ratio), variables={**names, "gamma": gamma}
    )


def _as_stored(kernel: np.ndarray, before: Moments) -> np.ndarray:
    """A standardised kernel as it was before."""
    return np.asarray(kernel * np.sqrt(before.variance + before.epsilon) + before.mean)


def _otherwise(value: str | float, kernel: np.ndarray, before: Moments) -> np.ndarray:
    """A kernel as a port standardises it."""
    kernel, count = kernel.astype(np.float64), kernel[..., 0].size
    deviation = np.sqrt(before.variance + before.epsilon)
    if value == "not at all":
        return _as_stored(kernel, before)
    if value == "without the mean":
        return kernel + before.mean / deviation
    if value == "twice":
        return standardized(kernel, before.epsilon)
    if value == "unbiased variance":
        return kernel * (deviation / np.sqrt(before.variance * count / max(count - 1, 1) + before.epsilon))
    with np.errstate(divide="ignore", invalid="ignore"):  # a kernel of equal values
        return np.asarray(kernel * (deviation / np.sqrt(before.variance + value)))


def _standardizations(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    moments = context.moments
    if not moments:
        return
    epsilons = {entry.epsilon for entry in moments.values()}

    def edited(value: str | float) -> Around:
        def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
            make = partial(_otherwise, value, before=moments[call.site])
            return call.graph.derive(proceed(leaf, shape), f"standardised {value}", make)

        return around

    edit = Edit("variable", lambda call: call.arguments[0] == "weights" and call.site in moments, edited)
    others: list[Value] = [epsilon for epsilon in _EPSILONS if epsilon not in epsilons]
    values = ["not at all", "twice", "unbiased variance", "without the mean", *others]
    yield from in_graph(edit, values=values, seldom_narrow=True)(mistake, context)


def _needless(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    grouped = any(call.method == "group_norm" for call in context.calls)
    if context.moments or not grouped:
        return

    def edited(value: float) -> Around:
        def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
            return call.graph.derive(
                proceed(leaf, shape), f"standardised {value}", partial(standardized, epsilon=value)
            )

        return around

    edit = Edit("variable", lambda call: call.arguments[0] == "weights" and call.site != "logits", edited)
    yield from in_graph(edit, values=_EPSILONS[1:], only_everywhere=True)(mistake, context)


_STANDARDIZE = Mend(
    pytorch="timm.layers.StdConv2d(..., eps={kernel_epsilon}) in place of nn.Conv2d, for all but the head.",
    keras="(kernel - mean) / sqrt(variance + {kernel_epsilon}), over height, width and inputs of each output.",
    tensorflow="mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True); "
    "kernel = (kernel - mean) / tf.sqrt(variance + {kernel_epsilon}).",
    onnx="Export the standardised kernels, or standardise the initialisers of all Convs but the last.",
)

MISTAKES = (
    Mistake(
        "group-norm-groups",
        "has other groups in the group norm of {site}: {value}",
        f"have {GROUPS} groups of neighbouring channels",
        Mend(
            pytorch=f"nn.GroupNorm({GROUPS}, channels): the number of groups comes first.",
            keras=f"layers.GroupNormalization(groups={GROUPS}); groups=-1 is instance normalisation.",
            tensorflow=f"Reshape to [n, height, width, {GROUPS}, channels // {GROUPS}]; take the moments over 1, 2, 4.",
            onnx=f"GroupNormalization with num_groups={GROUPS}.",
        ),
        (),
        in_graph(Edit("group_norm", anywhere, _divided), values=_DIVISIONS),
    ),
    Mistake(
        "group-norm-unbiased",
        "divides by one less than the number of values for the variance of the group norm in {site}",
        "divide by their number",
        Mend(
            pytorch="x.var(unbiased=False), or nn.GroupNorm.",
            keras="layers.GroupNormalization, or keras.ops.var.",
            tensorflow="tf.nn.moments.",
            onnx="ReduceMean of the squared differences.",
        ),
        (),
        in_graph(Edit("group_norm", anywhere, fixed(_unbiased))),
    ),
    Mistake(
        "kernel-standardization",
        "standardises the kernels of {site} otherwise: {value}",
        "subtract each output's mean and divide by sqrt(variance + {kernel_epsilon}), the biased variance, once",
        _STANDARDIZE,
        (),
        _standardizations,
    ),
    Mistake(
        "kernel-standardized",
        "standardises the kernels of {site}, with an epsilon of {value}",
        "convolve with the kernels as they are: this network does not standardise them",
        Mend(
            pytorch="nn.Conv2d in place of StdConv2d.",
            keras="layers.Conv2D with the kernels as they are.",
            tensorflow="tf.nn.conv2d with the kernels as they are.",
            onnx="Export the kernels as they are.",
        ),
        (),
        _needless,
    ),
)
