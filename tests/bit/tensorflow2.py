"""BiT in TensorFlow 2, with the layers and the names of google-research's ``bit_tf2/models.py``, in Keras 2.

Its groups of layers were Sequential models, whose scopes were part of the names of variables up to TensorFlow 2.1. The
Sequential models of later releases have none. So there are two forms, with scopes and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.bit.networks import GOOGLES_EPSILON, by_google
from tests.support.tensorflow import quiet, tensorflow
from tests.timm.networks import Description


@cache
def _layers() -> SimpleNamespace:
    """The kinds of layers; they are made here because TensorFlow takes ten seconds to import."""
    tf = tensorflow()
    with quiet():
        import tf_keras as keras  # type: ignore[import-untyped]
    layer = keras.layers.Layer

    class Padding(layer):  # type: ignore[misc, valid-type]
        def __init__(self, kernel: int) -> None:
            super().__init__()
            self.before, self.after = (kernel - 1) // 2, kernel // 2

        def call(self, inputs: Any) -> Any:
            sides = [self.before, self.after]
            return tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])

    class GroupNorm(layer):  # type: ignore[misc, valid-type]
        def build(self, shape: Any) -> None:
            self._gamma = self.add_weight(name="gamma", shape=shape[-1:])
            self._beta = self.add_weight(name="beta", shape=shape[-1:])

        def call(self, inputs: Any) -> Any:
            shape = tf.shape(inputs)
            groups = tf.reshape(inputs, tf.concat([shape[:-1], [32, inputs.shape[-1] // 32]], 0))
            mean, variance = tf.nn.moments(groups, [1, 2, 4], keepdims=True)
            normal = tf.reshape((groups - mean) / tf.sqrt(variance + 1e-5), shape)
            return normal * self._gamma + self._beta

    class StandardizedConv(keras.layers.Conv2D):  # type: ignore[misc]
        def __init__(self, *arguments: int, name: str) -> None:
            super().__init__(*arguments, use_bias=False, name=name)

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
            return super().convolution_op(inputs, (kernel - mean) / tf.sqrt(variance + GOOGLES_EPSILON))

    class Chain(layer):  # type: ignore[misc, valid-type]
        """A Sequential model whose variables have its name in theirs."""

        def __init__(self, layers: Sequence[Any], name: str) -> None:
            super().__init__(name=name)
            self.chain = layers

        def call(self, inputs: Any) -> Any:
            for each in self.chain:
                inputs = each(inputs)
            return inputs

    def chain_of(scoped: bool) -> Any:
        return Chain if scoped else keras.Sequential

    class Unit(layer):  # type: ignore[misc, valid-type]
        def __init__(self, width: int, stride: int, name: str, scoped: bool) -> None:
            super().__init__(name=name)
            self.stride, self.depth, self._proj, chain = stride, 4 * width, None, chain_of(scoped)
            norm_relu = [[GroupNorm(name="group_norm"), keras.layers.ReLU()] for _ in range(3)]
            self._unit_a = chain(norm_relu[0], name="a")
            self._unit_a_conv = StandardizedConv(width, 1, name="a/standardized_conv2d")
            wide = [Padding(3), StandardizedConv(width, 3, stride, name="standardized_conv2d")]
            self._unit_b = chain([*norm_relu[1], *wide], name="b")
            last = StandardizedConv(self.depth, 1, name="standardized_conv2d")
            self._unit_c = chain([*norm_relu[2], last], name="c")

        def build(self, shape: Any) -> None:
            if self.stride > 1 or shape[-1] != self.depth:
                self._proj = StandardizedConv(self.depth, 1, self.stride, name="a/proj/standardized_conv2d")
            self.built = True

        def call(self, inputs: Any) -> Any:
            active = self._unit_a(inputs)
            shortcut = inputs if self._proj is None else self._proj(active)
            return shortcut + self._unit_c(self._unit_b(self._unit_a_conv(active)))

    class ResNet(keras.Model):  # type: ignore[misc]
        def __init__(self, description: Description, scoped: bool) -> None:
            super().__init__(name="resnet")
            chain = chain_of(scoped)
            root = StandardizedConv(description.root, 7, 2, name="standardized_conv2d")
            pool = keras.layers.MaxPool2D(3, 2, "valid")
            self._root = chain([Padding(7), root, Padding(3), pool], name="root_block")
            self._blocks = [
                chain(
                    [Unit(width, 2 if stage and not i else 1, f"unit{i + 1:02d}", scoped) for i in range(units)],
                    name=f"block{stage + 1}",
                )
                for stage, (width, units) in enumerate(description.stages)
            ]
            pool = keras.layers.GlobalAveragePooling2D()
            self._pre_head = [GroupNorm(name="group_norm"), keras.layers.ReLU(), pool]
            self._head = keras.layers.Dense(description.classes, name="head/dense")

        def call(self, inputs: Any) -> Any:
            with tf.name_scope(self.name):
                for each in [self._root, *self._blocks, *self._pre_head, self._head]:
                    inputs = each(inputs)
            return inputs

    return SimpleNamespace(keras=keras, ResNet=ResNet)


def build(description: Description, state: Mapping[str, np.ndarray], scoped: bool, dtype: str = "float32") -> Any:
    """The network with timm's state dict."""
    layers = _layers()
    before = layers.keras.backend.floatx()
    layers.keras.backend.set_floatx(dtype)
    try:
        net = layers.ResNet(description, scoped)
        net(np.zeros((1, 64, 64, 3), dtype))
    finally:
        layers.keras.backend.set_floatx(before)
    names = by_google(state)

    def give(layer: Any, place: str) -> None:
        for variable in layer.variables:
            value = names.pop(f"{place}/{variable.name.rpartition('/')[2].removesuffix(':0')}")
            variable.assign(value.reshape(variable.shape))

    def only(chain: Any, norm: bool) -> Any:
        """The layer of a chain that is a group norm, or a convolution."""
        layers = chain.chain if hasattr(chain, "chain") else chain.layers
        return next(layer for layer in layers if layer.variables and hasattr(layer, "_gamma") == norm)

    give(only(net._root, norm=False), "resnet/root_block/standardized_conv2d")
    for i, block in enumerate(net._blocks, 1):
        for j, unit in enumerate(block.chain if scoped else block.layers, 1):
            place = f"resnet/block{i}/unit{j:02d}"
            parts = {"a/standardized_conv2d": unit._unit_a_conv}
            parts |= {} if unit._proj is None else {"a/proj/standardized_conv2d": unit._proj}
            for part, chain in {"a": unit._unit_a, "b": unit._unit_b, "c": unit._unit_c}.items():
                parts[f"{part}/group_norm"] = only(chain, norm=True)
                parts |= {} if part == "a" else {f"{part}/standardized_conv2d": only(chain, norm=False)}
            for part, layer in parts.items():
                give(layer, f"{place}/{part}")
    give(net._pre_head[0], "resnet/group_norm")
    give(net._head, "resnet/head/conv2d")
    assert not names
    return net
