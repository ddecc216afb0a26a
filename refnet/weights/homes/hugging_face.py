"""Weights of Hugging Face's ``ResNetForImageClassification`` (v1.5) under TF-Slim's names for v1.

The tensors correspond to TF-Slim's one to one, with their axes in another order. The function is that of PyTorch's
ResNets: each block strides in the first 3x3 convolution and the shortcut of its first unit, and pool1 pads both sides.
What the model's ``config.json`` may change in it leaves the tensors as they are (`refnet.weights.config`).

Source: transformers' ``models/resnet/modeling_resnet.py``.
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
    """A first stage that strides can be seen only where its shortcut is a convolution that keeps the depth."""
    shortcut = re.compile(r"(^|\.)encoder\.stages\.0\.layers\.0\.shortcut\.convolution\.weight$")
    kernels = [kernel for name, kernel in tensors.items() if shortcut.search(name)]
    if any(kernel.ndim == 4 and kernel.shape[0] == kernel.shape[1] for kernel in kernels):
        return ["a first stage that strides (downsample_in_first_stage)"]
    return []


HOME = StateDict(
    title="Hugging Face's ResNet",
    known="those that stride in the first unit of each stage but the first one",
    family=family_named("resnet_v1"),
    unit=re.compile(
        rf"(resnet\.)?encoder\.stages\.(?P<block>{NUMBER})\.layers\.(?P<unit>{NUMBER})\."
        rf"(?P<layer>(layer\.{NUMBER}|shortcut)\.(convolution|normalization))\.(?P<role>\w+)\Z"
    ),
    first_block=0,
    convolutions={"shortcut.convolution": "shortcut"} | {f"layer.{i}.convolution": f"conv{i + 1}" for i in range(3)},
    norms={"shortcut.normalization": "shortcut/BatchNorm"}
    | {f"layer.{i}.normalization": f"conv{i + 1}/BatchNorm" for i in range(3)},
    end_convolutions={"classifier.1": "logits"}
    | {f"{scope}embedder.embedder.convolution": "conv1" for scope in ("", "resnet.")},
    end_norms={f"{scope}embedder.embedder.normalization": "conv1/BatchNorm" for scope in ("", "resnet.")},
    variants={},
    unlike=_unlike,
    options=_options,
    recipe=Recipe(224, 224, 1.0, "torch", 256, "bicubic", crop_offset="down"),
    untold="only config.json, which is not beside the file, tells some functions apart: if downsample_in_bottleneck is "
    'true there, pass stride_place="first_conv"; if downsample_in_first_stage is true, or hidden_act is not "relu", '
    "refnet does not have the network",
).home()
