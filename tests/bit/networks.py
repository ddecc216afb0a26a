"""BiT: timm's network of that description (`tests.timm.networks`), by Google's names and by Hugging Face's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from tests.slim.oracle import Net
from tests.timm.networks import DEEP, Description, record

#: What each home adds to the variance of kernels.
GOOGLES_EPSILON, EPSILON = 1e-10, 1e-8

_GOOGLES_UNIT = {
    "norm1": "a/group_norm", "norm2": "b/group_norm", "norm3": "c/group_norm",
    "conv1": "a/standardized_conv2d", "conv2": "b/standardized_conv2d", "conv3": "c/standardized_conv2d",
    "downsample.conv": "a/proj/standardized_conv2d",
}  # fmt: skip
_GOOGLES_ENDS = {"stem.conv": "root_block/standardized_conv2d", "norm": "group_norm", "head.fc": "head/conv2d"}
_HUGGING_FACES_ENDS = {"stem.conv": "bit.embedder.convolution", "norm": "bit.norm", "head.fc": "classifier.1"}
_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")


def by_google(state: Mapping[str, np.ndarray], prefix: str = "resnet/") -> dict[str, np.ndarray]:
    """timm's state dict by the names of Google's .npz files, with kernels HWIO."""
    result = {}
    for name, value in state.items():
        layer, _, role = name.rpartition(".")
        if match := _UNIT.match(layer):
            place = f"block{int(match[1]) + 1}/unit{int(match[2]) + 1:02d}/{_GOOGLES_UNIT[match[3]]}"
        else:
            place = _GOOGLES_ENDS[layer]
        roles = {"weight": "gamma", "bias": "beta"} if "norm" in layer else {"weight": "kernel", "bias": "bias"}
        result[f"{prefix}{place}/{roles[role]}"] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    return result


def by_hugging_face(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's state dict by the names of Hugging Face."""
    result = {}
    for name, value in state.items():
        layer, _, role = name.rpartition(".")
        match = _UNIT.match(layer)
        place = f"bit.encoder.stages.{match[1]}.layers.{match[2]}.{match[3]}" if match else _HUGGING_FACES_ENDS[layer]
        result[f"{place}.{role}"] = value[:, :, 0, 0] if layer == "head.fc" and value.ndim == 4 else value
    return result


def net_of(description: Description, scope: str = "resnet_v2") -> Net:
    """The network for the bounds."""
    root: dict[str, Any] = {"avg_down": True, "root_depths": DEEP} if description.deep else {}
    unit = "basic" if description.basic else "bottleneck"
    options = {"pool_mode": description.pool_mode, "scope": scope, "unit": unit, **root}
    return Net(description.blocks(), description.classes, **options)


def timm_model(description: Description, **options: Any) -> Any:
    """timm's own network of any size."""
    from timm.layers import GroupNormAct, StdConv2d, create_conv2d  # type: ignore[import-not-found]
    from timm.models.resnetv2 import ResNetV2  # type: ignore[import-not-found]

    bit = description.epsilon is not None
    return ResNetV2(
        layers=[units for _, units in description.stages],
        channels=tuple(description.depth(width) for width, _ in description.stages),
        num_classes=description.classes,
        stem_chs=description.root,
        stem_type="fixed" if bit else "deep" if description.deep else "",
        avg_down=description.deep,
        conv_layer=partial(StdConv2d, eps=description.epsilon) if bit else create_conv2d,
        norm_layer=GroupNormAct,
        **options,
    ).eval()


def run_timm(
    net: Any, description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """Every layer from timm's own modules, by a hook; strict about the names."""
    names = {"stem.pool": "pool1", "norm": "postnorm", "head.global_pool": "pool5", "head.fc": "logits"}
    if description.deep:
        names |= {"stem.norm1": "conv1_1", "stem.norm2": "conv1_2", "stem.conv3": "conv1_3"}
    else:
        names["stem.conv"] = "conv1"
    inner = {"": "", ".norm1": "/preact", ".norm2": "/conv1", ".norm3": "/conv2", ".conv3": "/conv3"}
    inner |= {".downsample": "/shortcut", ".downsample.pool": "/avg_pool"}
    modules = dict(net.named_modules())
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"stages.{stage}.blocks.{unit}", f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            names |= {
                place + layer: slim + end
                for layer, end in inner.items()
                if type(modules.get(place + layer)).__name__ not in ("NoneType", "Identity")
            }
    return record(net, state, {module: [name] for module, name in names.items()}, images, scope, dtype)


def transformers_model(description: Description, **options: Any) -> Any:
    """Hugging Face's own network of any size."""
    import transformers  # type: ignore[import-not-found]

    config = transformers.BitConfig(
        depths=[units for _, units in description.stages],
        hidden_sizes=[description.depth(width) for width, _ in description.stages],
        embedding_size=description.root,
        num_labels=description.classes,
        **options,
    )
    return transformers.BitForImageClassification(config).eval()


def run_transformers(
    description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """Every layer from the library's own modules, by a hook; strict about the names."""
    names = {"bit.embedder.convolution": "conv1", "bit.embedder.pooler": "pool1", "bit.norm": "postnorm"}
    names |= {"bit.pooler": "pool5", "classifier.1": "logits"}
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"bit.encoder.stages.{stage}.layers.{unit}", f"block{stage + 1}/unit_{unit + 1}/bottleneck_v2"
            inner = {"": "", ".norm1": "/preact", ".norm2": "/conv1", ".norm3": "/conv2", ".conv3": "/conv3"}
            inner |= {".downsample": "/shortcut"} if unit == 0 else {}
            names |= {place + layer: slim + end for layer, end in inner.items()}
    outputs = {module: [name] for module, name in names.items()}
    return record(transformers_model(description), state, outputs, images, scope, dtype)
