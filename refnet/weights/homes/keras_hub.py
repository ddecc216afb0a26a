"""Weights of KerasHub's ResNets, v1 and v2, of either kind of unit, under TF-Slim's names.

KerasHub runs the weights that timm trained, and its function is timm's: each stack strides in its first unit, and pool1
pads both sides. There are no biases; TF-Slim's become zeros. The variants vd have three 3x3 convolutions at the root,
and in the first version an average pool before the shortcut's convolution in units that stride.

Source: keras-hub's ``models/resnet/resnet_backbone.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import Family, family_named, network_name
from refnet.network.shapes import hwio
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, missing_biases, names_by_slim

_UNIT = re.compile(
    rf"stack(?P<stack>{NUMBER})_block(?P<block>{NUMBER})_(?P<layer>pre_activation_bn|[0-3]_conv|[0-3]_bn)\Z"
)
_OF_UNIT = re.compile(
    rf"(?P<scope>(?:.+/)?)stack{NUMBER}_block{NUMBER}_(?:pre_activation_bn|[0-3]_conv|[0-3]_bn)/[^/]+\Z", re.DOTALL
)
_ROLES = {"kernel": "weights", "bias": "biases"}
_IN_UNIT = {"pre_activation_bn": "preact"}
_IN_UNIT |= {f"{i}_conv": name for i, name in enumerate(("shortcut", "conv1", "conv2", "conv3"))}
_IN_UNIT |= {f"{i}_bn": f"{name}/BatchNorm" for i, name in enumerate(("shortcut", "conv1", "conv2", "conv3"))}
_ENDS = {"post_bn": "postnorm", "predictions": "logits"}
_PLAIN = {"conv1_conv": "conv1", "conv1_bn": "conv1/BatchNorm"}
_DEEP = {f"conv{i}_conv": f"conv1_{i}" for i in (1, 2, 3)} | {f"conv{i}_bn": f"conv1_{i}/BatchNorm" for i in (1, 2, 3)}
#: The convolutions of the second version that are not followed directly by a batch norm.
_BIASED = re.compile(r"(?P<layer>(?:.*/)?(?:conv3|shortcut|basic_v2/conv2)|[^/]+/conv1(?:_3)?)/weights\Z")
_RECIPES = {"resnet_v1": Recipe(224, 224, 1.0, "torch"), "resnet_v2": Recipe(224, 224, 1.0, "inception")}


def _fits(loaded: Loaded) -> bool:
    return any(map(_OF_UNIT.match, loaded.tensors))


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    """Rename the tensors, named ``layer/role``, and add the biases that the network lacks."""
    layers = {name.rpartition("/")[0] for name in tensors}
    units = [match for match in map(_UNIT.match, layers) if match]
    second = "post_bn" in layers or any(match["layer"] == "pre_activation_bn" for match in units)
    family = family_named("resnet_v2" if second else "resnet_v1")
    family = family if any(match["layer"] == "3_conv" for match in units) else family.basic
    deep = "conv2_conv" in layers
    counts: dict[int, int] = {}
    for match in units:
        counts[int(match["stack"])] = max(counts.get(int(match["stack"]), 0), int(match["block"]) + 1)
    scope = network_name(tuple(counts[stack] for stack in sorted(counts)), family)
    ends = _ENDS | (_DEEP if deep else _PLAIN)
    in_file = names_by_slim(tensors, scope, lambda name: _slim_name(name, scope, family, ends))
    renamed = {slim: name for slim, name in in_file.items() if slim != name}
    result = {slim: tensors[name] for slim, name in in_file.items()}
    logits = f"{scope}/logits/weights"
    if logits in renamed:
        result[logits] = hwio(result[logits], outputs_first=False)
    biases = missing_biases(result, _BIASED) if second else {}
    options: dict[str, Any] = {"pool_mode": "torch", "stride_place": "first_unit"}
    remarks = ["KerasHub's presets bring their own resize; refnet's recipe is TensorFlow 1's bilinear one"]
    if deep and not second:
        options["avg_down"] = True
        remarks.append(
            "a deep stem is taken for a variant vd, whose shortcuts pool where they stride; the tensors do not tell: "
            "if the backbone's block_type does not end in _vd, pass avg_down=False"
        )
    inside = [name for slim, name in in_file.items() if slim == name and _OF_UNIT.match(name)]
    return Named(result | biases, renamed, options, _RECIPES[family.name], list(biases), remarks, inside)


def _slim_name(name: str, scope: str, family: Family, ends: Mapping[str, str]) -> str | None:
    layer, _, role = name.rpartition("/")
    role = _ROLES.get(role, role)
    if match := _UNIT.match(layer):
        unit = f"block{int(match['stack']) + 1}/unit_{int(match['block']) + 1}/{family.unit_name}"
        return f"{scope}/{unit}/{_IN_UNIT[match['layer']]}/{role}"
    return f"{scope}/{ends[layer]}/{role}" if layer in ends else None


def _layers(layers: Collection[str]) -> Callable[[str], str | None]:
    """TF-Slim's names of layers, as `Home.layers` gives them."""
    family = family_named("resnet_v2")
    ends = _ENDS | (_DEEP if "conv2_conv" in layers else _PLAIN)

    def slim_layer(layer: str) -> str | None:
        slim = _slim_name(f"{layer}/kernel", family.name, family, ends)
        return None if slim is None else slim.rpartition("/")[0]

    return slim_layer


HOME = Home("KerasHub's ResNet", _fits, _read, _OF_UNIT, layers=_layers, in_unit=list(_IN_UNIT))
