"""Load weights from files, and save them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refnet.errors import ConfigError, CorruptError, RefnetWarning, WeightsError
from refnet.images.labels import IMAGENET, WITH_BACKGROUND
from refnet.images.preprocess import VGG, Recipe
from refnet.network.architecture import variables_of
from refnet.network.networks import resnet_of
from refnet.network.resnet_v1 import NETWORKS as V1_NETWORKS
from refnet.network.resnet_v1 import resnet_v1
from refnet.network.resnet_v2 import NETWORKS
from refnet.weights import doubts
from refnet.weights.homes import keras as keras_names
from refnet.weights.homes import timm as timm_names
from refnet.weights.homes import torchvision as torchvision_names
from refnet.weights.weights import SLIM_OPTIONS, Weights, _has_classes, slim_recipe


def load_weights(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    labels: Sequence[str] | None = None,
    strict: bool = False,
) -> Weights:
    """Load the weights of a ResNet, of its first or second version.

    Parameters
    ----------
    path : path
        A TF checkpoint (V1 or V2, by its prefix, its directory or any of its files), the directory of a SavedModel
        or of a module of TensorFlow Hub, a safetensors file, an .npz, or a .h5,
        .weights.h5 or .keras file of Keras Applications' ResNets; the content decides, not the name. The tensors may
        have timm's or torchvision's names too (`refnet.weights.homes.timm`, `refnet.weights.homes.torchvision`).
    recipe : Recipe, optional
        How raw pixels are preprocessed. By default what the file says; if it says nothing, the recipe of TF-Slim's
        released weights: Inception's, 299 x 299, and for its ResNet v1 VGG's, 224 x 224.
    labels : sequence of str, optional
        A name for each class.
    strict : bool
        Whether tensors that are not part of the network are an error, not a note.

    Returns
    -------
    Weights

    Raises
    ------
    WeightsError
        FormatError, CorruptError, DtypeError or LimitError: the file cannot be used. MissingTensorError: it holds no
        ResNet.
    FileNotFoundError, PermissionError
        From the system.
    """
    from refnet.weights import formats

    loaded = formats.read(path)
    tensors, stored = loaded.tensors, loaded.metadata
    if recipe is None and "recipe" in stored:
        recipe = recipe_from(stored["recipe"])
    options = options_from(stored.get("options", {}))
    if loaded.format.startswith(formats.KERAS) or keras_names.is_keras(tensors):
        keys = loaded.conversion.renamed.copy()
        tensors, renamed, version = keras_names.slim_tensors(tensors)
        loaded.conversion.renamed = {slim: keys.get(name, name) for slim, name in renamed.items()}
        recipe, options = recipe or version.recipe, version.options
    elif timm_names.is_timm(tensors):
        recipe, options = recipe or timm_names.RECIPE, timm_names.options_of(tensors)
        tensors = timm_names.slim_tensors(tensors, loaded.conversion)
    elif torchvision_names.is_torchvision(tensors):
        tensors = torchvision_names.slim_tensors(tensors, loaded.conversion)
        recipe, options = recipe or torchvision_names.RECIPE, torchvision_names.OPTIONS
    timm_names.refuse_others(tensors)
    if recipe is None and loaded.format.startswith(formats.TF_CHECKPOINT) and _is_released(tensors):
        recipe = slim_recipe(tensors)
    weights = Weights(
        tensors,
        recipe=recipe,
        labels=labels if labels is not None else stored.get("labels"),
        options=options,
        source=loaded.format,
        conversion=loaded.conversion,
        copy=False,
    )
    _check_finite(weights)
    architecture = weights.architecture
    _check_labels(weights.labels, architecture.num_classes)
    extra = sorted(set(weights) - variables_of(architecture, weights.arg_scope))
    if extra:
        weights.conversion.extra += extra
        if strict:
            raise WeightsError(f"The file holds tensors that are not part of the network: {', '.join(extra)}.")
        message = f"{len(extra)} tensors are not part of the network: {', '.join(extra[:8])}"
        warnings.warn(message, RefnetWarning, stacklevel=2)
    if recipe is None and weights.recipe != VGG and resnet_of(architecture.blocks) is resnet_v1:
        weights.conversion.remarks.append(
            "nothing says how images are prepared, and uint8 ones go through Inception's recipe; TF-Slim has VGG's for "
            f"its ResNet v1: pass recipe=refnet.{VGG} if these weights want it"
        )
    doubt = None if options else doubts.biases(weights)
    if doubt:
        weights.conversion.remarks.append(doubt)
    return weights


def _is_released(tensors: Mapping[str, Any]) -> bool:
    """Whether the names and classes are those of the checkpoints that TF-Slim released."""
    return _has_classes(tensors, NETWORKS, WITH_BACKGROUND) or _has_classes(tensors, V1_NETWORKS, IMAGENET)


def _check_labels(labels: list[str] | None, num_classes: int | None) -> None:
    if labels is None or len(labels) == num_classes:
        return
    classes = "no logits" if num_classes is None else f"{num_classes} classes"
    hint = " One of them is a background class." if {len(labels), num_classes} == {1000, 1001} else ""
    raise ConfigError(
        f"There are {len(labels)} labels, but the weights have {classes}.{hint}",
        expected=num_classes,
        found=len(labels),
    )


def recipe_from(stored: Any) -> Recipe:
    """The recipe that a file's metadata holds.

    Raises
    ------
    WeightsError
        It is no recipe.
    """
    if not isinstance(stored, Mapping) or not set(stored) <= set(Recipe._fields):
        raise WeightsError(f"The file's preprocessing recipe is not understood: {stored!r}.")
    return Recipe(**stored)


def options_from(stored: Any) -> dict[str, Any]:
    """The options of `refnet.Engine` that a file's metadata hold.

    Raises
    ------
    WeightsError
        They are no options, or not of those that belong to weights.
    """
    kinds = {name: type(value) for name, value in SLIM_OPTIONS.items()}
    if not isinstance(stored, Mapping) or any(type(value) is not kinds.get(name) for name, value in stored.items()):
        raise WeightsError(f"The file's options of the network are not understood: {stored!r}.")
    return dict(stored)


def _check_finite(weights: Weights) -> None:
    bad = {name: int(np.sum(~np.isfinite(tensor))) for name, tensor in weights.items() if not np.isfinite(tensor).all()}
    if bad:
        counts = ", ".join(f"{name} ({count})" for name, count in bad.items())
        raise CorruptError(f"The weights hold NaN or infinite values: {counts}.", tensor=next(iter(bad)))


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Save weights, with their recipe, labels and options; whole or not at all.

    Parameters
    ----------
    path : path
        Its name says the format: it ends in .npz, in .safetensors, or as the prefix of a TensorFlow checkpoint (V2)
        in .ckpt or .ckpt-1234.
    weights : Weights or mapping of str to array

    Raises
    ------
    ConfigError
        The name is that of no format, or a tensor's name cannot be written in it.
    """
    from refnet.weights import formats

    if not isinstance(weights, Weights):
        weights = Weights(weights)
    metadata: dict[str, Any] = {}
    if weights.image_size is not None or weights.recipe != slim_recipe(weights):  # what is meant if nothing is said
        metadata["recipe"] = weights.recipe._asdict()
    if weights.labels is not None:
        metadata["labels"] = weights.labels
    if weights.options:
        metadata["options"] = weights.options
    formats.write(path, weights, metadata)
