"""Weights of the official ResNets of the TensorFlow models repository (``official/r1/resnet``) under TF-Slim's names.

Their variables are numbered in the order of their creation: ``conv2d``, ``conv2d_1``, ..., ``batch_normalization``,
``batch_normalization_1``, ... That order is the network's own, with the shortcut's convolution before those of its
unit. Each first unit of a block has one, and strides. There are no biases; TF-Slim's become zeros.

Source: tensorflow/models, ``official/r1/resnet/resnet_model.py`` and ``imagenet_preprocessing.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from refnet.errors import MissingTensorError
from refnet.images.preprocess import VGG
from refnet.network.names import NUMBER
from refnet.network.networks import Family, family_named, network_name
from refnet.network.shapes import hwio
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, names_by_slim

_NUMBERED = rf"(?P<kind>conv2d|batch_normalization)(_(?P<number>{NUMBER}))?/"
_LAYER = re.compile(_NUMBERED + r"(kernel|bias|gamma|beta|moving_mean|moving_variance)\Z")
_UNIT = re.compile(r"(?P<scope>(?:.+/)?)" + _LAYER.pattern)
_DENSE = "dense"
_ROLES = {"kernel": "weights", "bias": "biases"}


class Layers(NamedTuple):
    """Names in the order of creation, and the kernels' sizes."""

    convolutions: list[str]
    sizes: list[int]
    norms: list[str]


def _fits(loaded: Loaded) -> bool:
    matches = [match for match in map(_UNIT.match, loaded.tensors) if match]
    return {"conv2d", "batch_normalization"} <= {match["kind"] for match in matches}


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    scope, places = _places(_layers(tensors))

    def slim_name(name: str) -> str | None:
        layer, _, role = name.rpartition("/")
        return f"{scope}/{places[layer]}/{_ROLES.get(role, role)}" if layer in places else None

    in_file = names_by_slim(tensors, scope, slim_name)
    renamed = {slim: name for slim, name in in_file.items() if slim != name}
    result = {slim: tensors[name] for slim, name in in_file.items()}
    logits = f"{scope}/logits/weights"
    if logits in renamed:
        result[logits] = hwio(result[logits], outputs_first=False)
    normalized = set(places.values())
    biases = {
        f"{scope}/{place}/biases": np.zeros(result[f"{scope}/{place}/weights"].shape[-1:], np.float32)
        for place in places.values()
        if f"{scope}/{place}/weights" in result and place != "logits" and f"{place}/BatchNorm" not in normalized
    }
    biases = {name: zeros for name, zeros in biases.items() if name not in result}
    remark = "the official models cut the resized side off to a whole number of pixels, where refnet rounds it"
    options = {"stride_place": "first_unit"}
    return Named(result | biases, renamed, options, VGG, list(biases), [remark])


def _layers(tensors: Mapping[str, np.ndarray]) -> Layers:
    found: dict[str, dict[int, str]] = {"conv2d": {}, "batch_normalization": {}}
    for match in filter(None, map(_LAYER.match, tensors)):
        layer, number = match.string.rpartition("/")[0], int(match["number"] or 0)
        if found[match["kind"]].setdefault(number, layer) != layer:
            raise _unknown(f"{found[match['kind']][number]} and {layer} have one number")
    for kind, numbered in found.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise _unknown(f"a {kind} is missing between {min(numbered)} and {max(numbered)}")
    convolutions, norms = ([numbered[i] for i in range(len(numbered))] for numbered in found.values())
    shapes = [np.shape(tensors.get(f"{layer}/kernel", ())) for layer in convolutions]
    sizes = [shape[0] if len(shape) == 4 and shape[0] == shape[1] else 0 for shape in shapes]
    return Layers(convolutions, sizes, norms)


def _places(layers: Layers) -> tuple[str, dict[str, str]]:
    """The network's name, and TF-Slim's name of each layer."""
    basic = layers.sizes[1:4] == [1, 3, 3]
    kernels = [3, 3] if basic else [1, 3, 1]
    units = list(_units(layers.sizes[1:], kernels))
    blocks: list[int] = []
    for projects in units:
        if projects:
            blocks.append(1)
        elif blocks:
            blocks[-1] += 1
    # Before the convolutions, all but the root's and the shortcuts' have a batch norm, and so has the end; after them,
    # all have one.
    expected = {2: len(layers.sizes) - len(blocks), 1: len(layers.sizes)}
    version = next((version for version, count in expected.items() if count == len(layers.norms)), None)
    if layers.sizes[0] != 7 or not blocks or not units[0] or version is None:
        raise _unknown(
            f"there are {len(layers.norms)} batch norms and kernels of the sizes {', '.join(map(str, layers.sizes))}"
        )
    family = family_named(f"resnet_v{version}")
    family = family.basic if basic else family
    scope = network_name(tuple(blocks), family)
    convolutions = ["conv1"]
    norms = ["conv1/BatchNorm"] if version == 1 else []
    for place, projects in _named(blocks, family):
        names = [f"{place}/shortcut"] if projects else []
        names += [f"{place}/conv{i}" for i in range(1, len(kernels) + 1)]
        convolutions += names
        if version == 1:
            norms += [f"{name}/BatchNorm" for name in names]
        else:
            norms += [f"{place}/preact", *(f"{place}/conv{i}/BatchNorm" for i in range(1, len(kernels)))]
    norms += ["postnorm"] if version == 2 else []
    pairs = [*zip(layers.convolutions, convolutions, strict=True), *zip(layers.norms, norms, strict=True)]
    return scope, {**dict(pairs), _DENSE: "logits"}


def _units(sizes: Sequence[int], kernels: Sequence[int]) -> Iterator[bool]:
    """For each unit, whether a shortcut's kernel comes before its own."""
    at = 0
    while at < len(sizes):
        projects = list(sizes[at : at + 1 + len(kernels)]) == [1, *kernels]
        at += projects
        if list(sizes[at : at + len(kernels)]) != list(kernels):
            raise _unknown(f"the kernels' sizes are {', '.join(map(str, sizes))}")
        at += len(kernels)
        yield projects


def _named(blocks: Sequence[int], family: Family) -> Iterator[tuple[str, bool]]:
    """The name of each unit, and whether it is the first one of its block."""
    for block, count in enumerate(blocks, 1):
        for unit in range(1, count + 1):
            yield f"block{block}/unit_{unit}/{family.unit_name}", unit == 1


def _unknown(what: str) -> MissingTensorError:
    return MissingTensorError(
        "The tensors are numbered as in the official ResNets of the TensorFlow models repository, but are not those of "
        f"one: {what}. refnet has its v1 and v2 for ImageNet, of 18 to 200 layers.",
        found=what,
    )


HOME = Home("TensorFlow's official ResNet", _fits, _read, _UNIT)
