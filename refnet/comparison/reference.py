"""The side that others are compared with: every value of a network that refnet computes, or arrays from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from refnet.checks import check_mapping
from refnet.comparison.dialects import SLIM, Sited, sites_of
from refnet.comparison.sites import Value, end_stage, order_of, stages_by_place, unit_of, values_of
from refnet.comparison.statistics import rounding
from refnet.engine import Engine
from refnet.errors import ConfigError
from refnet.evidence.end_points import roundings
from refnet.graph.graph import Graph, Tensor
from refnet.images.preprocess import preprocess
from refnet.resources import for_images
from refnet.run.compute import compute
from refnet.run.inputs import images_of
from refnet.weights.files import weights_of
from refnet.weights.weights import Weights
from refnet_kernels.contract import FloatArray
from refnet_kernels.system.float_mode import contract_mode

#: The roundings of a 1x1 and a 3x3 convolution of a ResNet's usual widths, with what follows them.
_ROUNDINGS_PER_LAYER = 72


class ComputedReference:
    """A network that refnet computes: any value of its graph, in binary32 and in binary64.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
        As for `Engine`.
    images : array [H, W, C] or [N, H, W, C]
        As for `Engine`: floats are normalised pixels; uint8 are raw ones, and go through the weights' recipe.
    **options
        As for `Engine`.

    Attributes
    ----------
    values : list of Value
    names : dict of str to Value
    places : dict of str to list of Value
    graph : Graph
    images : float32 array [N, H, W, C]
        The network's input.

    Raises
    ------
    WeightsError, InputError, ConfigError, DeviceError
        As `Engine` raises them.
    """

    def __init__(self, weights: Any, images: Any, **options: Any) -> None:
        if "dtype" in options:
            raise ConfigError("compare takes no dtype: it computes in the precision that the other side shows.")
        loaded = weights if isinstance(weights, Weights) else weights_of(weights, options.get("scope"))
        self.weights = loaded
        self._device = {name: options[name] for name in ("device", "threads") if options.get(name) is not None}
        engine = Engine(loaded, **options)
        self.images = _pixels(images, loaded)
        net, end_points = engine.trace(self.images.shape)
        self.graph: Graph = net.graph
        self.graph.variables = loaded
        self.values = values_of(self.graph, loaded.architecture.scope, roundings(net))
        self.names = {value.name: value for value in self.values}
        self.names |= {name: self.values[tensor.index] for name, tensor in end_points.items()}
        self.names.setdefault("net", self.values[net.index])
        self.places = stages_by_place(self.values)
        for tensor in self.graph.tensors:
            if tensor.op == "residual":
                # A shortcut that is the unit's input, perhaps subsampled.
                at = self.values[tensor.index].place
                self.places.setdefault(f"{at}/shortcut", [self.values[tensor.inputs[0].index]])
        self._kept: dict[str, dict[int, np.ndarray]] = {}

    def arrays(self, values: Iterable[Value], dtype: str = "float32") -> dict[int, np.ndarray]:
        """The arrays of some values, computed together where they are not there yet.

        Parameters
        ----------
        values : iterable of Value
        dtype : {"float32", "float64"}
            In which all is computed.

        Returns
        -------
        dict of int to array
            By the values' indices.
        """
        kept = self._kept.setdefault(dtype, {})
        indices = list(dict.fromkeys(value.index for value in values))
        missing = [self.graph.tensors[index] for index in indices if index not in kept]
        if missing:
            self._evaluate(missing, {0: self.images.astype(dtype), **kept}, kept.__setitem__)
        return {index: kept[index] for index in indices}

    def roundings(self, values: Iterable[Value]) -> dict[int, float]:
        """How far some values in binary32 are from binary64, relative to their largest elements.

        Parameters
        ----------
        values : iterable of Value

        Returns
        -------
        dict of int to float
            By the values' indices.
        """
        single, found = self.arrays(values), {}

        def note(index: int, double: np.ndarray) -> None:
            found[index] = rounding(single[index], double)

        tensors = [self.graph.tensors[index] for index in single]
        self._evaluate(tensors, {0: self.images.astype("float64")}, note)
        return found

    def recomputed(self, tensor: Tensor, observed: Mapping[int, np.ndarray], dtype: str = "float32") -> np.ndarray:
        """A value from other values that were observed, instead of from the images.

        Parameters
        ----------
        tensor : Tensor
        observed : mapping of int to array
            Values by the indices of their tensors, in the network's own layout.
        dtype : {"float32", "float64"}

        Returns
        -------
        array
        """
        known = {index: np.asarray(value, dtype) for index, value in observed.items() if index != tensor.index}
        known.setdefault(0, self.images.astype(dtype))
        found: dict[int, np.ndarray] = {}
        self._evaluate([tensor], known, found.__setitem__)
        return found[tensor.index]

    def sources(self, tensor: Tensor, observed: Iterable[int], unusable: Iterable[int] = ()) -> list[int] | None:
        """The nearest observed values from which a value can be computed, or the images.

        Parameters
        ----------
        tensor : Tensor
        observed : iterable of int
            The indices of the observed tensors.
        unusable : iterable of int
            Those of tensors that were observed, but in another shape.

        Returns
        -------
        list of int or None
            Indices of tensors, in network order; None if what was observed in another shape lies between.
        """
        known, odd, found, waiting = set(observed), set(unusable), set(), list(tensor.inputs)
        while waiting:
            source = waiting.pop()
            if source.index in odd:
                return None
            if source.index in known or not source.inputs:
                found.add(source.index)
            else:
                waiting.extend(source.inputs)
        return sorted(found)

    def _evaluate(
        self, wanted: Sequence[Tensor], known: dict[int, np.ndarray], use: Callable[[int, np.ndarray], None]
    ) -> None:
        """Compute tensors from known ones, one operation after the other: fused or not, the bits are the same.

        Each of the wanted ones is passed on once it is there, and nothing is kept that is not needed any more.
        """
        needed = _needed(wanted, known)
        readers = Counter(source.index for tensor in needed for source in tensor.inputs)
        left = {tensor.index for tensor in wanted}
        for index in left & known.keys():
            use(index, known[index])
        for tensor in needed:
            known[tensor.index] = self._operation(tensor, [known[source.index] for source in tensor.inputs])
            if tensor.index in left:
                use(tensor.index, known[tensor.index])
            for source in tensor.inputs:
                readers[source.index] -= 1
                if not readers[source.index]:
                    known.pop(source.index, None)
            if not readers[tensor.index]:
                del known[tensor.index]

    @for_images
    @contract_mode()
    def _operation(self, tensor: Tensor, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """One operation of the network. Kernels have no step of their own for what they only do after others."""
        x = inputs[0]
        result: np.ndarray
        if tensor.op == "relu":
            result = np.where(x < 0, x.dtype.type(0), x)
        elif tensor.op == "residual":
            result = x + inputs[1]
        elif tensor.op == "bias_add":
            result = x + np.asarray(self.weights[tensor.variables["biases"]], x.dtype)
        elif tensor.op == "squeeze":
            result = x.reshape(tensor.shape)
        else:
            graph = Graph(self.weights, self.graph.arg_scope)
            x = x if x.ndim == 4 else x[:, None, None]
            source = graph.placeholder(x.shape)
            source = source if tensor.inputs[0].shape == x.shape else graph.squeeze(source)
            copy = graph._add(tensor.op, (source,), tensor.shape, tensor.geometry, tensor.variables)
            graph.used = set(tensor.variables.values())
            result = compute(graph, np.ascontiguousarray(x), copy, **self._device)
        return result


def _needed(wanted: Sequence[Tensor], known: Mapping[int, Any]) -> list[Tensor]:
    """The tensors to compute for some tensors, in network order."""
    needed: dict[int, Tensor] = {}
    waiting = list(wanted)
    while waiting:
        entry = waiting.pop()
        if entry.index not in known and entry.index not in needed:
            needed[entry.index] = entry
            waiting.extend(entry.inputs)
    return [needed[index] for index in sorted(needed)]


class GivenReference:
    """Arrays from a file or from memory.

    Parameters
    ----------
    arrays : mapping of str to array
        In network order, where that is known.
    roundings : mapping of str to int, optional
        How many roundings lie behind each; by default they are estimated from the number of layers before it.

    Attributes
    ----------
    values : list of Value
        In network order, if all names are understood, else as they were given.
    names : dict of str to Value
    places : dict of str to list of Value
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], roundings: Mapping[str, int] | None = None) -> None:
        check_mapping(reference=arrays)
        sited = sites_of(list(arrays))
        order = list(arrays)
        sites = {name: _site(name, sited.get(name), order) for name in order}
        if all(name in sited for name in order) and roundings is None:
            order.sort(key=lambda name: (order_of(sites[name][0]), _STAGES.get(sites[name][1], 9)))
        behind = roundings or _estimated([sites[name][0] for name in order])
        self.values = [
            Value(name, *sites[name], arrays[name].shape, index, True, "", _of(behind, name, index))
            for index, name in enumerate(order)
        ]
        self.names = {value.name: value for value in self.values}
        self.places = stages_by_place(self.values)
        self._arrays = [arrays[name] for name in order]

    def arrays(self, values: Iterable[Value]) -> dict[int, np.ndarray]:
        """The arrays of some values, by their indices."""
        return {value.index: self._arrays[value.index] for value in values}


def _site(name: str, sited: Sited | None, names: Sequence[str]) -> tuple[str, str]:
    """The place and the stage of a value, by its name among others."""
    if sited is None:
        return ("", "")
    place, stage = sited.sites[0]
    if not stage and sited.dialect == SLIM:
        first = any("_v1/" in other or other.endswith("_v1") for other in names)
        basic = any("/basic_v" in other for other in names)
        return place, end_stage(place, first, basic)
    return place, stage


_STAGES = {stage: rank for rank, stage in enumerate(("conv", "bias", "norm", "sum", "act", ""))}


def _of(behind: Any, name: str, index: int) -> int:
    return int(behind[name] if isinstance(behind, Mapping) else behind[index])


def _estimated(places: Sequence[str]) -> list[int]:
    """The roundings behind values at these places: so many for each layer that lies before."""
    units = sorted({unit for place in places if (unit := unit_of(place))}, key=order_of)
    counts, layers = [], 1
    for i, place in enumerate(places):
        if unit := unit_of(place):
            layers = 2 + 3 * (units.index(unit) + 1)
        elif place:
            layers = 2 + 3 * len(units) if order_of(place)[0] == 2 else max(layers, 1)
        else:
            layers = i + 1
        counts.append(layers * _ROUNDINGS_PER_LAYER)
    return counts


def _pixels(images: Any, weights: Weights) -> FloatArray:
    """The network's input [N, H, W, C]; raw pixels go through the weights' recipe."""
    raw = isinstance(images, np.ndarray) and images.dtype == np.uint8
    pixels = preprocess(images, weights.recipe) if raw else images_of(images)
    if pixels.ndim == 3:
        pixels = pixels[None]
    return pixels
