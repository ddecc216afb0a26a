"""torchvision's and timm's ResNet v1.5, once in terms of a few operations, by the names of their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.slim.oracle import BlockSpec, Net
from tests.timm.networks import BASIC, STAGES, TensorFlow, Torch, record


class Description(NamedTuple):
    """Stages as (width of the 3x3 kernels, units) each, and classes.

    ``basic``: units of two 3x3 kernels; ``deep``: channels of the three convolutions of a deep stem; ``pooled``: an
    average pool in shortcuts that stride. timm's variants d are deep and pooled. ``in_1x1``: conv1 strides.
    """

    stages: tuple[tuple[int, int], ...]
    classes: int = 1000
    basic: bool = False
    deep: tuple[int, ...] = ()
    pooled: bool = False
    in_1x1: bool = False

    @property
    def unit(self) -> str:
        """TF-Slim's kind of name for a unit."""
        return "basic_v1" if self.basic else "bottleneck_v1"

    def depth(self, width: int) -> int:
        """Channels of a unit's output."""
        return width if self.basic else 4 * width

    def kernels(self, channels: int, width: int) -> list[tuple[int, int, int, int]]:
        """A unit's kernels, OIHW."""
        if self.basic:
            return [(width, channels, 3, 3), (width, width, 3, 3)]
        return [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]

    def shortcut(self) -> tuple[str, str]:
        """The names of the convolution and the batch norm of a shortcut; an average pool comes before them."""
        return ("downsample.1", "downsample.2") if self.pooled else ("downsample.0", "downsample.1")

    def root(self) -> list[tuple[str, str, tuple[int, int, int, int]]]:
        """The root's convolutions and batch norms by name, and the kernels."""
        if not self.deep:
            return [("conv1", "bn1", (64, 3, 7, 7))]
        channels = (3, *self.deep)
        kernels = [(channels[i + 1], channels[i], 3, 3) for i in range(3)]
        return list(zip(("conv1.0", "conv1.3", "conv1.6"), ("conv1.1", "conv1.4", "bn1"), kernels, strict=True))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The state dict's names and shapes, without the counters of batches."""
        shapes: dict[str, tuple[int, ...]] = {}

        def layer(conv: str, norm: str, kernel: tuple[int, ...]) -> None:
            shapes[f"{conv}.weight"] = kernel
            shapes.update({f"{norm}.{r}": kernel[:1] for r in ("weight", "bias", "running_mean", "running_var")})

        for conv, norm, kernel in self.root():
            layer(conv, norm, kernel)
        channels = kernel[0]
        for stage, (width, units) in enumerate(self.stages):
            depth = self.depth(width)
            for unit in range(units):
                place = f"layer{stage + 1}.{unit}"
                for i, kernel in enumerate(self.kernels(channels, width), 1):
                    layer(f"{place}.conv{i}", f"{place}.bn{i}", kernel)
                if unit == 0 and (stage > 0 or channels != depth):
                    conv, norm = self.shortcut()
                    layer(f"{place}.{conv}", f"{place}.{norm}", (depth, channels, 1, 1))
                channels = depth
        return {**shapes, "fc.weight": (self.classes, channels), "fc.bias": (self.classes,)}

    def blocks(self) -> list[BlockSpec]:
        """TF-Slim's blocks of the same function: the first unit of each block but the first one strides."""
        blocks = []
        for stage, (width, units) in enumerate(self.stages):
            unit = {"depth": self.depth(width), "depth_bottleneck": width, "stride": 1}
            strided = unit | {"stride": 2} | ({"stride_in_1x1": True} if self.in_1x1 else {})
            blocks.append((f"block{stage + 1}", [unit if stage == 0 else strided] + [unit] * (units - 1)))
        return blocks

    def net(self, scope: str) -> Net:
        """The network for the bounds."""
        options = {"avg_down": self.pooled, "root_depths": self.deep or None, "unit": self.unit.removesuffix("_v1")}
        return Net(self.blocks(), self.classes, pool_mode="torch", scope=scope, version=1, **options)


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


def published(depth: int, deep: bool = False) -> Description:
    """resnet18, 34, 50, 101 or 152; deep: timm's resnet50d and so on."""
    stages = tuple(zip((64, 128, 256, 512), (BASIC | STAGES)[depth], strict=True))
    return Description(stages, 1000, depth in BASIC, (32, 32, 64) if deep else (), deep)


def draw_state(description: Description, seed: int) -> dict[str, np.ndarray]:
    """A state dict of float32 whose values keep their size along the network."""
    rng, last = np.random.default_rng(seed), ".bn2." if description.basic else ".bn3."

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape)
        if len(shape) > 1:
            return np.asarray(noise * np.sqrt(2 / np.prod(shape[1:])))
        if name.endswith("running_var"):
            return np.asarray(rng.uniform(0.5, 2, shape))
        return (0.2 * noise + name.endswith(".weight")) * (1 / 3 if last in name else 1)

    return {name: one(name, shape).astype(np.float32) for name, shape in description.shapes().items()}


def run(
    ops: Any, description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str
) -> dict[str, np.ndarray]:
    """Every layer's output, NHWC, by the name of TF-Slim's end point, in network order."""
    seen: dict[str, np.ndarray] = {}

    def record(name: str, x: Any) -> Any:
        seen[f"{scope}/{name}"] = ops.array(x)
        return x

    def conv_norm(conv: str, norm: str, x: Any, stride: int = 1) -> Any:
        statistics = (state[f"{norm}.{r}"] for r in ("weight", "bias", "running_mean", "running_var"))
        return ops.norm(ops.conv(x, state[f"{conv}.weight"], stride), *statistics)

    x = ops.images(images)
    for i, (conv, norm, _) in enumerate(description.root()):
        x = ops.relu(conv_norm(conv, norm, x, 2 if i == 0 else 1))
        record(f"conv1_{i + 1}" if description.deep else "conv1", x)
    x = record("pool1", ops.max_pool(x))
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"layer{stage + 1}.{unit}", f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            stride = 2 if stage > 0 and unit == 0 else 1
            conv, norm = (f"{place}.{name}" for name in description.shortcut())
            shortcut = x
            if f"{conv}.weight" in state:
                pooled = description.pooled and stride > 1
                shortcut = record(f"{slim}/avg_pool", ops.avg_pool(x)) if pooled else x
                shortcut = record(f"{slim}/shortcut", conv_norm(conv, norm, shortcut, 1 if pooled else stride))
            strides = (stride, 1) if description.basic else (stride, 1, 1) if description.in_1x1 else (1, stride, 1)
            for i, s in enumerate(strides, 1):
                x = conv_norm(f"{place}.conv{i}", f"{place}.bn{i}", x, s)
                x = record(f"{slim}/conv{i}", x if i == len(strides) else ops.relu(x))
            x = record(slim, ops.relu(shortcut + x))
    x = record("pool5", ops.mean(x))
    record("logits", ops.bias(ops.conv(x, state["fc.weight"][:, :, None, None], 1), state["fc.bias"]))
    return seen


def run_modules(
    net: Any, description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """The same from torchvision's or timm's own modules, each layer's output by a hook; strict about the names."""
    net = net.eval()
    modules = dict(net.named_modules())
    activations = ("relu",) if "relu" in modules else ("act1",)
    names = {activations[0]: ["conv1"], "maxpool": ["pool1"], "fc": ["logits"]}
    names["avgpool" if "avgpool" in modules else "global_pool.pool"] = ["pool5"]
    if description.deep:
        names |= {activations[0]: ["conv1_3"], "conv1.2": ["conv1_1"], "conv1.5": ["conv1_2"]}
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"layer{stage + 1}.{unit}", f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            last = 2 if description.basic else 3
            outputs = [*(f"{slim}/conv{i}" for i in range(1, last)), slim]
            if f"{place}.relu" in modules:  # torchvision calls a unit's only ReLU for all of them
                names[f"{place}.relu"] = outputs
            else:
                names |= {f"{place}.act{i}": [output] for i, output in enumerate(outputs, 1)}
            names[f"{place}.bn{last}"] = [f"{slim}/conv{last}"]
            if f"{place}.downsample" in modules:
                names[f"{place}.downsample"] = [f"{slim}/shortcut"]
                if description.pooled and stage > 0:
                    names[f"{place}.downsample.0"] = [f"{slim}/avg_pool"]
    return record(net, state, names, images, scope, dtype)
