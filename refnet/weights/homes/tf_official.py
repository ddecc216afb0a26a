"""Weights under TF-Slim's names of the official ResNets of the TensorFlow models repository (``official/r1/resnet``),
and of those that have the same layers: the TPU models' and SimCLR's.

Their variables are numbered in the order of their creation: ``conv2d``, ``conv2d_1``, ..., ``batch_normalization``,
``batch_normalization_1``, ... That order is the network's own, with the shortcut's convolution before those of its
unit. Each first unit of a block has one, and strides. There are no biases; TF-Slim's become zeros.

SimCLR's network is below ``base_model``, with its classifier ``head_supervised`` and its projection head
``head_contrastive`` beside it. In TensorFlow 2 it is below ``resnet``, with scopes for blocks, units and layers. There
the numbers count the layers of a process, so they can start anywhere.

Sources: tensorflow/models, ``official/r1/resnet/resnet_model.py`` and ``imagenet_preprocessing.py``;
tensorflow/tpu, ``models/official/resnet/resnet_main.py``; google-research/simclr, ``resnet.py``, ``model_util.py`` and
``data_util.py``, and in its ``tf2`` ``resnet.py`` and ``model.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from refnet.errors import MissingTensorError
from refnet.images.preprocess import VGG, Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import Family, family_named, network_name
from refnet.network.shapes import hwio
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, names_by_slim

_LAYERS = rf"(?P<kind>conv2d|batch_normalization)(_(?P<number>{NUMBER}))?/"
_LAYERS += r"(kernel|bias|gamma|beta|moving_mean|moving_variance)\Z"
_ROLES = {"kernel": "weights", "bias": "biases"}


class Model(NamedTuple):
    """A model of such layers.

    Attributes
    ----------
    title : str
    whose : str
        The model and its home, in the error for others.
    prefix : str
        A pattern of what stands before the names of all layers but the classifier's.
    dense : str
        A pattern of the classifier's name.
    recipe : Recipe
    remark : str
        How the home's pixels differ.
    other_head : str
        A pattern of what stands before the names of a head that does not lead to the classifier, or "".
    head_remark : str
        What to know where there is such a head.
    variants : dict of str to str
        What networks are that refnet does not have, by patterns of which one is in some name.
    """

    title: str
    whose: str
    prefix: str
    dense: str
    recipe: Recipe
    remark: str
    other_head: str = ""
    head_remark: str = ""
    variants: Mapping[str, str] = {}

    def home(self) -> Home:
        """The row of `refnet.weights.homes.HOMES`.

        Returns
        -------
        Home
        """
        unit = re.compile(rf"(?P<scope>(?:[^/]*/)*?){self.prefix}{_LAYERS}")

        def fits(loaded: Loaded) -> bool:
            matches = [match for match in map(unit.match, loaded.tensors) if match]
            return {"conv2d", "batch_normalization"} <= {match["kind"] for match in matches}

        # A batch norm can stand in a head, below a scope of its own.
        convolution = re.compile(unit.pattern.replace("conv2d|batch_normalization", "conv2d"))
        return Home(self.title, fits, partial(_read, self), convolution)


class Layers(NamedTuple):
    """Names in the order of creation, and the kernels' sizes."""

    convolutions: list[str]
    sizes: list[int]
    norms: list[str]


def _read(model: Model, tensors: Mapping[str, np.ndarray]) -> Named:
    for pattern, what in model.variants.items():
        if any(re.search(pattern, name) for name in tensors):
            raise _unknown(model, what)
    scope, places = _places(_layers(model, tensors), model)
    dense = re.compile(rf"(?P<layer>{model.dense})/(kernel|bias)\Z")
    places |= {match["layer"]: "logits" for match in map(dense.match, tensors) if match}

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
    heads = [name for name in tensors if model.other_head and re.match(model.other_head, name)]
    heads = heads if logits in renamed else []
    remark = model.head_remark if heads else ""
    options = {"stride_place": "first_unit"}
    return Named(
        result | biases, renamed, options, model.recipe, list(biases), [model.remark], not_run=heads, doubt=remark
    )


def _layers(model: Model, tensors: Mapping[str, np.ndarray]) -> Layers:
    found: dict[str, dict[int, str]] = {"conv2d": {}, "batch_normalization": {}}
    for match in filter(None, map(re.compile(model.prefix + _LAYERS).match, tensors)):
        layer, number = match.string.rpartition("/")[0], int(match["number"] or 0)
        if found[match["kind"]].setdefault(number, layer) != layer:
            raise _unknown(model, f"{found[match['kind']][number]} and {layer} have one number")
    for kind, numbered in found.items():
        if sorted(numbered) != list(range(min(numbered), max(numbered) + 1)):
            raise _unknown(model, f"a {kind} is missing between {min(numbered)} and {max(numbered)}")
    convolutions, norms = ([numbered[i] for i in sorted(numbered)] for numbered in found.values())
    shapes = [np.shape(tensors.get(f"{layer}/kernel", ())) for layer in convolutions]
    sizes = [shape[0] if len(shape) == 4 and shape[0] == shape[1] else 0 for shape in shapes]
    if sizes[:3] == [3, 3, 3]:
        raise _unknown(
            model, "its root has three kernels of 3 x 3, as with selective kernels (sk_ratio) or in ResNet-RS"
        )
    return Layers(convolutions, sizes, norms)


def _places(layers: Layers, model: Model) -> tuple[str, dict[str, str]]:
    """The network's name, and TF-Slim's name of each layer."""
    basic = layers.sizes[1:4] == [1, 3, 3]
    kernels = [3, 3] if basic else [1, 3, 1]
    units = list(_units(layers.sizes[1:], kernels, model))
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
            model,
            f"there are {len(layers.norms)} batch norms and kernels of the sizes {', '.join(map(str, layers.sizes))}",
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
    return scope, dict(pairs)


def _units(sizes: Sequence[int], kernels: Sequence[int], model: Model) -> Iterator[bool]:
    """For each unit, whether a shortcut's kernel comes before its own."""
    at = 0
    while at < len(sizes):
        projects = list(sizes[at : at + 1 + len(kernels)]) == [1, *kernels]
        at += projects
        if list(sizes[at : at + len(kernels)]) != list(kernels):
            raise _unknown(model, f"the kernels' sizes are {', '.join(map(str, sizes))}")
        at += len(kernels)
        yield projects


def _named(blocks: Sequence[int], family: Family) -> Iterator[tuple[str, bool]]:
    """The name of each unit, and whether it is the first one of its block."""
    for block, count in enumerate(blocks, 1):
        for unit in range(1, count + 1):
            yield f"block{block}/unit_{unit}/{family.unit_name}", unit == 1


def _unknown(model: Model, what: str) -> MissingTensorError:
    return MissingTensorError(
        f"The tensors are numbered as in {model.whose}, but are not those of one: {what}. refnet has those for "
        "ImageNet of 18 to 200 layers.",
        found=what,
    )


HOME = Model(
    title="TensorFlow's official ResNet",
    whose="the official ResNets of the TensorFlow models repository, v1 and v2",
    prefix="",
    dense="dense",
    recipe=VGG,
    remark="the official models cut the resized side off to a whole number of pixels, where refnet rounds it; those "
    "for TPUs, of the same names without a scope, take torchvision's means and deviations: for them pass "
    'recipe=refnet.Recipe(224, 224, 1.0, "torch", 256)',
).home()

_SIMCLRS_HEAD_REMARK = (
    "the projection head ({}) is not run, and the classifier (head_supervised) reads the features; if it was "
    "fine-tuned behind a layer of the projection head (ft_proj_selector), which the tensors do not tell, the logits "
    "are wrong: head=None asks for the features"
)
SIMCLR = Model(
    title="SimCLR's ResNet",
    whose="SimCLR's ResNets",
    prefix="base_model/",
    dense="head_supervised/linear_layer/dense",
    # Values of 0..1.
    recipe=Recipe(224, 224, 1.0, "torch", 256, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    remark="SimCLR resizes images bicubically, as TensorFlow 1 does; the recipe does so bilinearly",
    other_head="head_contrastive/",
    head_remark=_SIMCLRS_HEAD_REMARK.format("head_contrastive"),
).home()

SIMCLR_2 = Model(
    title="SimCLR's ResNet of TensorFlow 2",
    whose="SimCLR's ResNets of TensorFlow 2",
    prefix=rf"resnet(?:_{NUMBER})?/(?:block_group{NUMBER}/(?:bottleneck|residual)_block(?:_{NUMBER})?/)?"
    rf"(?:conv2d_fixed_padding|batch_norm_relu)(?:_{NUMBER})?/(?:sync_)?",
    dense=rf"head_supervised/linear_layer/dense(?:_{NUMBER})?",
    recipe=Recipe(224, 224, 1.0, "torch", 256, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    remark="SimCLR resizes images bicubically, as TensorFlow 2 does; the recipe does so bilinearly",
    other_head=rf"projection_head(?:_{NUMBER})?/",
    head_remark=_SIMCLRS_HEAD_REMARK.format("projection_head"),
    variants={
        "/sk__conv2d": "some have selective kernels (sk_ratio)",
        "/se__layer": "some are of squeeze and excitation (se_ratio)",
    },
).home()
