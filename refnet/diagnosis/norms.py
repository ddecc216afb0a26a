"""Mistakes of batch norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from refnet.diagnosis.mistake import Context, Edit, Hypothesis, Mend, Mistake, anywhere, fixed, in_graph, substitute
from refnet.diagnosis.patched import Around, Call
from refnet.graph.graph import Tensor
from refnet_kernels.contract import GroupNormGeometry, NormGeometry

EPSILONS = (0.0, 1e-6, 1e-5, 1.001e-5, 2e-5, 1e-4, 1e-3)


def _epsilon(epsilon: float) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], *arguments: Any) -> Tensor:
        made = proceed(*arguments)
        if not isinstance(made.geometry, NormGeometry | GroupNormGeometry):
            return made
        return call.graph.changed(made, geometry=made.geometry._replace(epsilon=epsilon))

    return around


def _epsilons(mistake: Mistake, context: Context) -> list[Hypothesis]:
    meant = context.options["batch_norm_epsilon"]
    values = [epsilon for epsilon in EPSILONS if epsilon != meant]
    return list(
        in_graph(Edit("batch_norm", anywhere, _epsilon), Edit("group_norm", anywhere, _epsilon), values=values)(
            mistake, context
        )
    )


def _statistics(value: str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, scope: str) -> Tensor:
        made = proceed(inputs, scope)
        geometry = made.geometry
        if not isinstance(geometry, NormGeometry):
            return made
        variables = {role: name for role, name in made.variables.items() if role in ("gamma", "beta")}
        if value == "unbiased" and "gamma" in variables and geometry.pixels > 1:
            # gamma / sqrt(n / (n - 1) * variance + epsilon), by the biased variance.
            ratio = (geometry.pixels - 1) / geometry.pixels
            make = partial(np.multiply, np.float64(np.sqrt(ratio)))
            variables["gamma"] = call.graph.derive(variables["gamma"], f"times {np.sqrt(ratio)}", make)
            geometry = geometry._replace(epsilon=geometry.epsilon * ratio)
        return call.graph.changed(made, op="batch_norm_training", geometry=geometry, variables=variables)

    return around


def _exchanged(one: str, other: str) -> Edit:
    """The edit that reads each of two vectors in place of the other."""

    def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
        name = proceed(leaf, shape)
        return name.removesuffix(leaf) + (other if leaf == one else one)

    return Edit("variable", lambda call: call.arguments[0] in (one, other), fixed(around))


def _over_deviation(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, scope: str) -> Tensor:
    """Divide gamma by the deviation once more."""
    made = proceed(inputs, scope)
    geometry, names = made.geometry, made.variables
    if not isinstance(geometry, NormGeometry) or "gamma" not in names or "moving_variance" not in names:
        return made
    variance = np.asarray(call.graph.variables[names["moving_variance"].split("~")[0]], np.float64)
    deviation = np.sqrt(variance + geometry.epsilon)
    gamma = call.graph.derive(names["gamma"], f"over deviation {geometry.epsilon}", lambda gamma: gamma / deviation)
    return call.graph.changed(made, variables={**names, "gamma": gamma})


def _scaled(value: float) -> Around:
    def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
        return call.graph.derive(proceed(leaf, shape), f"times {value}", partial(np.multiply, np.float64(value)))

    return around


def _is_statistic(call: Call) -> bool:
    return call.arguments[0] in ("moving_mean", "moving_variance")


def _ones(array: np.ndarray) -> np.ndarray:
    return np.ones_like(array)


def _zeros(array: np.ndarray) -> np.ndarray:
    return np.zeros_like(array)


_COPY = Mend(
    pytorch="Copy gamma to bn.weight, beta to bn.bias, moving_mean to bn.running_mean, moving_variance to "
    "bn.running_var; load_state_dict(strict=True) names what is left out.",
    keras="layer.set_weights([gamma, beta, moving_mean, moving_variance]), in this order.",
    tensorflow="tf.nn.batch_normalization(x, moving_mean, moving_variance, beta, gamma, epsilon): mean and variance "
    "come first.",
    onnx="BatchNormalization's inputs are X, scale (gamma), B (beta), input_mean, input_var, in this order.",
)

_FOLD = Mend(
    pytorch="torch.nn.utils.fusion.fuse_conv_bn_eval folds all of the terms: w * s, (b - mean) * s + beta.",
    keras="kernel * s, and the bias (bias - moving_mean) * s + beta, with s = gamma / sqrt(moving_variance + epsilon).",
    tensorflow="kernel * s, and the bias (bias - moving_mean) * s + beta, s = gamma * rsqrt(variance + epsilon).",
    onnx="Conv's W * s, and its B: (B - mean) * s + beta, with s = scale / sqrt(var + epsilon).",
)


def _ignored(role: str, leaf: str, otherwise: str, make: Callable[[Any], Any], *sources: str) -> Mistake:
    return Mistake(
        f"{role}-ignored",
        f"leaves the batch norm's {leaf} at {otherwise} in {{site}}",
        f"read {leaf} from the weights",
        _COPY,
        sources,
        in_graph(substitute([leaf], otherwise, make)),
    )


MISTAKES = (
    Mistake(
        "epsilon",
        "adds {value} to the variance of the batch norm in {site}",
        "add {epsilon}",
        Mend(
            pytorch="nn.BatchNorm2d(channels, eps={epsilon}).",
            keras="layers.BatchNormalization(epsilon={epsilon}); Keras' default is 1e-3.",
            tensorflow="Pass variance_epsilon={epsilon} to tf.nn.batch_normalization, or epsilon= to "
            "tf.compat.v1.nn.fused_batch_norm, whose default is 1e-3.",
            onnx="Set the attribute epsilon={epsilon} of BatchNormalization.",
        ),
        ("ademxapp#4", "chainer#4858", "keras-yolo3#451"),
        _epsilons,
    ),
    Mistake(
        "batch-statistics",
        "normalises by the images' own mean and {value} variance in {site}, as in training",
        "use the moving mean and variance",
        Mend(
            pytorch="Call model.eval() before inference.",
            keras="Call model(x, training=False), or set layer.trainable = False on the batch norms.",
            tensorflow="Pass is_training=False to resnet_arg_scope or fused_batch_norm.",
            onnx="Export in inference mode (training_mode=0), after model.eval().",
        ),
        ("segmentation_models.pytorch#128", "TRADES#3"),
        in_graph(Edit("batch_norm", anywhere, _statistics), values=("biased", "unbiased")),
    ),
    _ignored("gamma", "gamma", "ones", _ones, "mxnet#15717"),
    _ignored("beta", "beta", "zeros", _zeros, "aimet#85"),
    _ignored("mean", "moving_mean", "zeros", _zeros, "tvm#14857"),
    _ignored("variance", "moving_variance", "ones", _ones, "tvm#14857"),
    Mistake(
        "gamma-beta-swapped",
        "reads gamma in place of beta, and beta in place of gamma, in {site}",
        "assign each to its own place",
        _COPY,
        ("keras-frcnn#148",),
        in_graph(_exchanged("gamma", "beta")),
    ),
    Mistake(
        "mean-variance-swapped",
        "reads the moving mean in place of the variance, and the reverse, in {site}",
        "assign each to its own place",
        _COPY,
        ("keras-frcnn#148",),
        in_graph(_exchanged("moving_mean", "moving_variance")),
    ),
    Mistake(
        "variance-as-deviation",
        "divides by the variance in {site}",
        "divide by its square root",
        Mend(
            pytorch="Multiply by torch.rsqrt(running_var + eps), or use F.batch_norm.",
            keras="Multiply by keras.ops.rsqrt(moving_variance + epsilon), or use BatchNormalization.",
            tensorflow="Multiply by tf.math.rsqrt(moving_variance + epsilon), or use tf.nn.batch_normalization.",
            onnx="Put a Sqrt between variance and Div, or use BatchNormalization, whose input_var is the variance.",
        ),
        (),
        in_graph(Edit("batch_norm", anywhere, fixed(_over_deviation))),
    ),
    Mistake(
        "fold-without-mean",
        "forgets the moving mean where it folds the batch norm into the convolution, in {site}",
        "fold the mean into the bias too",
        _FOLD,
        ("TASO#47",),
        in_graph(substitute(["moving_mean"], "zeros", _zeros)),
    ),
    Mistake(
        "fold-without-beta",
        "forgets beta where it folds the batch norm into the convolution, in {site}",
        "add beta to the bias",
        _FOLD,
        ("leela-zero#1099",),
        in_graph(substitute(["beta"], "zeros", _zeros)),
    ),
    Mistake(
        "statistics-unscaled",
        "takes means and variances {value} times as large in {site}: it does not divide by Caffe's third blob",
        "divide mean and variance by the scale factor, the third blob of Caffe's BatchNorm",
        Mend(
            pytorch="running_mean = blobs[0] / blobs[2], running_var = blobs[1] / blobs[2].",
            keras="moving_mean = blobs[0] / blobs[2], moving_variance = blobs[1] / blobs[2].",
            tensorflow="moving_mean = blobs[0] / blobs[2], moving_variance = blobs[1] / blobs[2].",
            onnx="input_mean = blobs[0] / blobs[2], input_var = blobs[1] / blobs[2].",
        ),
        ("mxnet#6176", "NVIDIA/caffe#436"),
        in_graph(Edit("variable", _is_statistic, _scaled), values=(999.98, 0.001), seldom_narrow=True),
    ),
)
