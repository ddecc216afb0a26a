"""Weights of BiT, which are easily confused with those that refnet reads: the error names them.

Source: Kolesnikov et al., "Big Transfer (BiT)", 2020, and its published files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from refnet.errors import MissingTensorError
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home

#: A name that only this network has.
_NAME = re.compile(r"standardized_conv2d/|^bit\.")


def _fits(loaded: Loaded) -> bool:
    return any(map(_NAME.search, loaded.tensors))


def _read(tensors: Mapping[str, np.ndarray]) -> NoReturn:
    found = next(filter(_NAME.search, tensors))
    raise MissingTensorError(
        "These are the weights of BiT, a ResNetV2 with group norm and standardised kernels; refnet has only "
        f"batch norm. One tensor is {found}.",
        found=found,
    )


HOME = Home("BiT", _fits, _read)
