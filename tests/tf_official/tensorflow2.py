"""SimCLR's network in TensorFlow 2, with the layers of google-research's ``simclr/tf2``, named by Keras 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.tensorflow import quiet, tensorflow
from tests.tf_official.networks import Description


@cache
def _layers() -> SimpleNamespace:
    """The kinds of layers; they are made here because TensorFlow takes ten seconds to import."""
    tf = tensorflow()
    with quiet():
        import tf_keras as keras  # type: ignore[import-untyped]
    layers = keras.layers
    layer = layers.Layer

    def run(each_of: Sequence[Any], x: Any) -> Any:
        for each in each_of:
            x = each(x)
        return x

    class FixedPadding(layer):  # type: ignore[misc, valid-type]
        def __init__(self, kernel: int) -> None:
            super().__init__()
            self.sides = [(kernel - 1) // 2, kernel // 2]

        def call(self, inputs: Any) -> Any:
            return tf.pad(inputs, [[0, 0], self.sides, self.sides, [0, 0]])

    class Conv2dFixedPadding(layer):  # type: ignore[misc, valid-type]
        def __init__(self, filters: int, kernel: int, stride: int) -> None:
            super().__init__()
            self.before = [FixedPadding(kernel)] if stride > 1 else []
            padding = "valid" if stride > 1 else "same"
            self.conv2d = layers.Conv2D(filters, kernel, stride, padding, use_bias=False)

        def call(self, inputs: Any) -> Any:
            return self.conv2d(run(self.before, inputs))

    class BatchNormRelu(layer):  # type: ignore[misc, valid-type]
        def __init__(self, relu: bool = True, center: bool = True, synchronized: bool = False) -> None:
            super().__init__()
            kind = layers.experimental.SyncBatchNormalization if synchronized else layers.BatchNormalization
            self.relu, self.bn = relu, kind(epsilon=1e-5, center=center)

        def call(self, inputs: Any) -> Any:
            x = self.bn(inputs, training=False)
            return tf.nn.relu(x) if self.relu else x

    class Block(layer):  # type: ignore[misc, valid-type]
        """The first of these layers are the shortcut's."""

        def __init__(self, filters: int, stride: int, first: bool, kernels: Sequence[Any], synchronized: bool) -> None:
            super().__init__()
            depth = kernels[-1][0] * filters
            self.projection = [Conv2dFixedPadding(depth, 1, stride)] if first else []
            self.projection += [BatchNormRelu(relu=False, synchronized=synchronized)] if first else []
            self.body = []
            for i, (times, size, strides) in enumerate(kernels):
                self.body.append(Conv2dFixedPadding(times * filters, size, stride if strides else 1))
                self.body.append(BatchNormRelu(i < len(kernels) - 1, synchronized=synchronized))

        def call(self, inputs: Any) -> Any:
            return tf.nn.relu(run(self.projection, inputs) + run(self.body, inputs))

    class BottleneckBlock(Block):
        def __init__(self, filters: int, stride: int, first: bool, synchronized: bool) -> None:
            kernels = [(1, 1, False), (1, 3, True), (4, 1, False)]
            super().__init__(filters, stride, first, kernels, synchronized)

    class ResidualBlock(Block):
        def __init__(self, filters: int, stride: int, first: bool, synchronized: bool) -> None:
            super().__init__(filters, stride, first, [(1, 3, True), (1, 3, False)], synchronized)

    class BlockGroup(layer):  # type: ignore[misc, valid-type]
        def __init__(self, blocks: Sequence[Any], name: str) -> None:
            super().__init__(name=name)
            self.layers = blocks

        def call(self, inputs: Any) -> Any:
            return run(self.layers, inputs)

    class Resnet(layer):  # type: ignore[misc, valid-type]
        def __init__(self, description: Description, synchronized: bool) -> None:
            super().__init__()
            kind = BottleneckBlock if description.bottleneck else ResidualBlock
            self.initial = [Conv2dFixedPadding(description.root, 7, 2), BatchNormRelu(synchronized=synchronized)]
            self.initial.append(layers.MaxPooling2D(3, 2, "same"))
            self.block_groups = []
            for number, (filters, units) in enumerate(description.blocks, 1):
                stride = 1 if number == 1 else 2
                blocks = [kind(filters, 1 if i else stride, i == 0, synchronized) for i in range(units)]
                self.block_groups.append(BlockGroup(blocks, f"block_group{number}"))

        def call(self, inputs: Any) -> Any:
            return tf.reduce_mean(run([*self.initial, *self.block_groups], inputs), [1, 2])

    class LinearLayer(layer):  # type: ignore[misc, valid-type]
        def __init__(self, outputs: int, name: str = "linear_layer", center: bool | None = None) -> None:
            super().__init__(name=name)
            self.dense = layers.Dense(outputs, use_bias=center is None)
            self.after = [] if center is None else [BatchNormRelu(relu=False, center=center)]

        def call(self, inputs: Any) -> Any:
            return run([self.dense, *self.after], inputs)

    class ProjectionHead(layer):  # type: ignore[misc, valid-type]
        def __init__(self, features: int) -> None:
            super().__init__()
            self.linear_layers = [LinearLayer(features, "nl_0", True), LinearLayer(3, "nl_1", False)]

        def call(self, inputs: Any) -> Any:
            return self.linear_layers[1](tf.nn.relu(self.linear_layers[0](inputs)))

    class SupervisedHead(layer):  # type: ignore[misc, valid-type]
        def __init__(self, classes: int) -> None:
            super().__init__(name="head_supervised")
            self.linear_layer = LinearLayer(classes)

        def call(self, inputs: Any) -> Any:
            return self.linear_layer(inputs)

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self, description: Description, projection: bool, synchronized: bool) -> None:
            super().__init__()
            self.resnet_model = Resnet(description, synchronized)
            features = description.depth(description.blocks[-1][0])
            self._projection_head = ProjectionHead(features) if projection else None
            self.supervised_head = SupervisedHead(description.classes)

        def __call__(self, inputs: Any) -> Any:
            """Not ``call``: so no name has the model's before it."""
            hidden = self.resnet_model(inputs)
            if self._projection_head is not None:
                self._projection_head(hidden)
            return self.supervised_head(hidden)

    return SimpleNamespace(keras=keras, Model=Model)


def build(
    description: Description, state: Mapping[str, np.ndarray], *, projection: bool = False, synchronized: bool = False,
    anew: bool = True, dtype: str = "float32",
) -> Any:  # fmt: skip
    """The network with the variables of `tests.tf_official.networks`, which are in the order of their creation.

    ``anew``: the numbers of the layers start at 0, as in a new process.
    """
    layers = _layers()
    if anew:
        layers.keras.backend.reset_uids()
    before = layers.keras.backend.floatx()
    layers.keras.backend.set_floatx(dtype)
    try:
        net = layers.Model(description, projection, synchronized)
        net(np.zeros((1, 33, 40, 3), dtype))
    finally:
        layers.keras.backend.set_floatx(before)
    made: dict[str, list[str]] = {"conv2d": [], "batch_normalization": []}
    for layer in dict.fromkeys(name.rpartition("/")[0] for name in state):
        for kind, names in made.items():
            names += [layer] if layer.startswith(f"resnet_model/{kind}") else []
    kept = {kind: iter(names) for kind, names in made.items()}
    for layer in _in_order(net.resnet_model):
        source = next(kept["conv2d" if "conv2d" in layer.name else "batch_normalization"])
        for variable in layer.variables:
            variable.assign(state[f"{source}/{variable.name.rpartition('/')[2].removesuffix(':0')}"])
    assert not any(list(rest) for rest in kept.values())
    net.supervised_head.linear_layer.dense.kernel.assign(state["resnet_model/dense/kernel"])
    net.supervised_head.linear_layer.dense.bias.assign(state["resnet_model/dense/bias"])
    return net


def _in_order(net: Any) -> list[Any]:
    """The layers that have variables, in the order in which they were made."""
    parts = [*net.initial]
    for group in net.block_groups:
        for block in group.layers:
            parts += [*block.projection, *block.body]
    return [part.conv2d if hasattr(part, "conv2d") else part.bn for part in parts if part.variables]
