"""torchvision's ResNet v1.5, written once in terms of a few operations, by the names of its state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.slim.oracle import BlockSpec
from tests.timm.networks import STAGES, TensorFlow, Torch, record

Stages = tuple[tuple[int, int], ...]


class TorchV1(Torch):
    """PyTorch's own functions, with batch norm and ReLU apart."""

    def norm(self, x: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
        gamma, beta, mean, variance = map(self._tensor, (weight, bias, mean, variance))
        return self.functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, 1e-5)

    def relu(self, x: Any) -> Any:
        return x.relu()


class TensorFlowV1(TensorFlow):
    """TensorFlow's functions without SAME, with batch norm and ReLU apart."""

    def norm(self, x: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
        gamma, beta, mean, variance = map(self.images, (weight, bias, mean, variance))
        return (x - mean) * (gamma / self.tf.sqrt(variance + 1e-5)) + beta

    def relu(self, x: Any) -> Any:
        return self.tf.nn.relu(x)


def published(depth: int) -> Stages:
    """(Width of the 3x3 kernels, units) of each block of resnet50, 101 or 152."""
    return tuple(zip((64, 128, 256, 512), STAGES[depth], strict=True))


def shapes_of(stages: Stages, classes: int) -> dict[str, tuple[int, ...]]:
    """The state dict's names and shapes, without the counters of batches."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{r}": (channels,) for r in ("weight", "bias", "running_mean", "running_var")})

    norm("bn1", 64)
    channels = 64
    for stage, (width, units) in enumerate(stages):
        for unit in range(units):
            place = f"layer{stage + 1}.{unit}"
            kernels = ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, kernel in enumerate(kernels):
                shapes[f"{place}.conv{i + 1}.weight"] = kernel
                norm(f"{place}.bn{i + 1}", kernel[0])
            if unit == 0:
                shapes[f"{place}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norm(f"{place}.downsample.1", 4 * width)
            channels = 4 * width
    return {**shapes, "fc.weight": (classes, channels), "fc.bias": (classes,)}


def blocks_of(stages: Stages) -> list[BlockSpec]:
    """TF-Slim's blocks of the same function: the first unit of each block but the first one strides."""
    blocks = []
    for stage, (width, units) in enumerate(stages):
        unit = {"depth": 4 * width, "depth_bottleneck": width, "stride": 1}
        blocks.append((f"block{stage + 1}", [unit | {"stride": 1 if stage == 0 else 2}] + [unit] * (units - 1)))
    return blocks


def draw_state(stages: Stages, classes: int, seed: int) -> dict[str, np.ndarray]:
    """A state dict of float32 whose values keep their size along the network."""
    rng = np.random.default_rng(seed)

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape)
        if len(shape) > 1:
            return np.asarray(noise * np.sqrt(2 / np.prod(shape[1:])))
        if name.endswith("running_var"):
            return np.asarray(rng.uniform(0.5, 2, shape))
        return (0.2 * noise + name.endswith(".weight")) * (1 / 3 if ".bn3." in name else 1)

    return {name: one(name, shape).astype(np.float32) for name, shape in shapes_of(stages, classes).items()}


def run(
    ops: Any, stages: Stages, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str
) -> dict[str, np.ndarray]:
    """Every layer's output, NHWC, by the name of TF-Slim's end point, in network order."""
    seen: dict[str, np.ndarray] = {}

    def record(name: str, x: Any) -> Any:
        seen[f"{scope}/{name}"] = ops.array(x)
        return x

    def conv_norm(conv: str, norm: str, x: Any, stride: int = 1) -> Any:
        statistics = (state[f"{norm}.{r}"] for r in ("weight", "bias", "running_mean", "running_var"))
        return ops.norm(ops.conv(x, state[f"{conv}.weight"], stride), *statistics)

    x = record("conv1", ops.relu(conv_norm("conv1", "bn1", ops.images(images), 2)))
    x = record("pool1", ops.max_pool(x))
    for stage, (_, units) in enumerate(stages):
        for unit in range(units):
            place, slim = f"layer{stage + 1}.{unit}", f"block{stage + 1}/unit_{unit + 1}/bottleneck_v1"
            stride = 2 if stage > 0 and unit == 0 else 1
            shortcut = x
            if unit == 0:
                shortcut = conv_norm(f"{place}.downsample.0", f"{place}.downsample.1", x, stride)
                record(f"{slim}/shortcut", shortcut)
            x = record(f"{slim}/conv1", ops.relu(conv_norm(f"{place}.conv1", f"{place}.bn1", x)))
            x = record(f"{slim}/conv2", ops.relu(conv_norm(f"{place}.conv2", f"{place}.bn2", x, stride)))
            x = record(f"{slim}/conv3", conv_norm(f"{place}.conv3", f"{place}.bn3", x))
            x = record(slim, ops.relu(shortcut + x))
    x = record("pool5", ops.mean(x))
    record("logits", ops.bias(ops.conv(x, state["fc.weight"][:, :, None, None], 1), state["fc.bias"]))
    return seen


def run_torchvision(
    depth: int, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """The same from torchvision's own modules, each layer's output taken by a hook; strict about the names."""
    import torchvision  # type: ignore[import-not-found]

    net = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    names = {"relu": ["conv1"], "maxpool": ["pool1"], "avgpool": ["pool5"], "fc": ["logits"]}
    for stage, units in enumerate(STAGES[depth]):
        for unit in range(units):
            place, slim = f"layer{stage + 1}.{unit}", f"block{stage + 1}/unit_{unit + 1}/bottleneck_v1"
            # A unit's only ReLU is called three times.
            names |= {f"{place}.relu": [f"{slim}/conv1", f"{slim}/conv2", slim], f"{place}.bn3": [f"{slim}/conv3"]}
            if unit == 0:
                names[f"{place}.downsample"] = [f"{slim}/shortcut"]
    return record(net, state, names, images, scope, dtype)
