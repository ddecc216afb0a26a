"""The networks that are ported, with weights as a trained network has them: batch norm's statistics fit the data.

The forward pass here is NumPy's, in the plainest form; it finds the statistics, and serves as one more correct port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.ports.mistakes import Mistake
from tests.slim.oracle import Net, block, published_blocks

Variables = dict[str, np.ndarray]

#: Norm of a layer: its path, its input and the epsilon; gives the output.
Norm = Callable[[str, np.ndarray], np.ndarray]


def small_net(
    version: int = 2, units: Sequence[int] = (2, 2), depth: int = 4, classes: int = 12, **options: Any
) -> Net:
    """A few units in blocks of TF-Slim's strides."""
    blocks = [
        block(f"block{i + 1}", depth * 2**i, count, 1 if i == len(units) - 1 else 2) for i, count in enumerate(units)
    ]
    return Net(blocks, classes, version=version, scope=f"resnet_v{version}", **options)


def published_net(depth: int = 50, version: int = 2, classes: int = 1001) -> Net:
    """resnet_v2_50 and its relatives."""
    return Net(published_blocks(depth), classes, version=version, scope=f"resnet_v{version}_{depth}")


def norm_name(net: Net, path: str) -> str:
    """What stands before the names of a layer's batch norm."""
    own = path.endswith("preact") or path == "postnorm"
    return f"{net.scope}/{path}" + ("" if own else "/BatchNorm")


def units(net: Net) -> list[tuple[str, dict[str, int], bool]]:
    """Path, arguments and whether the shortcut is a convolution, of each unit in network order."""
    found, depth = [], 64
    for scope, args in net.blocks:
        for i, unit in enumerate(args):
            found.append((f"{scope}/unit_{i + 1}/{net.unit_name}", unit, depth != unit["depth"]))
            depth = unit["depth"]
    return found


def shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """The variables' names and shapes."""
    found: dict[str, tuple[int, ...]] = {}

    def norm(path: str, depth: int) -> None:
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            found[f"{norm_name(net, path)}/{leaf}"] = (depth,)

    def conv(path: str, size: int, before: int, after: int, has_norm: bool) -> None:
        found[f"{net.scope}/{path}/weights"] = (size, size, before, after)
        if has_norm:
            norm(path, after)
        else:
            found[f"{net.scope}/{path}/biases"] = (after,)

    first = net.version == 1
    conv("conv1", 7, 3, 64, first)
    depth = 64
    for path, unit, projects in units(net):
        width, before, depth = unit["depth_bottleneck"], depth, unit["depth"]
        if not first:
            norm(f"{path}/preact", before)
        if projects:
            conv(f"{path}/shortcut", 1, before, depth, first)
        conv(f"{path}/conv1", 1, before, width, True)
        conv(f"{path}/conv2", 3, width, width, True)
        conv(f"{path}/conv3", 1, width, depth, first)
    if not first:
        norm("postnorm", depth)
    if net.num_classes is not None:
        conv("logits", 1, depth, net.num_classes, False)
    return found


def smooth_images(*shape: int, seed: int = 0) -> np.ndarray:
    """Raw uint8 images of a few colours that run into each other, with edges and some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    _, height, width, channels = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    images = np.empty(shape)
    for image in images:
        image[:] = rng.uniform(60, 190, channels)
        for _ in range(8):
            wave = rng.uniform(-0.25, 0.25, 2)
            image += np.sin(wave[0] * y + wave[1] * x + rng.uniform(0, 6))[..., None] * rng.uniform(-30, 30, channels)
        for _ in range(5):
            top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
            bottom, right = top + rng.integers(4, height // 2 + 4), left + rng.integers(4, width // 2 + 4)
            image[top:bottom, left:right] += rng.uniform(-80, 80, channels)
        image += rng.normal(0, 4, image.shape)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def inception_scaled(images: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1]."""
    return (images.astype(np.float32) * np.float32(1 / 255) - np.float32(0.5)) * np.float32(2)


def conv2d_same(x: np.ndarray, kernel: np.ndarray, stride: int = 1, rate: int = 1) -> np.ndarray:
    """Tap by tap, each a product of matrices."""
    extent = (kernel.shape[0] - 1) * rate + 1
    before = (extent - 1) // 2
    pads = (before, extent - 1 - before)
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    height, width = (size + extent - 1 - (extent - 1) for size in x.shape[1:3])
    total: Any = 0
    for i, row in enumerate(kernel):
        for j, tap in enumerate(row):
            part = padded[:, i * rate : i * rate + height : stride, j * rate : j * rate + width : stride]
            total = total + part @ tap.astype(x.dtype)
    return np.asarray(total)


def max_pool_same(x: np.ndarray) -> np.ndarray:
    """3x3, stride 2, padded as TensorFlow's SAME."""
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    height, width = (padded.shape[axis] - 2 for axis in (1, 2))
    return np.max([padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)], axis=0)


def forward(variables: Mapping[str, np.ndarray], images: np.ndarray, net: Net, norm: Norm) -> dict[str, np.ndarray]:
    """Every layer's output by TF-Slim's names, in network order, in the images' precision."""
    seen: dict[str, np.ndarray] = {}

    def record(path: str, x: np.ndarray) -> np.ndarray:
        seen[f"{net.scope}/{path}"] = x
        return x

    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    def conv(path: str, x: np.ndarray, stride: int = 1, active: bool = True) -> np.ndarray:
        x = conv2d_same(x, variables[f"{net.scope}/{path}/weights"], stride)
        bias = variables.get(f"{net.scope}/{path}/biases")
        x = norm(path, x) if bias is None else x + bias.astype(x.dtype)
        return record(path, relu(x) if active else x)

    first = net.version == 1
    x = record("pool1", max_pool_same(conv("conv1", images, 2, active=first)))
    for path, unit, projects in units(net):
        source = x if first else record(f"{path}/preact", relu(norm(f"{path}/preact", x)))
        stride = unit["stride"]
        shortcut = conv(f"{path}/shortcut", source, stride, False) if projects else x[:, ::stride, ::stride]
        source = conv(f"{path}/conv2", conv(f"{path}/conv1", source), stride)
        total = shortcut + conv(f"{path}/conv3", source, active=False)
        x = record(path, relu(total) if first else total)
    if not first:
        x = record("postnorm", relu(norm("postnorm", x)))
    x = record("pool5", x.mean((1, 2), keepdims=True, dtype=x.dtype))
    if net.num_classes is not None:
        conv("logits", x, active=False)
    return seen


def run_numpy(
    variables: Mapping[str, np.ndarray], images: np.ndarray, net: Net, dtype: str = "float32"
) -> dict[str, np.ndarray]:
    """The network in NumPy, without a mistake."""

    def norm(path: str, x: np.ndarray) -> np.ndarray:
        name = norm_name(net, path)
        gamma, beta, mean, variance = (
            variables[f"{name}/{leaf}"].astype(dtype) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) * (gamma / np.sqrt(variance + np.asarray(net.batch_norm_epsilon, dtype))) + beta

    return forward(variables, images.astype(dtype), net, norm)


def draw_variables(net: Net, size: int, seed: int) -> Variables:
    """Weights of float32 whose statistics are about those of images of this size.

    Output channels of kernels have scales of three decades, as trained ones have, so that some variances are small
    enough for epsilon to count. Moving averages are near the true ones, not equal to them.
    """
    rng = np.random.default_rng(seed)
    variables: Variables = {}
    for name, shape in shapes(net).items():
        noise = rng.standard_normal(shape)
        leaf, path = name.rsplit("/", 1)[1], name.removeprefix(f"{net.scope}/").rsplit("/", 1)[0]
        value = 0.3 * noise
        if leaf == "weights":
            value = noise * np.sqrt(2 / np.prod(shape[:-1]))
            if f"{net.scope}/{path}/biases" not in shapes(net):
                value *= 10 ** rng.uniform(-2.2, 0.2, shape[-1])
            elif path.endswith("conv3"):
                value /= 2
        elif leaf == "gamma":
            value = (1 + 0.3 * noise) / (2 if "/conv3/" in f"/{path}/" else 1)
        elif leaf == "moving_variance":
            value = np.ones(shape)
        variables[name] = value.astype(np.float32)
    images = inception_scaled(smooth_images(2, size, size, 3, seed=seed + 1000))

    def measured(path: str, x: np.ndarray) -> np.ndarray:
        name = norm_name(net, path)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        variables[f"{name}/moving_mean"] = np.float32(mean + 0.2 * np.sqrt(variance) * rng.standard_normal(mean.shape))
        variables[f"{name}/moving_variance"] = np.float32(variance * np.exp(0.3 * rng.standard_normal(mean.shape)))
        mean, variance = variables[f"{name}/moving_mean"], variables[f"{name}/moving_variance"]
        scale = variables[f"{name}/gamma"] / np.sqrt(variance + np.float32(net.batch_norm_epsilon))
        return (x - mean) * scale + variables[f"{name}/beta"]

    forward(variables, images, net, measured)
    return variables


def for_mistake(variables: Mapping[str, np.ndarray], mistake: Mistake) -> Variables:
    """Variables with which the mistake gives numbers: a negative mean in place of a variance has no root."""
    if mistake.id != "mean-variance-swapped":
        return dict(variables)
    return {name: np.abs(value) if name.endswith("/moving_mean") else value for name, value in variables.items()}
