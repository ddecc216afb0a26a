"""Hugging Face's ResNet: PyTorch's of the same version, by other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tests.timm.networks import record
from tests.torchvision.networks import Description

_ENDS = {
    "conv1": "resnet.embedder.embedder.convolution",
    "bn1": "resnet.embedder.embedder.normalization",
    "fc": "classifier.1",
}
_SHORTCUT = {"downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"}


def renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's state dict by the names of Hugging Face."""
    return {_name(name): value for name, value in state.items()}


def _name(name: str) -> str:
    layer, _, role = name.rpartition(".")
    match = re.match(r"layer(\d+)\.(\d+)\.(.+)", layer)
    if not match:
        return f"{_ENDS[layer]}.{role}"
    kinds = {"conv": "convolution", "bn": "normalization"}
    inner = _SHORTCUT.get(match[3]) or f"layer.{int(match[3][-1]) - 1}.{kinds[match[3][:-1]]}"
    return f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.{inner}.{role}"


def run_transformers(
    description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str, dtype: str
) -> dict[str, np.ndarray]:
    """Every layer from the library's own modules, by a hook; strict about the names."""
    import transformers  # type: ignore[import-not-found]

    config = transformers.ResNetConfig(
        depths=[units for _, units in description.stages],
        hidden_sizes=[description.depth(width) for width, _ in description.stages],
        layer_type="basic" if description.basic else "bottleneck",
        downsample_in_bottleneck=description.in_1x1,
        num_labels=description.classes,
    )
    net = transformers.ResNetForImageClassification(config).eval()
    names = {"resnet.embedder.embedder": ["conv1"], "resnet.embedder.pooler": ["pool1"]}
    names |= {"resnet.pooler": ["pool5"], "classifier.1": ["logits"]}
    modules = dict(net.named_modules())
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place = f"resnet.encoder.stages.{stage}.layers.{unit}"
            slim = f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            names |= {f"{place}.layer.{i}": [f"{slim}/conv{i + 1}"] for i in range(2 if description.basic else 3)}
            names[f"{place}.activation"] = [slim]
            if f"{place}.shortcut.convolution" in modules:
                names[f"{place}.shortcut"] = [f"{slim}/shortcut"]
    return record(net, state, names, images, scope, dtype)
