"""Weights of Keras Applications' ResNet50, 101 and 152, v1 and v2, under TF-Slim's names; and of its first ResNet50.

All tensors correspond one to one, except the biases that Keras' v1 has before each batch norm. The networks are
TF-Slim's, except for batch norm's epsilon and the padding of pool1. Keras' v1 strides in a block's first convolution
and its shortcut. Both are 1x1, so this is the same as TF-Slim's stride in the last unit of the previous block.

The ResNet50 of Keras 2's first releases is the v1 of today with other names and another epsilon.

Sources: Keras' ``applications/resnet.py`` and ``resnet_v2.py``; keras-applications' ``resnet50.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import listed
from refnet.errors import MissingTensorError
from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import Family, family_named, network_name
from refnet.network.shapes import hwio
from refnet.weights.formats.hdf5 import FORMAT_START
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, names_by_slim

_ROLES = {"kernel": "weights", "bias": "biases"}
_IN_UNIT = rf"(conv({NUMBER})_block({NUMBER})_|(res|bn){NUMBER}[a-z]_branch)"
_UNIT = re.compile(rf"conv({NUMBER})_block({NUMBER})_(preact_bn|[0-3]_conv|[0-3]_bn)\Z")
_EARLY_UNIT = re.compile(rf"(res|bn)({NUMBER})([a-z])_branch(1|2[abc])\Z")
_OF_UNIT = re.compile(
    r"(?P<scope>(?:.+/)?)" + _IN_UNIT + r"(?:(?<=_)(?:preact_bn|[0-3]_conv|[0-3]_bn)|(?<=h)(?:1|2[abc]))/[^/]+\Z"
)
#: The larger networks that others trained by these names.
_SCALED = re.compile(rf"(scale_conv1|scale{NUMBER}\w+_branch\w+|res{NUMBER}[a-z]{NUMBER}_branch\w+)\Z")
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
    remarks : list of str
        Other differences, in sentences.
    """

    family: Family
    ends: dict[str, str]
    in_unit: dict[str, str]
    options: dict[str, Any]
    recipe: Recipe
    remarks: list[str]


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
    [],
)
_V1 = Version(
    family_named("resnet_v1"),
    {"conv1_conv": "conv1", "conv1_bn": "conv1/BatchNorm", "predictions": "logits"},
    {"0_bn": "shortcut/BatchNorm", "3_bn": "conv3/BatchNorm", **_CONVOLUTIONS},
    {**_OPTIONS, "bias_before_batch_norm": True},
    Recipe(224, 224, 1.0, "caffe"),
    [],
)
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_EARLY = Version(
    family_named("resnet_v1"),
    {"conv1": "conv1", "bn_conv1": "conv1/BatchNorm", "fc1000": "logits"},
    {f"res_{branch}": name for branch, name in _BRANCHES.items()}
    | {f"bn_{branch}": f"{name}/BatchNorm" for branch, name in _BRANCHES.items()},
    {"batch_norm_epsilon": 1e-3, "pool_mode": "keras", "bias_before_batch_norm": True},
    Recipe(224, 224, 1.0, "caffe"),
    [
        "the first releases of Keras 2 have no padding before the max pool, and the tensors do not tell: "
        'for weights that they trained, pass pool_mode="valid"'
    ],
)


class Place(NamedTuple):
    """A layer of a unit, by its name: block and unit from 1, and the end of the name, as in `Version.in_unit`."""

    block: int
    unit: int
    end: str

    @classmethod
    def of(cls, layer: str) -> Place | None:
        """None: the layer is not in a unit."""
        if match := _UNIT.match(layer):
            return cls(int(match[1]) - 1, int(match[2]), match[3])
        if match := _EARLY_UNIT.match(layer):
            return cls(int(match[2]) - 1, ord(match[3]) - ord("a") + 1, f"{match[1]}_{match[4]}")
        return None


def _fits(loaded: Loaded) -> bool:
    """Whether tensors come from Keras' own formats, or have the names of Keras' layers in another format."""
    if loaded.format.startswith(FORMAT_START):
        return True
    return any(map(_OF_UNIT.match, loaded.tensors))


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    """Rename the tensors, named ``layer/role``, and give the dense layer at the end the shape of a convolution."""
    layers = {name.rpartition("/")[0] for name in tensors}
    places = [place for place in map(Place.of, layers) if place]
    if not places:
        names = listed(sorted(layers)) or "none"
        raise MissingTensorError(f"These are not the weights of Keras' ResNets; the layers are {names}.{_hint(layers)}")
    scaled = sorted(filter(_SCALED.match, layers))
    if scaled:
        raise MissingTensorError(
            "These are the weights of a ResNet of Keras 2 with layers that refnet does not have, or does not know by "
            f"these names: {listed(scaled)}. refnet has Keras Applications' ResNet50, by its old names too.",
            found=scaled,
        )
    version = _version(layers, {place.end for place in places})
    counts = {place.block: 0 for place in places}
    for place in places:
        counts[place.block] = max(counts[place.block], place.unit)
    scope = network_name(tuple(counts[block] for block in sorted(counts)), version.family)
    in_file = names_by_slim(tensors, scope, lambda name: _slim_name(name, scope, version))
    renamed = {slim: name for slim, name in in_file.items() if slim != name}
    result = {slim: tensors[name] for slim, name in in_file.items()}
    logits = f"{scope}/logits/weights"
    if logits in renamed:
        result[logits] = hwio(result[logits], outputs_first=False)
    inside = [name for slim, name in in_file.items() if slim == name and re.match(_IN_UNIT, name)]
    return Named(result, renamed, version.options, version.recipe, [], version.remarks, inside)


def _version(layers: set[str], ends: set[str]) -> Version:
    """The first version, if there is a batch norm that only it has, and none that only the second has."""
    if ends <= _EARLY.in_unit.keys():
        return _EARLY
    first = "conv1_bn" in layers or not ends.isdisjoint(_V1.in_unit.keys() - _V2.in_unit.keys())
    second = "post_bn" in layers or "preact_bn" in ends
    return _V1 if first and not second else _V2


def _hint(layers: set[str]) -> str:
    """What the file may be instead."""
    if any(layer.endswith("/vars") for layer in layers):
        return (
            " The .keras and .weights.h5 files of Keras 2 have no layer names: save as .h5 there "
            "(model.save_weights('x.h5'))."
        )
    return ""


def _slim_name(name: str, scope: str, version: Version) -> str | None:
    layer, _, role = name.rpartition("/")
    role = _ROLES.get(role, role)
    place = Place.of(layer)
    if place and place.end in version.in_unit:
        unit = f"block{place.block}/unit_{place.unit}/{version.family.unit_name}"
        return f"{scope}/{unit}/{version.in_unit[place.end]}/{role}"
    return f"{scope}/{version.ends[layer]}/{role}" if layer in version.ends else None


def _layers(layers: Collection[str]) -> Callable[[str], str | None]:
    """TF-Slim's names of layers, as `Home.layers` gives them."""
    ends = {place.end for place in map(Place.of, layers) if place}
    version = _version(set(layers), ends) if ends else _V2

    def slim_layer(layer: str) -> str | None:
        slim = _slim_name(f"{layer}/kernel", version.family.name, version)
        return None if slim is None else slim.rpartition("/")[0]

    return slim_layer


HOME = Home("Keras Applications", _fits, _read, _OF_UNIT, layers=_layers, in_unit=[*_V2.in_unit, *_V1.in_unit])
