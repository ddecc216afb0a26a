"""Weights of pytorchcv's PreResNets under TF-Slim's names for v2.

The tensors correspond to TF-Slim's one to one, with their axes in another order, but the function differs: batch norm
and ReLU follow the root's convolution, which TF-Slim leaves bare; each stage strides in its first unit; and pool1 pads
both sides. There are no biases; TF-Slim's become zeros.

Source: pytorchcv's ``models/preresnet.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.network.names import NUMBER
from refnet.network.networks import family_named
from refnet.weights.homes.state_dict import StateDict


def _options(_: Iterable[str]) -> dict[str, Any]:
    return {"pool_mode": "torch", "stride_place": "first_conv"}


def _unlike(tensors: Mapping[str, np.ndarray]) -> list[str]:
    kernel = tensors.get("features.stage1.unit1.body.conv2.conv.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[0] != kernel.shape[1]:
        return ["convolutions in groups"]
    return []


HOME = StateDict(
    title="pytorchcv's PreResNet",
    known="preresnet10 to preresnet269b, of any width",
    family=family_named("resnet_v2"),
    unit=re.compile(
        rf"features\.stage(?P<block>{NUMBER})\.unit(?P<unit>{NUMBER})\."
        rf"(?P<layer>body\.conv{NUMBER}\.(bn|conv)|identity_conv)\.(?P<role>\w+)\Z"
    ),
    first_block=1,
    first_unit=1,
    convolutions={"identity_conv": "shortcut"} | {f"body.conv{i}.conv": f"conv{i}" for i in (1, 2, 3)},
    norms={"body.conv1.bn": "preact", "body.conv2.bn": "conv1/BatchNorm", "body.conv3.bn": "conv2/BatchNorm"},
    end_convolutions={"features.init_block.conv": "conv1", "output": "logits"},
    end_norms={"features.init_block.bn": "conv1/BatchNorm", "features.post_activ.bn": "postnorm"},
    variants={r"\.se\.": "squeeze and excitation"},
    unlike=_unlike,
    options=_options,
    recipe=Recipe(224, 224, 1.0, "torch", 256, "bilinear"),
    remark="units of three convolutions stride in the first one here, as in preresnet50; the tensors do not tell those "
    'that stride in the 3x3 one (preresnet50b and all others with a b): for them pass stride_place="first_unit"',
    # The convolutions that are not followed directly by a batch norm.
    biased=re.compile(r"(?P<layer>(^|.*/)(conv3|shortcut|basic_v2/conv2))/weights$"),
).home()
