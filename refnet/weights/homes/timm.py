"""Weights of timm's ResNetV2 with batch norm (``resnetv2_50``, 101, 152 and their variants d) by TF-Slim's names.

The tensors fit TF-Slim's one to one, in another order of axes, but the function differs: each stage strides in its
first unit, and pool1 pads both sides. timm's convolutions have no biases; TF-Slim's get zeros, which change no bit: a
convolution's sum starts at +0, so that it is never -0 (rule A1).

The variants d (and t, of other widths) have three 3x3 convolutions in place of the 7x7 one, by DeepLab's names
``conv1_1`` to ``conv1_3``, and an average pool before the shortcuts' convolutions of units that stride.

Source: timm's ``models/resnetv2.py``.
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
RECIPE = Recipe(224, 224, 1.0, "inception", 235)
_DEEP_STEM = "stem.conv1.weight"

_NAMES = Names(
    version=2,
    unit=re.compile(r"^stages\.(?P<block>\d+)\.blocks\.(?P<unit>\d+)\.(?P<layer>.+)\.(?P<role>\w+)$"),
    first_block=0,
    convolutions={"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample.conv": "shortcut"},
    norms={"norm1": "preact", "norm2": "conv1/BatchNorm", "norm3": "conv2/BatchNorm"},
    end_convolutions={"stem.conv": "conv1", "head.fc": "logits"} | {f"stem.conv{i}": f"conv1_{i}" for i in (1, 2, 3)},
    end_norms={"norm": "postnorm"} | {f"stem.norm{i}": f"conv1_{i}/BatchNorm" for i in (1, 2)},
)
#: The convolutions that no batch norm follows at once: in TF-Slim they have biases.
_BIASED = re.compile(r"(?P<layer>(^|.*/)(conv3|shortcut)|^[^/]+/conv1(_3)?)/weights$")

#: What else has such names, by a name that only it has.
_VARIANTS = {
    r"\.norm1\.v$": "EvoNorm (_evos)",
    r"\.norm1\.tau$": "filter response norm (_frn)",
    r"^stem\.norm3?\.": "batch norm after the convolutions (the stems of hybrid ViTs)",
}
#: Other networks, by a name that only they have.
_OTHERS = {
    r"standardized_conv2d/|^bit\.": "BiT, a ResNetV2 with group norm and standardised kernels; refnet has batch norm",
}


def is_timm(names: Iterable[str]) -> bool:
    """Whether tensors have the names of timm's ResNetV2, of any variant."""
    return _NAMES.fit(names)


def options_of(names: Iterable[str]) -> dict[str, Any]:
    """How the network that the tensors belong to differs from TF-Slim's."""
    return OPTIONS | ({"avg_down": True} if _DEEP_STEM in names else {})


def refuse_others(names: Iterable[str]) -> None:
    """Refuse networks that people may take for those that refnet reads.

    Raises
    ------
    MissingTensorError
        The names are those of BiT.
    """
    for pattern, what in _OTHERS.items():
        found = next(filter(re.compile(pattern).search, names), None)
        if found is not None:
            raise MissingTensorError(f"These are the weights of {what}. One is {found}.", found=found)


def slim_tensors(tensors: Mapping[str, np.ndarray], conversion: Conversion) -> dict[str, np.ndarray]:
    """Rename, order the axes as TF-Slim does, and add the biases that the network lacks.

    Parameters
    ----------
    tensors : mapping of str to array
        A state dict; kernels are OIHW, and the last may be a matrix.
    conversion : Conversion
        Told of what was renamed, transposed and added.

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
    for name, kernel in list(result.items()):
        match = _BIASED.match(name)
        if match and f"{match['layer']}/biases" not in result:
            conversion.added.append(f"{match['layer']}/biases")
            result[conversion.added[-1]] = np.zeros(kernel.shape[-1:], np.float32)
    conversion.remarks.append(
        "timm resizes images by bicubic interpolation, and smooths what it makes smaller; refnet's recipe is bilinear"
    )
    return result


def _refuse_variants(tensors: Mapping[str, np.ndarray]) -> None:
    found = variants(tensors, _VARIANTS)
    if not any(name.endswith(".running_mean") for name in tensors):
        found.append("no moving statistics, as of group norm (BiT, _gn)")
    if not any(name.endswith(".conv3.weight") for name in tensors if name.startswith("stages.")):
        found.append("units of two convolutions (resnetv2_18, resnetv2_34)")
    if found:
        raise MissingTensorError(
            f"These are the weights of a variant of timm's ResNetV2 that refnet does not have, with "
            f"{', and with '.join(found)}. It has resnetv2_50, 101, 152, and their variants d.",
            found=found,
        )
