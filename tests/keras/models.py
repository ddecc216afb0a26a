"""Keras Applications' ResNets: built, filled with weights, and read layer by layer, all by TF-Slim's names."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

#: By the version. Odd and even sides: Keras pads both alike, TF-Slim's SAME does not.
SHAPES = {1: (1, 65, 64, 3), 2: (2, 97, 64, 3)}
CLASSES = 1000

#: Where TF-Slim has the outputs of Keras' layers: outside of units, and in them.
LAYERS = {
    1: {"conv1_relu": "conv1", "pool1_pool": "pool1", "avg_pool": "pool5"},
    2: {"conv1_conv": "conv1", "pool1_pool": "pool1", "post_relu": "postnorm", "avg_pool": "pool5"},
}
IN_UNIT = {
    1: {"0_bn": "/shortcut", "1_relu": "/conv1", "2_relu": "/conv2", "3_bn": "/conv3", "out": ""},
    2: {
        "preact_relu": "/preact",
        "0_conv": "/shortcut",
        "1_relu": "/conv1",
        "2_relu": "/conv2",
        "3_conv": "/conv3",
        "out": "",
    },
}
#: And their variables.
ENDS = {"conv1_conv": "conv1", "conv1_bn": "conv1/BatchNorm", "post_bn": "postnorm", "predictions": "logits"}
PLACES = {
    "preact_bn": "/preact",
    **{f"{number}_conv": f"/{place}" for number, place in enumerate(("shortcut", "conv1", "conv2", "conv3"))},
    **{f"{number}_bn": f"/{place}/BatchNorm" for number, place in enumerate(("shortcut", "conv1", "conv2", "conv3"))},
}
ROLES = {"kernel": "weights", "bias": "biases"}


class Network(NamedTuple):
    """ResNet50 is version 1, depth 50; ResNet50V2 is version 2, depth 50."""

    version: int
    depth: int

    @property
    def scope(self) -> str:
        return f"resnet_v{self.version}_{self.depth}"

    @property
    def application(self) -> str:
        return f"ResNet{self.depth}{'V2' if self.version == 2 else ''}"

    @property
    def shape(self) -> tuple[int, ...]:
        return SHAPES[self.version]

    def slim_name(self, layer: str, names: dict[str, str], in_unit: dict[str, str]) -> str | None:
        """Where TF-Slim has what Keras calls so."""
        if layer in names:
            return f"{self.scope}/{names[layer]}"
        match = re.fullmatch(r"conv(\d)_block(\d+)_(\w+)", layer)
        if match is None or match[3] not in in_unit:
            return None
        unit = f"block{int(match[1]) - 1}/unit_{match[2]}/bottleneck_v{self.version}"
        return f"{self.scope}/{unit}{in_unit[match[3]]}"

    def build(self, keras: Any, **options: Any) -> Any:
        make = getattr(keras.applications, self.application)
        options = {"input_shape": self.shape[1:], "classifier_activation": None} | options
        return make(weights=None, **options)

    def build_in_float64(self, keras: Any, **options: Any) -> Any:
        keras.config.set_dtype_policy("float64")
        try:
            return self.build(keras, **options)
        finally:
            keras.config.set_dtype_policy("float32")

    def variables_of(self, model: Any) -> dict[str, Any]:
        """The model's variables by TF-Slim's names; in Keras 2 a variable's name holds its layer's."""
        variables = {}
        for layer in model.layers:
            place = self.slim_name(layer.name, ENDS, PLACES)
            for variable in layer.weights:
                role = variable.name.split("/")[-1].removesuffix(":0")
                variables[f"{place}/{ROLES.get(role, role)}"] = variable
        return variables

    def fill(self, model: Any, weights: dict[str, np.ndarray]) -> Any:
        for name, variable in self.variables_of(model).items():
            variable.assign(weights[name].reshape(variable.shape))
        return model

    def layers_of(self, keras: Any, model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
        """The output of every layer that is an end point, in the order of the layers."""
        tables = LAYERS[self.version], IN_UNIT[self.version]
        names = {layer.name: self.slim_name(layer.name, *tables) for layer in model.layers}
        names["predictions"] = f"{self.scope}/logits"
        wanted = [layer for layer, name in names.items() if name is not None]
        outputs = keras.Model(model.input, [model.get_layer(layer).output for layer in wanted])(images)
        values = {str(names[layer]): np.asarray(value) for layer, value in zip(wanted, outputs, strict=True)}
        return {name: value if value.ndim == 4 else value[:, None, None] for name, value in values.items()}
