"""What the state dicts of PyTorch's ResNets have in common: names in dots, and kernels in OIHW."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from refnet.network.networks import network_name
from refnet.weights.conversion import Conversion

_OF_CONVOLUTION = {"weight": "weights", "bias": "biases"}
_OF_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class Names(NamedTuple):
    """How a library calls what TF-Slim calls ``blockB/unit_U/...``.

    Attributes
    ----------
    version : int
        Of the ResNet.
    unit : re.Pattern
        The name of a unit's tensor: ``block``, ``unit``, ``layer`` and ``role``.
    first_block : int
        Its number; units are counted from 0.
    convolutions, norms : dict of str to str
        TF-Slim's names of a unit's layers.
    end_convolutions, end_norms : dict of str to str
        And of the layers that are in no unit.
    """

    version: int
    unit: re.Pattern[str]
    first_block: int
    convolutions: Mapping[str, str]
    norms: Mapping[str, str]
    end_convolutions: Mapping[str, str]
    end_norms: Mapping[str, str]

    def fit(self, names: Iterable[str]) -> bool:
        """Whether there is a unit among the tensors of these names."""
        return any(map(self.unit.match, names))

    def slim_tensors(self, tensors: Mapping[str, np.ndarray], conversion: Conversion) -> dict[str, np.ndarray]:
        """Rename, and order the axes as TF-Slim does; what is not part of the network keeps its own name."""
        scope = network_name(tuple(self._units(tensors)), self.version)
        result = {}
        for name, tensor in tensors.items():
            slim = self._slim_name(name, scope)
            if slim is None:
                result[name] = tensor
                continue
            conversion.renamed[slim] = name
            result[slim] = _hwio(tensor) if slim.endswith("/weights") else tensor
        return result

    def _units(self, names: Iterable[str]) -> Iterator[int]:
        """How many units each block has."""
        counts: dict[int, int] = {}
        for match in filter(None, map(self.unit.match, names)):
            block = int(match["block"])
            counts[block] = max(counts.get(block, 0), int(match["unit"]) + 1)
        return (counts[block] for block in sorted(counts))

    def _slim_name(self, name: str, scope: str) -> str | None:
        """TF-Slim's name of a tensor, or None."""
        match = self.unit.match(name)
        if match:
            block, unit = int(match["block"]) - self.first_block + 1, int(match["unit"]) + 1
            place = f"{scope}/block{block}/unit_{unit}/bottleneck_v{self.version}"
            layer, role, convolutions, norms = match["layer"], match["role"], self.convolutions, self.norms
        else:
            place, (layer, _, role) = scope, name.rpartition(".")
            convolutions, norms = self.end_convolutions, self.end_norms
        for layers, roles in ((convolutions, _OF_CONVOLUTION), (norms, _OF_NORM)):
            if layer in layers and role in roles:
                return f"{place}/{layers[layer]}/{roles[role]}"
        return None


def variants(tensors: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """What ``known`` says of each of its patterns that a tensor's name has."""
    return [what for pattern, what in known.items() if any(map(re.compile(pattern).search, tensors))]


def _hwio(kernel: np.ndarray) -> np.ndarray:
    """An OIHW kernel, or the matrix [outputs, inputs] of a dense layer, as HWIO."""
    if kernel.ndim == 2:
        kernel = kernel[:, :, np.newaxis, np.newaxis]
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel
