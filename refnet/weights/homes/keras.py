"""Weights of Keras Applications' ResNet50, 101 and 152, v1 and v2, under TF-Slim's names.

All tensors correspond one to one, except the biases that Keras' v1 has before each batch norm. The networks are
TF-Slim's, except for batch norm's epsilon and the padding of pool1. Keras' v1 strides in a block's first convolution
and its shortcut. Both are 1x1, so this is the same as TF-Slim's stride in the last unit of the previous block.

Source: Keras' ``applications/resnet.py`` and ``resnet_v2.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.errors import MissingTensorError
from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import Family, family_named, network_name
from refnet.weights.formats.hdf5 import FORMAT_START
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, names_by_slim

_ROLES = {"kernel": "weights", "bias": "biases"}
_IN_UNIT = rf"conv({NUMBER})_block({NUMBER})_"
_UNIT = re.compile(_IN_UNIT + r"(preact_bn|[0-3]_conv|[0-3]_bn)\Z")
_OF_UNIT = re.compile(r"(?P<scope>(?:.+/)?)" + _IN_UNIT + r"(preact_bn|[0-3]_conv|[0-3]_bn)/[^/]+\Z")
_OPTIONS: dict[str, Any] = {"batch_norm_epsilon": 1.001e-5, "pool_mode": "keras"}


class Version(NamedTuple):
    """A version of Keras' networks: TF-Slim's names for its layers, its options and its recipe.

    Attributes
    ----------
    family : Family
    ends : dict of str to str
        TF-Slim's names for the layers outside the units.
    in_unit : dict of str to str
        TF-Slim's names for the layers of a unit, by the end of Keras' name.
    options : dict of str to Any
        As in `refnet.Weights`.
    recipe : Recipe
    """

    family: Family
    ends: dict[str, str]
    in_unit: dict[str, str]
    options: dict[str, Any]
    recipe: Recipe


_CONVOLUTIONS = {
    "0_conv": "shortcut",
    "1_conv": "conv1",
    "1_bn": "conv1/BatchNorm",
    "2_conv": "conv2",
    "2_bn": "conv2/BatchNorm",
    "3_conv": "conv3",
}
_V2 = Version(
    family_named("resnet_v2"),
    {"conv1_conv": "conv1", "post_bn": "postnorm", "predictions": "logits"},
    {"preact_bn": "preact", **_CONVOLUTIONS},
    _OPTIONS,
    Recipe(224, 224, 1.0, "tf"),
)
_V1 = Version(
    family_named("resnet_v1"),
    {"conv1_conv": "conv1", "conv1_bn": "conv1/BatchNorm", "predictions": "logits"},
    {"0_bn": "shortcut/BatchNorm", "3_bn": "conv3/BatchNorm", **_CONVOLUTIONS},
    {**_OPTIONS, "bias_before_batch_norm": True},
    Recipe(224, 224, 1.0, "caffe"),
)


def _fits(loaded: Loaded) -> bool:
    """Whether tensors come from Keras' own formats, or have the names of Keras' layers in another format."""
    if loaded.format.startswith(FORMAT_START):
        return True
    return any(map(_OF_UNIT.match, loaded.tensors))


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    """Rename the tensors, named ``layer/role``, and give the dense layer at the end the shape of a convolution."""
    layers = {name.rpartition("/")[0] for name in tensors}
    units = [match for match in map(_UNIT.match, layers) if match]
    if not units:
        names = ", ".join(sorted(layers)[:8]) or "none"
        raise MissingTensorError(f"These are not the weights of Keras' ResNets; the layers are {names}.{_hint(layers)}")
    version = _version(layers)
    counts = {int(match[1]): 0 for match in units}
    for match in units:
        counts[int(match[1])] = max(counts[int(match[1])], int(match[2]))
    scope = network_name(tuple(counts[stack] for stack in sorted(counts)), version.family)
    in_file = names_by_slim(tensors, scope, lambda name: _slim_name(name, scope, version))
    renamed = {slim: name for slim, name in in_file.items() if slim != name}
    result = {slim: tensors[name] for slim, name in in_file.items()}
    logits = f"{scope}/logits/weights"
    if logits in renamed and result[logits].ndim == 2:
        result[logits] = result[logits][np.newaxis, np.newaxis]
    inside = [name for slim, name in in_file.items() if slim == name and re.match(_IN_UNIT, name)]
    return Named(result, renamed, version.options, version.recipe, [], [], inside)


def _version(layers: set[str]) -> Version:
    """The first version, if there is a batch norm that only it has, and none that only the second has."""
    ends = {match[3] for match in map(_UNIT.match, layers) if match}
    first = "conv1_bn" in layers or not ends.isdisjoint(_V1.in_unit.keys() - _V2.in_unit.keys())
    second = "post_bn" in layers or "preact_bn" in ends
    return _V1 if first and not second else _V2


def _hint(layers: set[str]) -> str:
    """What the file may be instead."""
    if any(layer.endswith("/vars") for layer in layers):
        return " The .keras files of Keras 2 have no layer names: save as .h5."
    if any(layer.startswith("res2a_branch") for layer in layers):
        return (
            " This is the ResNet50 of Keras' early releases, with another epsilon: "
            "load the file that Keras Applications publishes under that name today."
        )
    return ""


def _slim_name(name: str, scope: str, version: Version) -> str | None:
    layer, _, role = name.rpartition("/")
    role = _ROLES.get(role, role)
    match = _UNIT.match(layer)
    if match and match[3] in version.in_unit:
        unit = f"block{int(match[1]) - 1}/unit_{match[2]}/{version.family.unit_name}"
        return f"{scope}/{unit}/{version.in_unit[match[3]]}/{role}"
    return f"{scope}/{version.ends[layer]}/{role}" if layer in version.ends else None


HOME = Home("Keras Applications", _fits, _read, _OF_UNIT)
