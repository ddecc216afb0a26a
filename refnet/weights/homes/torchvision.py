"""Weights of torchvision's and timm's ResNets (v1.5) under TF-Slim's names for v1.

The tensors correspond to TF-Slim's one to one, with their axes in another order, but the function differs: each block
strides in the first 3x3 convolution and the shortcut of its first unit, and pool1 pads both sides. timm's ResNets, and
many others, have the same names.

timm's variants c, d, s and t have three 3x3 convolutions in place of the 7x7 one. Here they have DeepLab's names,
``conv1_1`` to ``conv1_3``. In d and t an average pool comes before the shortcut's convolution in units that stride.

A network that is made anew of such a network's children, ``nn.Sequential(*list(model.children())[:-1])``, has their
numbers in place of their names.

Sources: torchvision's ``models/resnet.py``, timm's ``models/resnet.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from refnet.errors import FormatError, MissingTensorError
from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import family_named
from refnet.weights.formats.loaded import Loaded, raise_problems
from refnet.weights.homes.home import Home, Named
from refnet.weights.homes.state_dict import StateDict, below_scope

_POOLED = re.compile(r"\.downsample\.2\.")


def _options(names: Iterable[str]) -> dict[str, Any]:
    options = {"pool_mode": "torch", "stride_place": "first_unit"}
    return options | ({"avg_down": True} if any(map(_POOLED.search, names)) else {})


def _unlike(tensors: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    kernel = tensors.get("layer1.0.conv2.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[0] != kernel.shape[1]:
        found.append("convolutions in groups (ResNeXt)")
    # Where batch norms were folded, there is nothing left of them.
    if "layer1.0.bn1.weight" in tensors and not any(name.endswith(".running_mean") for name in tensors):
        found.append("no moving statistics, as with group norm (_gn)")
    return found


def _adapted(home: StateDict, names: Collection[str]) -> StateDict:
    """A deep stem's last batch norm has the name of the plain one's; a pool moves the layers after it by one."""
    if "conv1.0.weight" in names:
        stem = {f"conv1.{3 * i}": f"conv1_{i + 1}" for i in range(3)}
        norms = {"conv1.1": "conv1_1/BatchNorm", "conv1.4": "conv1_2/BatchNorm", "bn1": "conv1_3/BatchNorm"}
        home = home._replace(end_convolutions=stem | {"fc": "logits"}, end_norms=norms)
    if any(map(_POOLED.search, names)):
        convolutions, norms = dict(home.convolutions), dict(home.norms)
        convolutions["downsample.1"] = convolutions.pop("downsample.0")
        norms["downsample.2"] = norms.pop("downsample.1")
        home = home._replace(convolutions=convolutions, norms=norms)
    return home


HOME = StateDict(
    title="PyTorch's ResNet v1",
    known="torchvision's resnet18, 34, 50, 101 and 152, and timm's variants of them with a deep stem",
    family=family_named("resnet_v1"),
    unit=re.compile(rf"layer(?P<block>{NUMBER})\.(?P<unit>{NUMBER})\.(?P<layer>.+)\.(?P<role>\w+)\Z"),
    first_block=1,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.0": "shortcut"},
    norms={f"bn{i}": f"conv{i}/BatchNorm" for i in (1, 2, 3)} | {"downsample.1": "shortcut/BatchNorm"},
    end_convolutions={"conv1": "conv1", "fc": "logits"},
    end_norms={"bn1": "conv1/BatchNorm"},
    variants={r"\.se\.": "squeeze and excitation"},
    unlike=_unlike,
    options=_options,
    recipe=Recipe(224, 224, 1.0, "torch", 256, "bilinear"),
    adapted=_adapted,
).home()

#: The children with tensors by their numbers. The dense layer is left out: where it was, others put what they like.
_CHILDREN = {"0": "conv1", "1": "bn1"} | {str(3 + i): f"layer{i}" for i in (1, 2, 3, 4)}
_IN_UNIT = rf"{NUMBER}\.(conv|bn|downsample\.){NUMBER}\.\w+\Z"
_STAGE = re.compile(rf"(?P<block>{NUMBER})\.{_IN_UNIT}")
_NUMBERED = below_scope(re.compile(rf"[4-7]\.{_IN_UNIT}"))


def _is_numbered(loaded: Loaded) -> bool:
    return any(map(_NUMBERED.match, loaded.tensors))


def _read_numbered(tensors: Mapping[str, np.ndarray]) -> Named:
    """Give the children their names, and read what has them now; all that is said of tensors goes by their numbers."""
    numbers = {match["block"] for match in map(_STAGE.match, tensors) if match} - _CHILDREN.keys()
    if numbers:
        raise MissingTensorError(
            f"The units are numbered as the children of a torchvision ResNet, but there are units in child "
            f"{min(numbers, key=int)} too, where it has none: its stages are the children 4 to 7, after conv1, bn1, "
            "relu and maxpool. refnet does not have this network.",
            found=sorted(numbers, key=int),
        )
    taken = [name for name in tensors if name.partition(".")[0] in _CHILDREN.values()]
    message = "{!r} is a name of torchvision's among its children's numbers: leave out the one that is not meant."
    raise_problems([FormatError(message.format(name), tensor=name) for name in taken])
    in_file = {_named(name): name for name in tensors}
    found = HOME.read({name: tensors[original] for name, original in in_file.items()})
    return found._replace(
        tensors={name if name in found.renamed else in_file.get(name, name): t for name, t in found.tensors.items()},
        renamed={slim: in_file[name] for slim, name in found.renamed.items()},
        inside=[in_file[name] for name in found.inside],
    )


def _named(name: str) -> str:
    child, dot, rest = name.partition(".")
    return f"{_CHILDREN.get(child, child)}{dot}{rest}"


NUMBERED = Home(HOME.title, _is_numbered, _read_numbered, _NUMBERED, outputs_first=True)
