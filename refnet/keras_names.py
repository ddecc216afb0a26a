"""Weights of Keras Applications' ResNet50V2, 101V2 and 152V2 by TF-Slim's names.

The networks are TF-Slim's but for batch norm's epsilon and the padding of pool1, and all tensors fit one to one.

Source: Keras' ``applications/resnet.py`` and ``resnet_v2.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refnet.errors import MissingTensorError
from refnet.preprocess import Recipe
from refnet.resnet_v2 import network_name

#: How these networks differ from TF-Slim's, and how their images are prepared.
OPTIONS: dict[str, Any] = {"batch_norm_epsilon": 1.001e-5, "pool_mode": "keras"}
RECIPE = Recipe(224, 224, 1.0, "tf")

_ROLES = {"kernel": "weights", "bias": "biases"}
_ENDS = {"conv1_conv": "conv1", "post_bn": "postnorm", "predictions": "logits"}
_UNIT = re.compile(r"^conv(\d+)_block(\d+)_(preact_bn|[0-3]_conv|[12]_bn)$")
_IN_UNIT = {
    "preact_bn": "preact",
    "0_conv": "shortcut",
    "1_conv": "conv1",
    "1_bn": "conv1/BatchNorm",
    "2_conv": "conv2",
    "2_bn": "conv2/BatchNorm",
    "3_conv": "conv3",
}


def is_keras(names: Iterable[str]) -> bool:
    """Whether tensors have the names of Keras' layers, in a file of another format than Keras' own."""
    return any(_UNIT.match(name.rpartition("/")[0]) for name in names)


def slim_tensors(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Rename, and give the dense layer at the end the shape of a convolution.

    Parameters
    ----------
    tensors : mapping of str to array
        By ``layer/role``.

    Returns
    -------
    tensors : dict of str to array
        By TF-Slim's names; what is not part of the network keeps its own.
    renamed : dict of str to str
        Keras' name of each of them that has another now.

    Raises
    ------
    MissingTensorError
        These are no weights of a ResNetV2.
    """
    layers = {name.rpartition("/")[0] for name in tensors}
    if "conv1_bn" in layers:
        raise MissingTensorError(
            "These are the weights of a ResNet v1 (its conv1 has a batch norm); refnet runs ResNetV2: "
            "ResNet50V2, ResNet101V2, ResNet152V2."
        )
    units = [match for match in map(_UNIT.match, layers) if match]
    if not units:
        names = ", ".join(sorted(layers)[:8]) or "none"
        hint = " The .keras files of Keras 2 have no layers' names: save as .h5." if _numbered(layers) else ""
        raise MissingTensorError(f"These are not the weights of Keras' ResNetV2; the layers are {names}.{hint}")
    counts = {int(match[1]): 0 for match in units}
    for match in units:
        counts[int(match[1])] = max(counts[int(match[1])], int(match[2]))
    scope = network_name(tuple(counts[stack] for stack in sorted(counts)))
    result, renamed = {}, {}
    for name, tensor in tensors.items():
        slim = _slim_name(name, scope)
        if slim == f"{scope}/logits/weights" and tensor.ndim == 2:
            tensor = tensor[np.newaxis, np.newaxis]
        result[slim] = tensor
        if slim != name:
            renamed[slim] = name
    return result, renamed


def _numbered(layers: set[str]) -> bool:
    """Whether the file has layers by their number alone."""
    return any(layer.endswith("/vars") for layer in layers)


def _slim_name(name: str, scope: str) -> str:
    layer, _, role = name.rpartition("/")
    role = _ROLES.get(role, role)
    match = _UNIT.match(layer)
    if match:
        return f"{scope}/block{int(match[1]) - 1}/unit_{match[2]}/bottleneck_v2/{_IN_UNIT[match[3]]}/{role}"
    return f"{scope}/{_ENDS[layer]}/{role}" if layer in _ENDS else name
