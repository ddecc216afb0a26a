"""KerasHub's ResNets: timm's networks by other names, with the axes of Keras."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.timm import networks as timm
from tests.torchvision import networks as torchvision

_ROLES = {"running_mean": "moving_mean", "running_var": "moving_variance"}
_V1 = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": "predictions"}
_V1_DEEP = {
    "conv1.0": "conv1_conv", "conv1.1": "conv1_bn", "conv1.3": "conv2_conv", "conv1.4": "conv2_bn",
    "conv1.6": "conv3_conv", "bn1": "conv3_bn", "fc": "predictions",
}  # fmt: skip
_V2 = {"stem.conv": "conv1_conv", "norm": "post_bn", "head.fc": "predictions"}
_V1_UNIT = {"downsample.0": "0_conv", "downsample.1": "0_bn"}
_V1_POOLED = {"downsample.1": "0_conv", "downsample.2": "0_bn"}
_V2_UNIT = {"downsample.conv": "0_conv", "norm1": "pre_activation_bn", "norm2": "1_bn", "norm3": "2_bn"}

Description = timm.Description | torchvision.Description


def renamed(description: Description, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's state dict by the names of KerasHub."""
    if isinstance(description, timm.Description):
        pattern, ends, inner, first = r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", _V2, _V2_UNIT, 0
    else:
        pattern, first = r"layer(\d+)\.(\d+)\.(.+)", 1
        ends = _V1_DEEP if description.deep else _V1
        inner = _V1_POOLED if description.pooled else _V1_UNIT
    inner = inner | {f"conv{i}": f"{i}_conv" for i in (1, 2, 3)} | {f"bn{i}": f"{i}_bn" for i in (1, 2, 3)}
    result = {}
    for name, value in state.items():
        layer, _, role = name.rpartition(".")
        match = re.fullmatch(pattern, layer)
        place = f"stack{int(match[1]) - first}_block{match[2]}_{inner[match[3]]}" if match else ends[layer]
        is_norm = place.endswith("_bn")
        role = (
            _ROLES.get(role)
            or {"weight": "gamma" if is_norm else "kernel", "bias": "beta" if is_norm else "bias"}[role]
        )
        if role == "kernel":
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            value = value[0, 0] if place == "predictions" and value.ndim == 4 else value
        result[f"{place}/{role}"] = np.ascontiguousarray(value)
    return result


def run_keras_hub(
    description: Description, tensors: Mapping[str, np.ndarray], images: np.ndarray, scope: str, path: str | None = None
) -> dict[str, np.ndarray]:
    """Every layer from the library's own model in float64; ``path``: also save its weights there, in float32."""
    import keras
    import keras_hub  # type: ignore[import-not-found]

    second = isinstance(description, timm.Description)
    deep = () if second else description.deep  # type: ignore[union-attr]
    kind = "basic_block" if description.basic else "bottleneck_block"

    def build() -> Any:
        backbone = keras_hub.models.ResNetBackbone(
            list(deep or (64,)), [3] * 3 if deep else [7],
            [width for width, _ in description.stages], [units for _, units in description.stages],
            [1] + [2] * (len(description.stages) - 1), kind + ("_vd" if deep else ""),
            use_pre_activation=second, image_shape=images.shape[1:],
        )  # fmt: skip
        model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=description.classes)
        layers = {layer.name: layer for layer in [*backbone.layers, *model.layers]}
        used = set()
        for layer in layers.values():
            if isinstance(layer, keras.Model):
                continue
            for variable in layer.weights:
                name = f"{layer.name}/{variable.name}"
                variable.assign(tensors[name])
                used.add(name)
        assert used == tensors.keys()
        return backbone, model, layers

    if path is not None:
        build()[1].save_weights(path)
    keras.config.set_dtype_policy("float64")
    try:
        backbone, model, layers = build()
    finally:
        keras.config.set_dtype_policy("float32")
    wanted = {"conv1_relu" if not second else "conv1_conv": "conv1", "pool1_pool": "pool1"}
    if deep:
        wanted = {f"conv{i}_relu": f"conv1_{i}" for i in (1, 2, 3)} | {"pool1_pool": "pool1"}
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"stack{stage}_block{unit}", f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            last = 2 if description.basic else 3
            ends = {"pre_activation_relu": "/preact", "0_conv": "/shortcut"} if second else {"0_bn": "/shortcut"}
            ends |= {f"{i}_relu": f"/conv{i}" for i in range(1, last)}
            ends |= {f"{last}_{'conv' if second else 'bn'}": f"/conv{last}", "out": ""}
            wanted |= {f"{place}_{end}": slim + name for end, name in ends.items() if f"{place}_{end}" in layers}
    wanted |= {"post_relu": "postnorm"} if second else {}
    outputs = keras.Model(backbone.input, [backbone.get_layer(layer).output for layer in wanted])(images)
    found = {f"{scope}/{slim}": np.asarray(value) for slim, value in zip(wanted.values(), outputs, strict=True)}
    logits = np.asarray(model(images))
    return found | {f"{scope}/logits": logits[:, None, None]}
