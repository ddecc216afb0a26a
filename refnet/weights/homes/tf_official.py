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
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named

_LAYER = re.compile(
    r"^(?P<scope>.+/)?(?P<kind>conv2d|batch_normalization|dense)(_(?P<number>" + NUMBER + r"))?/"
    r"(?P<role>kernel|bias|gamma|beta|moving_mean|moving_variance)\Z",
    re.DOTALL,
)
_CONVOLUTION = re.compile(rf"(?P<scope>(?:.+/)?)conv2d(?:_{NUMBER})?/kernel\Z", re.DOTALL)
_ROLES = {"kernel": "weights", "bias": "biases"}


class Layers(NamedTuple):
    """Scopes in the file, in the order of creation, with the kernels' sizes."""

    convolutions: list[str]
    sizes: list[int]
    norms: list[str]
    dense: str | None


def _fits(loaded: Loaded) -> bool:
    matches = [match for match in map(_LAYER.match, loaded.tensors) if match]
    return {"conv2d", "batch_normalization"} <= {match["kind"] for match in matches}


def _read(tensors: Mapping[str, np.ndarray]) -> Named:
    layers = _layers(tensors)
    places = _places(layers)
    result: dict[str, np.ndarray] = {}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, role = name.rpartition("/")
        slim = f"{places[layer]}/{_ROLES.get(role, role)}" if layer in places else name
        if layer == layers.dense and tensor.ndim == 2:
            tensor = tensor[np.newaxis, np.newaxis]
        result[slim] = tensor
        if slim != name:
            renamed[slim] = name
    normalized = set(places.values())
    biases = {
        f"{place}/biases": np.zeros(result[f"{place}/weights"].shape[-1:], np.float32)
        for place in places.values()
        if f"{place}/weights" in result and f"{place}/biases" not in result and f"{place}/BatchNorm" not in normalized
    }
    remark = "the official models cut the resized side off to a whole number of pixels, where refnet rounds it"
    options = {"stride_place": "first_unit"}
    return Named(result | biases, renamed, options, VGG, list(biases), [remark])


def _layers(tensors: Mapping[str, np.ndarray]) -> Layers:
    found: dict[str, dict[int, str]] = {"conv2d": {}, "batch_normalization": {}, "dense": {}}
    scopes = set()
    for match in filter(None, map(_LAYER.match, tensors)):
        found[match["kind"]][int(match["number"] or 0)] = match.string.rpartition("/")[0]
        scopes.add(match["scope"] or "")
    if len(scopes) > 1:
        raise _unknown(f"they are below {', '.join(map(repr, sorted(scopes)))}")
    for kind, numbered in found.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise _unknown(f"a {kind} is missing between {min(numbered)} and {max(numbered)}")
    convolutions, norms, dense = ([numbered[i] for i in range(len(numbered))] for numbered in found.values())
    shapes = [np.shape(tensors.get(f"{layer}/kernel", ())) for layer in convolutions]
    sizes = [shape[0] if len(shape) == 4 and shape[0] == shape[1] else 0 for shape in shapes]
    if len(dense) > 1:
        raise _unknown(f"there are {len(dense)} dense layers")
    return Layers(convolutions, sizes, norms, dense[0] if dense else None)


def _places(layers: Layers) -> dict[str, str]:
    """TF-Slim's name of each layer."""
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
    pairs += [(layers.dense, "logits")] if layers.dense else []
    return {layer: f"{scope}/{name}" for layer, name in pairs}


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


HOME = Home("TensorFlow's official ResNet", _fits, _read, _CONVOLUTION)
