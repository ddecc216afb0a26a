"""pytorchcv's PreResNet: timm's ResNetV2 with another root, by other names; written in terms of a few operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.slim.oracle import BlockSpec, Net
from tests.timm.networks import Operations, record


class Description(NamedTuple):
    """Stages as (channels of a unit's output, units) each, and classes.

    ``basic``: units of two 3x3 kernels; ``conv1_stride``: the first kernel of a bottleneck strides, as in preresnet50,
    and not the 3x3 one, as in preresnet50b; ``root``: channels of the first convolution.
    """

    stages: tuple[tuple[int, int], ...]
    classes: int
    basic: bool = False
    conv1_stride: bool = True
    root: int = 64

    def kernels(self, channels: int, depth: int) -> list[tuple[int, int, int, int]]:
        """A unit's kernels, OIHW."""
        if self.basic:
            return [(depth, channels, 3, 3), (depth, depth, 3, 3)]
        width = depth // 4
        return [(width, channels, 1, 1), (width, width, 3, 3), (depth, width, 1, 1)]

    def strides(self, stride: int) -> tuple[int, ...]:
        """The strides of a unit's kernels."""
        if self.basic:
            return stride, 1
        return (stride, 1, 1) if self.conv1_stride else (1, stride, 1)

    def units(self) -> Iterable[tuple[str, str, int, int, int]]:
        """For each unit its name, TF-Slim's, its channels before and after, and its stride."""
        channels = self.root
        for stage, (depth, units) in enumerate(self.stages, 1):
            for unit in range(1, units + 1):
                slim = f"block{stage}/unit_{unit}/{'basic' if self.basic else 'bottleneck'}_v2"
                yield f"features.stage{stage}.unit{unit}", slim, channels, depth, 2 if stage > 1 and unit == 1 else 1
                channels = depth

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The state dict's names and shapes, without the counters of batches."""
        shapes: dict[str, tuple[int, ...]] = {"features.init_block.conv.weight": (self.root, 3, 7, 7)}

        def norm(name: str, channels: int) -> None:
            shapes.update({f"{name}.{r}": (channels,) for r in ("weight", "bias", "running_mean", "running_var")})

        norm("features.init_block.bn", self.root)
        for place, _, channels, depth, stride in self.units():
            for i, kernel in enumerate(self.kernels(channels, depth), 1):
                norm(f"{place}.body.conv{i}.bn", kernel[1])
                shapes[f"{place}.body.conv{i}.conv.weight"] = kernel
            if stride > 1 or channels != depth:
                shapes[f"{place}.identity_conv.weight"] = (depth, channels, 1, 1)
        norm("features.post_activ.bn", depth)
        return {**shapes, "output.weight": (self.classes, depth), "output.bias": (self.classes,)}

    def blocks(self) -> list[BlockSpec]:
        """TF-Slim's blocks of the same function."""
        blocks = []
        for stage, (depth, units) in enumerate(self.stages, 1):
            unit = {"depth": depth, "depth_bottleneck": depth if self.basic else depth // 4, "stride": 1}
            first = unit | ({"stride": 2} if stage > 1 else {})
            if stage > 1 and self.conv1_stride and not self.basic:
                first["stride_in_1x1"] = True
            blocks.append((f"block{stage}", [first] + [unit] * (units - 1)))
        return blocks

    def net(self, scope: str) -> Net:
        """The network for the bounds."""
        unit = "basic" if self.basic else "bottleneck"
        return Net(self.blocks(), self.classes, pool_mode="torch", scope=scope, unit=unit)


def draw_state(description: Description, seed: int) -> dict[str, np.ndarray]:
    """A state dict of float32 whose values keep their size along the network."""
    rng, last = np.random.default_rng(seed), f".conv{2 if description.basic else 3}.conv."

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape)
        if len(shape) > 1:
            return np.asarray(noise * np.sqrt(2 / np.prod(shape[1:])) * (1 / 3 if last in name else 1))
        if name.endswith("running_var"):
            return np.asarray(rng.uniform(0.5, 2, shape))
        return 0.2 * noise + name.endswith(".weight")

    return {name: one(name, shape).astype(np.float32) for name, shape in description.shapes().items()}


def run(
    ops: Operations, description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str
) -> dict[str, np.ndarray]:
    """Every layer's output, NHWC, by the name of TF-Slim's end point, in network order."""
    seen: dict[str, np.ndarray] = {}

    def record(name: str, x: Any) -> Any:
        seen[f"{scope}/{name}"] = ops.array(x)
        return x

    def norm(name: str, x: Any) -> Any:
        return ops.norm_relu(x, *(state[f"{name}.{r}"] for r in ("weight", "bias", "running_mean", "running_var")))

    x = norm("features.init_block.bn", ops.conv(ops.images(images), state["features.init_block.conv.weight"], 2))
    x = record("pool1", ops.max_pool(record("conv1", x)))
    for place, slim, _, _, stride in description.units():
        inner = record(f"{slim}/preact", norm(f"{place}.body.conv1.bn", x))
        if f"{place}.identity_conv.weight" in state:
            x = record(f"{slim}/shortcut", ops.conv(inner, state[f"{place}.identity_conv.weight"], stride))
        strides = description.strides(stride)
        for i, s in enumerate(strides, 1):
            inner = ops.conv(inner, state[f"{place}.body.conv{i}.conv.weight"], s)
            inner = norm(f"{place}.body.conv{i + 1}.bn", inner) if i < len(strides) else inner
            record(f"{slim}/conv{i}", inner)
        x = record(slim, inner + x)
    x = record("pool5", ops.mean(record("postnorm", norm("features.post_activ.bn", x))))
    record("logits", ops.bias(ops.conv(x, state["output.weight"][:, :, None, None], 1), state["output.bias"]))
    return seen


def run_pytorchcv(
    description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """The same from the library's own modules, by a hook; strict about the names."""
    from pytorchcv.models.preresnet import PreResNet  # type: ignore[import-not-found]

    net = PreResNet(
        [[depth] * units for depth, units in description.stages], description.root, not description.basic,
        description.conv1_stride, num_classes=description.classes,
    ).eval()  # fmt: skip
    # The library's pool has the size of the features of its own images.
    net.features.final_pool = __import__("torch").nn.AdaptiveAvgPool2d(1)
    names = {"features.init_block.activ": "conv1", "features.init_block.pool": "pool1"}
    for place, slim, _, _, _ in description.units():
        names |= {f"{place}.body.conv1.activ": f"{slim}/preact", place: slim}
        last = 2 if description.basic else 3
        names |= {f"{place}.body.conv{i + 1}.activ": f"{slim}/conv{i}" for i in range(1, last)}
        names[f"{place}.body.conv{last}.conv"] = f"{slim}/conv{last}"
        if f"{place}.identity_conv.weight" in state:
            names[f"{place}.identity_conv"] = f"{slim}/shortcut"
    names |= {"features.post_activ": "postnorm", "features.final_pool": "pool5", "output": "logits"}
    return record(net, state, {module: [name] for module, name in names.items()}, images, scope, dtype)
