"""Weights of torchvision's ResNet-50, 101 and 152 (v1.5) by TF-Slim's names for the first version.

The tensors fit TF-Slim's one to one, in another order of axes, but the function differs: each block strides in the
3x3 convolution and the shortcut of its first unit, and pool1 pads both sides. The names are those of timm's ResNets,
and of many others, too.

Source: torchvision's ``models/resnet.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refnet.errors import MissingTensorError
from refnet.images.preprocess import Recipe
from refnet.weights.conversion import Conversion
from refnet.weights.homes.state_dict import Names, variants

#: How these networks differ from TF-Slim's, and how their images are prepared.
OPTIONS: dict[str, Any] = {"pool_mode": "torch", "stride_place": "first_unit"}
RECIPE = Recipe(224, 224, 1.0, "torch", 256)

_NAMES = Names(
    version=1,
    unit=re.compile(r"^layer(?P<block>\d+)\.(?P<unit>\d+)\.(?P<layer>.+)\.(?P<role>\w+)$"),
    first_block=1,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.0": "shortcut"},
    norms={f"bn{i}": f"conv{i}/BatchNorm" for i in (1, 2, 3)} | {"downsample.1": "shortcut/BatchNorm"},
    end_convolutions={"conv1": "conv1", "fc": "logits"},
    end_norms={"bn1": "conv1/BatchNorm"},
)
#: What else has such names, by a name that only it has.
_VARIANTS = {
    r"^conv1\.0\.": "a stem of three convolutions (the variants d, t and s)",
    r"\.se\.": "squeeze and excitation",
    r"\.downsample\.2\.": "an average pool in the shortcut",
}


def is_torchvision(names: Iterable[str]) -> bool:
    """Whether tensors have the names of torchvision's ResNets, of any variant."""
    return _NAMES.fit(names)


def slim_tensors(tensors: Mapping[str, np.ndarray], conversion: Conversion) -> dict[str, np.ndarray]:
    """Rename, and order the axes as TF-Slim does.

    Parameters
    ----------
    tensors : mapping of str to array
        A state dict; kernels are OIHW, the last is a matrix.
    conversion : Conversion
        Told of what was renamed.

    Returns
    -------
    dict of str to array
        By TF-Slim's names; what is not part of the network keeps its own.

    Raises
    ------
    MissingTensorError
        They are those of a variant that refnet does not have.
    """
    _refuse_variants(tensors)
    result = _NAMES.slim_tensors(tensors, conversion)
    conversion.remarks.append("torchvision smooths the images that it makes smaller; refnet's recipe does not")
    return result


def _refuse_variants(tensors: Mapping[str, np.ndarray]) -> None:
    found = variants(tensors, _VARIANTS)
    if "layer1.0.conv3.weight" not in tensors:
        found.append("units of two convolutions (resnet18, resnet34)")
    kernel = tensors.get("layer1.0.conv2.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[0] != kernel.shape[1]:
        found.append("convolutions in groups (ResNeXt)")
    if found:
        raise MissingTensorError(
            f"These are the weights of a variant of PyTorch's ResNet v1 that refnet does not have, with "
            f"{', and with '.join(found)}. It has torchvision's resnet50, resnet101 and resnet152.",
            found=found,
        )
