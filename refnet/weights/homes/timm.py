"""Weights of timm's ResNetV2 with batch norm under TF-Slim's names: ``resnetv2_18`` to 152, and their variants d.

The tensors correspond to TF-Slim's one to one, with their axes in another order, but the function differs: each stage
strides in its first unit, and pool1 pads both sides. timm's convolutions have no biases; TF-Slim's biases become zeros.

The variants d (and t, which has other widths) have three 3x3 convolutions in place of the 7x7 one. They have DeepLab's
names, ``conv1_1`` to ``conv1_3``. In units that stride, an average pool comes before the shortcut's convolution.

Source: timm's ``models/resnetv2.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import family_named
from refnet.weights.homes.state_dict import StateDict

_DEEP_STEM = "stem.conv1.weight"


def _options(names: Iterable[str]) -> dict[str, Any]:
    options = {"pool_mode": "torch", "stride_place": "first_unit"}
    return options | ({"avg_down": True} if _DEEP_STEM in names else {})


#: timm's own sides: 224 pixels are 0.9 of them, or elsewhere 0.95 (for 235) or 0.875 (for 256).
_BASIC_SIDES = {"resnet_v2_18": 248, "resnet_v2_34": 248}
_HALVES = (0.5, 0.5, 0.5)


def _adapted(home: StateDict, names: Collection[str]) -> StateDict:
    """Of the deeper networks with a deep stem timm has no weights, and so no sides of their own."""
    return home._replace(resize_sides=_BASIC_SIDES) if _DEEP_STEM in names else home


def _unlike(tensors: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    if not any(name.endswith(".running_mean") for name in tensors):
        found.append("no moving statistics, as with group norm (BiT, _gn)")
    return found


HOME = StateDict(
    title="timm's ResNetV2",
    known="resnetv2_18, 34, 50, 101, 152, and their variants d",
    family=family_named("resnet_v2"),
    unit=re.compile(rf"stages\.(?P<block>{NUMBER})\.blocks\.(?P<unit>{NUMBER})\.(?P<layer>.+)\.(?P<role>\w+)\Z"),
    first_block=0,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.conv": "shortcut"},
    norms={"norm1": "preact", "norm2": "conv1/BatchNorm", "norm3": "conv2/BatchNorm"},
    end_convolutions={"stem.conv": "conv1", "head.fc": "logits"} | {f"stem.conv{i}": f"conv1_{i}" for i in (1, 2, 3)},
    end_norms={"norm": "postnorm"} | {f"stem.norm{i}": f"conv1_{i}/BatchNorm" for i in (1, 2)},
    variants={
        r"\.norm1\.v$": "EvoNorm (_evos)",
        r"\.norm1\.tau$": "filter response norm (_frn)",
        r"^stem\.norm3?\.": "batch norm after the convolutions (the stems of hybrid ViTs)",
    },
    unlike=_unlike,
    options=_options,
    recipe=Recipe(224, 224, 1.0, "torch", 256, "bicubic", _HALVES, _HALVES),
    resize_sides=_BASIC_SIDES | {"resnet_v2_50": 235, "resnet_v2_101": 235},
    adapted=_adapted,
    # The convolutions that are not followed directly by a batch norm.
    biased=re.compile(r"(?P<layer>(^|.*/)(conv3|shortcut|basic_v2/conv2)|^[^/]+/conv1(_3)?)/weights$"),
).home()
