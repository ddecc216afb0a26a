"""Weights of BiT, "Big Transfer", under TF-Slim's names: Google's own files, and Hugging Face's.

BiT is a ResNetV2 with group norm in place of batch norm, and with standardised kernels in all convolutions but the
classifier. Each block strides in its first unit, and a border of zeros takes part in pool1. There are no biases;
TF-Slim's become zeros. timm has BiT by its own names (`refnet.weights.homes.timm`).

Files of Google's network in TensorFlow 2 have the names of its .npz, but for the classifier's.

Sources: Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", 2020; google-research's
``big_transfer``, ``bit_pytorch/models.py`` and ``bit_tf2/models.py``; transformers' ``models/bit/modeling_bit.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import family_named, network_name
from refnet.network.shapes import hwio
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, missing_biases, names_by_slim
from refnet.weights.homes.standardize import standardized_kernels
from refnet.weights.homes.state_dict import StateDict, grouped

OPTIONS: dict[str, Any] = {"pool_mode": "keras", "stride_place": "first_unit"}
#: The convolutions that are not followed directly by a norm.
BIASED = re.compile(r"(?P<layer>(^|.*/)(conv3|shortcut)|^[^/]+/conv1)/weights\Z", re.DOTALL)
#: What the files of PyTorch's libraries add to the variance of kernels; Google's own code adds less.
EPSILON, _GOOGLES_EPSILON = 1e-8, 1e-10

_FAMILY = family_named("resnet_v2")
_HALVES = (0.5, 0.5, 0.5)

# Google's.

_UNIT_SCOPE = rf"block(?P<block>{NUMBER})/unit(?P<unit>0[1-9]|[1-9][0-9]{{1,3}})/"
_IN_UNIT = re.compile(_UNIT_SCOPE + r"(?P<layer>[abc]/(?:proj/)?(?:standardized_conv2d|group_norm))/(?P<role>\w+)\Z")
_OF_UNIT = re.compile(rf"(?P<scope>(?:.+/)?){_IN_UNIT.pattern}", re.DOTALL)
_LAYERS = {
    "a/group_norm": "preact", "a/proj/standardized_conv2d": "shortcut", "a/standardized_conv2d": "conv1",
    "b/group_norm": "conv1/GroupNorm", "b/standardized_conv2d": "conv2",
    "c/group_norm": "conv2/GroupNorm", "c/standardized_conv2d": "conv3",
}  # fmt: skip
_ENDS = {
    "root_block/standardized_conv2d": "conv1", "group_norm": "postnorm",
    "head/conv2d": "logits", "head/dense": "logits",
}  # fmt: skip
_ROLES = {"kernel": "weights", "bias": "biases", "gamma": "gamma", "beta": "beta"}


def _fits(loaded: Loaded) -> bool:
    return any(map(_OF_UNIT.match, loaded.tensors))


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    """Rename the tensors, standardise the kernels, and add the biases that the network lacks."""
    units: dict[int, int] = {}
    for match in filter(None, map(_IN_UNIT.match, tensors)):
        units[int(match["block"])] = max(units.get(int(match["block"]), 0), int(match["unit"]))
    scope = network_name(tuple(units[block] for block in sorted(units)), _FAMILY)
    in_file = names_by_slim(tensors, scope, lambda name: _slim_name(name, scope))
    renamed = {slim: name for slim, name in in_file.items() if slim != name}
    result = {slim: tensors[name] for slim, name in in_file.items()}
    logits = f"{scope}/logits/weights"
    if logits in renamed:
        result[logits] = hwio(result[logits], outputs_first=False)
    result, remark, moments = standardized_kernels(result, renamed, _GOOGLES_EPSILON)
    biases = missing_biases(result, BIASED)
    of_unit = re.compile(_UNIT_SCOPE)
    inside = [name for slim, name in in_file.items() if slim == name and of_unit.match(name)]
    named = Named(
        result | biases, renamed, OPTIONS, Recipe(480, 480, 1.0, "tf", None, "tensorflow2"), list(biases), [remark],
        inside,
        "BiT takes images of 128 x 128 pixels in place of 480 x 480 if it was fine-tuned on small images, which the "
        "tensors do not tell: pass a recipe then",
    )  # fmt: skip
    return named._replace(standardized=moments)


def _slim_name(name: str, scope: str) -> str | None:
    """TF-Slim's name of a tensor, or None."""
    match = _IN_UNIT.match(name)
    if match:
        place = f"block{match['block']}/unit_{int(match['unit'])}/{_FAMILY.unit_name}"
        layers, layer, role = {key: f"{place}/{slim}" for key, slim in _LAYERS.items()}, match["layer"], match["role"]
    else:
        layers, (layer, _, role) = _ENDS, name.rpartition("/")
    return f"{scope}/{layers[layer]}/{_ROLES[role]}" if layer in layers and role in _ROLES else None


def _layers(_: Collection[str]) -> Callable[[str], str | None]:
    """TF-Slim's names of layers, as `Home.layers` gives them."""

    def slim_layer(layer: str) -> str | None:
        slim = _slim_name(f"{layer}/{'gamma' if layer.endswith('group_norm') else 'kernel'}", _FAMILY.name)
        return None if slim is None else slim.rpartition("/")[0]

    return slim_layer


GOOGLE = Home("Google's BiT", _fits, _read, _OF_UNIT, layers=_layers, in_unit=list(_LAYERS))

# Hugging Face's.


def _options(_: Iterable[str]) -> dict[str, Any]:
    return OPTIONS


HUGGING_FACE = StateDict(
    title="Hugging Face's BiT",
    known='those of the layer_type "preactivation"',
    family=_FAMILY,
    unit=re.compile(
        rf"(bit\.)?encoder\.stages\.(?P<block>{NUMBER})\.layers\.(?P<unit>{NUMBER})\."
        r"(?P<layer>norm[123]|conv[123]|downsample\.conv)\.(?P<role>\w+)\Z"
    ),
    first_block=0,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.conv": "shortcut"},
    norms=grouped({"norm1": "preact", "norm2": "conv1/BatchNorm", "norm3": "conv2/BatchNorm"}),
    end_convolutions={"classifier.1": "logits", "embedder.convolution": "conv1", "bit.embedder.convolution": "conv1"},
    end_norms={"norm": "postnorm", "bit.norm": "postnorm"},
    variants={r"(^|\.)embedder\.norm\.|\.downsample\.norm\.": "norms after the convolutions (hybrid ViTs)"},
    unlike=lambda _: [],
    options=_options,
    recipe=Recipe(448, 448, 1.0, "torch", 448, "bilinear", _HALVES, _HALVES, "down"),
    biased=BIASED,
    standardized=EPSILON,
    untold="only config.json, which is not beside the file, tells some functions apart: refnet has that of 32 groups, "
    "with relu, without global_padding and embedding_dynamic_padding, and with an output_stride of 32",
).home()
