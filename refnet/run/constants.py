"""An engine's variables, and the forms in which kernels read them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from refnet.errors import WeightsError
from refnet.graph.plan import NormNames
from refnet_kernels.contract import FloatArray, Norm, Packed, norm_scale


class Table(Hashable, Protocol):
    """An array that a launch reads besides values and weights, as a key of everything that it depends on."""

    def values(self) -> np.ndarray:
        """The array."""


class Constants:
    """The variables of an engine, and the forms in which its device's kernels read them, for all its plans.

    Plans are made by one thread at a time.

    Parameters
    ----------
    variables : mapping of str to float32 array
    owned : bool
        Whether nobody else holds these arrays. Then kernels may be packed in place, and a packed kernel's original is
        released.

    Attributes
    ----------
    owned : bool
    weights : dict of str to Packed
        Kernels as the device reads them, by their variables' names.
    channels : dict of str to Any
        Values per channel, as the device has them, by their variables' names.
    norms : dict of NormNames to dict of str to Any
        Batch norms, as the device has them: the parts of `Norm`.
    tables : dict of Table to Any
        Tables, as the device has them.
    """

    def __init__(self, variables: Mapping[str, FloatArray], owned: bool) -> None:
        self.owned = owned
        self._variables = dict(variables)
        self._released: set[str] = set()
        self.weights: dict[str, Packed] = {}
        self.channels: dict[str, Any] = {}
        self.norms: dict[NormNames, dict[str, Any]] = {}
        self.tables: dict[Table, Any] = {}

    @property
    def shapes(self) -> Mapping[str, FloatArray]:
        """Arrays of the variables' shapes: the variables, or zeros that take no memory for those released."""
        return MappingProxyType(self._variables)

    def variable(self, name: str) -> FloatArray:
        """A variable.

        Raises
        ------
        KeyError
            It was released.
        """
        if name in self._released:
            raise KeyError(f"{name} was released: its kernel is packed.")
        return self._variables[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """A variable's shape."""
        return self._variables[name].shape

    def norm(self, names: NormNames, dtype: np.dtype[Any]) -> Norm:
        """The batch norm that these variables define (rule A3), in a dtype.

        Raises
        ------
        WeightsError
            A variance plus epsilon is 0 or negative: its square root does not exist.
        """
        variance = self.variable(names.variance)
        bad = int(np.sum(variance.astype(np.float64) + names.epsilon <= 0))
        if bad:
            raise WeightsError(
                f"{names.variance} plus epsilon ({names.epsilon}) is 0 or negative in {bad} of {variance.size} "
                "channels.",
                tensor=names.variance,
            )
        gamma = None if names.gamma is None else self.variable(names.gamma)
        scale = norm_scale(variance, gamma, names.epsilon, dtype)
        return Norm(self.variable(names.mean).astype(dtype), scale, self.variable(names.beta).astype(dtype))

    def release(self, name: str) -> None:
        """Release a kernel that is packed, if the engine owns it; its shape is kept."""
        if self.owned and name not in self._released:
            self._variables[name] = np.broadcast_to(np.float32(0), self._variables[name].shape)
            self._released.add(name)
