"""Mistakes that are made while weights are loaded: arrays of NumPy, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tests.ports.mistakes import Mistake
from tests.slim.oracle import Net

Variables = dict[str, np.ndarray]

#: What a vector of batch norm is where nobody assigns it.
DEFAULTS = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
IGNORED = {
    "gamma-ignored": "gamma",
    "beta-ignored": "beta",
    "mean-ignored": "moving_mean",
    "variance-ignored": "moving_variance",
    # Of (x - mean) * scale + beta a folding that forgets the mean leaves x * scale + beta.
    "fold-without-mean": "moving_mean",
    "fold-without-beta": "beta",
}
SWAPPED = {"gamma-beta-swapped": ("gamma", "beta"), "mean-variance-swapped": ("moving_mean", "moving_variance")}


def layer_of(name: str, scope: str) -> str:
    """The path of the layer that a variable belongs to."""
    path = name.removeprefix(f"{scope}/").rsplit("/", 1)[0]
    return path.removesuffix("/BatchNorm")


def flipped(kernel: np.ndarray) -> np.ndarray:
    """For a convolution in the sense of mathematics."""
    return kernel[::-1, ::-1]


def reshaped(kernel: np.ndarray) -> np.ndarray:
    """HWIO read as OIHW: the same bytes in another order of axes, then transposed as OIHW must be."""
    height, width, inputs, outputs = kernel.shape
    return kernel.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)


KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "kernel-axes-swapped": lambda kernel: kernel.transpose(1, 0, 2, 3),
    "kernel-flipped": flipped,
    "kernel-channels-swapped": lambda kernel: kernel.transpose(0, 1, 3, 2),
    "kernel-reshaped": reshaped,
}


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to the upper 16 bits, a tie to the even number."""
    return chopped(x, 16)


def chopped(x: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to nearest even without the lowest ``bits`` bits of binary32."""
    raw = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    half = (1 << (bits - 1)) - 1 + ((raw >> bits) & 1)
    return ((raw + half) >> bits << bits).astype(np.uint32).view(np.float32).reshape(x.shape)


def int8(x: np.ndarray) -> np.ndarray:
    """Symmetric, one scale per layer."""
    scale = np.abs(x).max() / 127 or 1.0
    return (np.rint(x / scale) * scale).astype(np.float32)


def int8_by_channel(kernel: np.ndarray) -> np.ndarray:
    """Symmetric, one scale per output channel."""
    scale = np.abs(kernel).max((0, 1, 2)) / 127
    return (np.rint(kernel / scale) * scale).astype(np.float32)


ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float16": lambda x: x.astype(np.float16).astype(np.float32),
    "bfloat16": bfloat16,
    "int8": int8,
    "int8 by channel": int8_by_channel,
}


def loaded(variables: Mapping[str, np.ndarray], net: Net, mistakes: Iterable[Mistake]) -> Variables:
    """The variables as a port that makes these mistakes holds them."""
    found = dict(variables)
    for mistake in mistakes:
        if mistake.id == "layers-swapped":
            _swap_layers(found, net.scope, mistake)
        else:
            found = {
                name: np.ascontiguousarray(_one(found, name, net.scope, mistake), np.float32) for name in found
            }  # fmt: skip
    return found


def _one(variables: Mapping[str, np.ndarray], name: str, scope: str, mistake: Mistake) -> np.ndarray:
    value, leaf = variables[name], name.rsplit("/", 1)[1]
    if not mistake.is_at(layer_of(name, scope)):
        return value
    if IGNORED.get(mistake.id) == leaf:
        return np.full_like(value, DEFAULTS[leaf])
    pair = SWAPPED.get(mistake.id, ())
    if leaf in pair:
        return variables[name.removesuffix(leaf) + pair[1 - pair.index(leaf)]]
    if mistake.id == "statistics-unscaled" and leaf in ("moving_mean", "moving_variance"):
        return value * np.float32(mistake.value)
    if mistake.id == "bias-ignored" and leaf == "biases":
        return np.zeros_like(value)
    if mistake.id == "weights-rounded" and (leaf == "weights" or not mistake.value.startswith("int8")):
        return ROUNDED[mistake.value](value)
    if leaf == "weights" and mistake.id in KERNELS:
        kernel = KERNELS[mistake.id](value)
        return kernel if kernel.shape == value.shape else value
    return value


def _swap_layers(variables: Variables, scope: str, mistake: Mistake) -> None:
    """Everything that both layers have."""
    assert mistake.site is not None, "layers-swapped needs two layers"
    first, second = (f"{scope}/{layer}/" for layer in mistake.site.split(" <-> "))
    for name in [name for name in variables if name.startswith(first)]:
        other = second + name.removeprefix(first)
        if other in variables:
            variables[name], variables[other] = variables[other], variables[name]


def changes(variables: Mapping[str, Any], net: Net, mistake: Mistake) -> bool:
    """Whether a mistake of loading changes any variable."""
    found = loaded(variables, net, [mistake])
    return any(not np.array_equal(found[name], value) for name, value in variables.items())
