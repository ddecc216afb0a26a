"""Weights of timm's ResNetV2 under TF-Slim's names: ``resnetv2_18`` to 152, their variants d, BiT, ``resnetv2_50d_gn``.

The tensors correspond to TF-Slim's one to one, with their axes in another order, but the function differs: each stage
strides in its first unit, and pool1 pads both sides. timm's convolutions have no biases; TF-Slim's biases become zeros.

The variants d (and t, which has other widths) have three 3x3 convolutions in place of the 7x7 one. They have DeepLab's
names, ``conv1_1`` to ``conv1_3``. In units that stride, an average pool comes before the shortcut's convolution.

Networks with group norm have no moving statistics. With a 7x7 convolution at the root it is BiT, which standardises its
kernels (`refnet.weights.homes.bit`); the variant d has plain ones. A network with batch norm that was saved without its
statistics has the same names and shapes: only the architecture's name in timm's ``config.json`` is proof.

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
from refnet.weights.homes import bit
from refnet.weights.homes.state_dict import StateDict, grouped


def _options(names: Iterable[str]) -> dict[str, Any]:
    if not _has_deep_stem(names) and not _has_batch_norm(names):
        return bit.OPTIONS
    options = {"pool_mode": "torch", "stride_place": "first_unit"}
    return options | ({"avg_down": True} if _has_deep_stem(names) else {})


def _has_deep_stem(names: Iterable[str]) -> bool:
    return "stem.conv1.weight" in names


def _has_batch_norm(names: Iterable[str]) -> bool:
    return any(name.endswith((".running_mean", ".running_var", ".num_batches_tracked")) for name in names)


_HALVES = (0.5, 0.5, 0.5)
#: timm's own sides: 224 pixels are 0.9 of them, or elsewhere 0.95 (for 235) or 0.875 (for 256).
_BASIC_SIDES = {"resnet_v2_18": 248, "resnet_v2_34": 248}
#: For timm's BiT: for the weights that were fine-tuned, and for those with ImageNet-21k's classes.
_BIT = Recipe(448, 448, 1.0, "torch", 448, "bilinear", _HALVES, _HALVES)
_BIT_21K = _BIT._replace(height=224, width=224, resize_side=256)
_UNSETTLED = (
    "the network has no moving statistics, so it was taken for timm's {network}, with group norm and {kernels}; a "
    "network with batch norm that was saved without its statistics looks the same, and only timm's config.json beside "
    "model.safetensors or pytorch_model.bin can tell"
)


def _adapted(home: StateDict, names: Collection[str]) -> StateDict:
    """Of the deeper networks with a deep stem timm has no weights, and so no sides of their own."""
    return home._replace(resize_sides=_BASIC_SIDES) if _has_deep_stem(names) else home


def _by_tensors(home: StateDict, tensors: Mapping[str, np.ndarray]) -> StateDict:
    """The networks with group norm."""
    if _has_batch_norm(tensors):
        return home
    home = home._replace(norms=grouped(home.norms), end_norms=grouped(home.end_norms))
    if _has_deep_stem(tensors):
        unsettled = _UNSETTLED.format(network="resnetv2_50d_gn", kernels="plain kernels")
        return home._replace(resize_sides={"resnet_v2_50": 235}, unsettled=unsettled)
    classes = np.shape(tensors.get("head.fc.weight", ()))[:1]
    recipe = _BIT_21K if classes == (21843,) else _BIT
    return home._replace(
        recipe=recipe, resize_sides={}, standardized=bit.EPSILON,
        unsettled=_UNSETTLED.format(network="BiT", kernels="standardised kernels"),
    )  # fmt: skip


def _unlike(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """No network of timm's has group norm in basic units; and its groups are 32."""
    norms = [tensor for name, tensor in tensors.items() if _NORM.search(name)]
    basic = not any(map(_THIRD.search, tensors))
    if _has_batch_norm(tensors) or (not basic and all(norm.size % 32 == 0 for norm in norms)):
        return []
    return [f"no moving statistics, in {'basic units' if basic else 'channels that are no multiple of 32'}"]


_THIRD = re.compile(r"\.blocks\.\d+\.conv3\.")
_NORM = re.compile(r"(^|\.)norm[123]?\.weight\Z")

HOME = StateDict(
    title="timm's ResNetV2",
    known="resnetv2_18, 34, 50, 101, 152, their variants d, resnetv2_50d_gn, and BiT",
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
    by_tensors=_by_tensors,
    # The convolutions that are not followed directly by a batch norm.
    biased=re.compile(r"(?P<layer>(^|.*/)(conv3|shortcut|basic_v2/conv2)|^[^/]+/conv1(_3)?)/weights$"),
).home()
