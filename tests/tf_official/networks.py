"""The official ResNets of the TensorFlow models repository: variables numbered as they are created, in TensorFlow."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from tests.slim.oracle import BlockSpec, Net
from tests.support.tensorflow import tensorflow


class Description(NamedTuple):
    """Version, (filters, units) of each block, whether the units are bottlenecks, classes, and the root's filters."""

    version: int
    blocks: tuple[tuple[int, int], ...]
    bottleneck: bool = True
    classes: int = 7
    root: int = 64

    @property
    def unit(self) -> str:
        """TF-Slim's kind of name for a unit."""
        return f"{'bottleneck' if self.bottleneck else 'basic'}_v{self.version}"

    def depth(self, filters: int) -> int:
        """Channels of a unit's output."""
        return 4 * filters if self.bottleneck else filters

    def net(self, scope: str) -> Net:
        """The network for the bounds."""
        blocks: list[BlockSpec] = []
        for block, (filters, units) in enumerate(self.blocks, 1):
            unit = {"depth": self.depth(filters), "depth_bottleneck": filters, "stride": 1}
            blocks.append((f"block{block}", [unit | {"stride": 1 if block == 1 else 2}] + [unit] * (units - 1)))
        return Net(blocks, self.classes, scope=scope, version=self.version, unit=self.unit.split("_")[0])


class Model:
    """Runs the network; the variables that the state lacks are drawn on the way, as they would be created."""

    def __init__(self, description: Description, state: dict[str, np.ndarray], dtype: str, scope: str) -> None:
        self.tf, self.dtype, self.scope = tensorflow(), dtype, scope
        self.description, self.state = description, state
        self.seen: dict[str, np.ndarray] = {}
        self.made: Counter[str] = Counter()
        self.random = np.random.default_rng(5)

    def layer(self, kind: str) -> str:
        number = self.made[kind]
        self.made[kind] += 1
        return f"resnet_model/{kind}{f'_{number}' if number else ''}"

    def variable(self, name: str, values: Any) -> Any:
        return self.tf.constant(self.state.setdefault(name, np.asarray(values, np.float32)), self.dtype)

    def record(self, name: str, x: Any) -> Any:
        self.seen[f"{self.scope}/{name}"] = np.asarray(x.numpy())
        return x

    def conv(self, x: Any, filters: int, size: int, stride: int) -> Any:
        shape = (size, size, x.shape[3], filters)
        kernel = self.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))
        kernel = self.variable(f"{self.layer('conv2d')}/kernel", kernel)
        if stride == 1:
            return self.tf.nn.conv2d(x, kernel, 1, "SAME")
        before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
        padded = self.tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
        return self.tf.nn.conv2d(padded, kernel, stride, "VALID")

    def norm(self, x: Any) -> Any:
        layer, shape = self.layer("batch_normalization"), x.shape[3:]
        gamma = self.variable(f"{layer}/gamma", self.random.uniform(0.5, 1.5, shape))
        beta = self.variable(f"{layer}/beta", 0.2 * self.random.standard_normal(shape))
        mean = self.variable(f"{layer}/moving_mean", 0.2 * self.random.standard_normal(shape))
        variance = self.variable(f"{layer}/moving_variance", self.random.uniform(0.5, 2, shape))
        return (x - mean) * (gamma / self.tf.sqrt(variance + 1e-5)) + beta

    def unit(self, x: Any, filters: int, projects: bool, stride: int, name: str) -> Any:
        relu, first = self.tf.nn.relu, self.description.version == 1
        shortcut = x
        if not first:
            x = self.record(f"{name}/preact", relu(self.norm(x)))
        if projects:
            shortcut = self.conv(x, self.description.depth(filters), 1, stride)
            shortcut = self.record(f"{name}/shortcut", self.norm(shortcut) if first else shortcut)
        kernels = [(filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1)]
        if not self.description.bottleneck:
            kernels = [(filters, 3, stride), (filters, 3, 1)]
        for i, kernel in enumerate(kernels, 1):
            x, last = self.conv(x, *kernel), i == len(kernels)
            x = self.norm(x) if first or not last else x
            x = self.record(f"{name}/conv{i}", x if last else relu(x))
        return self.record(name, relu(x + shortcut) if first else x + shortcut)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Every layer's output by the name of TF-Slim's end point, in network order."""
        tf, description = self.tf, self.description
        first = description.version == 1
        x = self.conv(tf.constant(images, self.dtype), description.root, 7, 2)
        x = self.record("conv1", tf.nn.relu(self.norm(x)) if first else x)
        x = self.record("pool1", tf.nn.max_pool2d(x, 3, 2, "SAME"))
        for block, (filters, units) in enumerate(description.blocks, 1):
            for unit in range(units):
                name = f"block{block}/unit_{unit + 1}/{description.unit}"
                x = self.unit(x, filters, unit == 0, 2 if block > 1 and unit == 0 else 1, name)
        if not first:
            x = self.record("postnorm", tf.nn.relu(self.norm(x)))
        x = self.record("pool5", tf.reduce_mean(x, (1, 2), keepdims=True))
        shape = (x.shape[3], description.classes)
        kernel = self.variable("resnet_model/dense/kernel", self.random.standard_normal(shape) / np.sqrt(shape[0]))
        bias = self.variable("resnet_model/dense/bias", self.random.standard_normal(shape[1:]))
        self.record("logits", tf.einsum("nhwc,cd->nhwd", x, kernel) + bias)
        return self.seen
