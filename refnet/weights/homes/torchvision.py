"""Weights of torchvision's ResNet-50, 101 and 152 (v1.5) under TF-Slim's names for v1.

The tensors correspond to TF-Slim's one to one, with their axes in another order, but the function differs: each block
strides in the 3x3 convolution and the shortcut of its first unit, and pool1 pads both sides. timm's ResNets, and many
others, have the same names.

Source: torchvision's ``models/resnet.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import family_named
from refnet.weights.homes.state_dict import StateDict


def _options(_: Iterable[str]) -> dict[str, Any]:
    return {"pool_mode": "torch", "stride_place": "first_unit"}


def _unlike(tensors: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    if "layer1.0.conv3.weight" not in tensors:
        found.append("units of two convolutions (resnet18, resnet34)")
    kernel = tensors.get("layer1.0.conv2.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[0] != kernel.shape[1]:
        found.append("convolutions in groups (ResNeXt)")
    return found


HOME = StateDict(
    title="PyTorch's ResNet v1",
    known="torchvision's resnet50, resnet101 and resnet152",
    family=family_named("resnet_v1"),
    unit=re.compile(rf"layer(?P<block>{NUMBER})\.(?P<unit>{NUMBER})\.(?P<layer>.+)\.(?P<role>\w+)\Z"),
    first_block=1,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.0": "shortcut"},
    norms={f"bn{i}": f"conv{i}/BatchNorm" for i in (1, 2, 3)} | {"downsample.1": "shortcut/BatchNorm"},
    end_convolutions={"conv1": "conv1", "fc": "logits"},
    end_norms={"bn1": "conv1/BatchNorm"},
    variants={
        r"^conv1\.0\.": "a stem of three convolutions (the variants d, t and s)",
        r"\.se\.": "squeeze and excitation",
        r"\.downsample\.2\.": "an average pool in the shortcut",
    },
    unlike=_unlike,
    options=_options,
    recipe=Recipe(224, 224, 1.0, "torch", 256),
    remark="torchvision smooths the images that it shrinks; refnet's recipe does not",
).home()
