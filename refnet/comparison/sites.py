"""The values of a network, and the places where they arise, by which other frameworks' names are understood.

A *place* is a layer's name without the network's scope and the kind of its units: ``block1/unit_1/conv1``. The values
that arise there one after the other are its *stages*: the convolution's sum, the bias added, the batch norm, the ReLU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refnet.graph.graph import Graph, Tensor
from refnet.network.names import NUMBER
from refnet.network.networks import BY_UNIT

#: The stage of each operation's value; that of others is the operation's own name.
STAGES = {
    "conv": "conv",
    "bias_add": "bias",
    "batch_norm": "norm",
    "batch_norm_training": "norm",
    "group_norm": "norm",
    "relu": "act",
    "residual": "sum",
    "max_pool": "pool",
    "avg_pool": "pool",
    "subsample": "subsample",
}
#: How TensorFlow calls the operation, for the name of a value that is not an end point.
_OPERATIONS = {
    "conv": "Conv2D",
    "bias_add": "BiasAdd",
    "batch_norm": "FusedBatchNorm",
    "batch_norm_training": "FusedBatchNorm",
    "group_norm": "GroupNorm",
    "relu": "Relu",
    "residual": "add",
}
#: What a stage is, in a sentence.
WORDS = {
    "conv": "the convolution without its bias",
    "bias": "the convolution with its bias",
    "norm": "the value of the norm, before the ReLU",
    "act": "the value after the ReLU",
    "sum": "the sum of the unit",
    "subsample": "the subsampled input",
}

_KIND = re.compile(rf"(?P<unit>(?:^|/)unit_{NUMBER})/(?:{'|'.join(BY_UNIT)})(?=/|\Z)")
_NORM = re.compile(r"/[A-Z]\w*Norm\Z")


@dataclass(frozen=True)
class Value:
    """A value of the reference.

    Attributes
    ----------
    name : str
        TF-Slim's name, where it is an end point; else the name that TensorFlow gives the operation, or the file's.
    place, stage : str
        Where it arises; "" if its name does not tell.
    shape : tuple of int
    index : int
        Its place in network order; in a graph, that of its tensor.
    end_point : bool
        Whether TF-Slim returns it.
    operation : str
        "conv", "batch_norm", ...; "" where it is not known.
    roundings : int
        On the longest way from the images to it, or an estimate of them.
    """

    name: str
    place: str
    stage: str
    shape: tuple[int, ...]
    index: int
    end_point: bool = True
    operation: str = ""
    roundings: int = 0


def place_of(name: str, scope: str = "") -> str:
    """The place of a layer or an end point, by its full name.

    Parameters
    ----------
    name : str
    scope : str
        The network's.

    Returns
    -------
    str
    """
    below = name.removeprefix(f"{scope}/") if scope else name
    return _NORM.sub("", _KIND.sub(r"\g<unit>", below, count=1))


def values_of(graph: Graph, scope: str, roundings: Sequence[int]) -> list[Value]:
    """Every value of a network, in network order.

    Parameters
    ----------
    graph : Graph
        Of the whole network.
    scope : str
    roundings : sequence of int
        See `refnet.evidence.end_points.roundings`.

    Returns
    -------
    list of Value
    """
    names: dict[int, str] = {}
    for name, tensor in graph.end_points.items():
        names.setdefault(tensor.index, name)
    layers = _layers(graph, names)
    values = []
    for tensor in graph.tensors:
        layer, stage = layers[tensor.index], STAGES.get(tensor.op, tensor.op)
        operation = "" if tensor.op == "input" else f"/{_OPERATIONS.get(tensor.op, stage)}"
        name = names.get(tensor.index) or layer + operation
        values.append(
            Value(
                name, place_of(layer, scope), stage, tensor.shape, tensor.index, tensor.index in names, tensor.op,
                roundings[tensor.index],
            )
        )  # fmt: skip
    return values


def _layers(graph: Graph, names: dict[int, str]) -> dict[int, str]:
    """The layer at which each tensor arises: that of its variables, or that of its input, or its end point."""
    layers: dict[int, str] = {}
    readers: dict[int, Tensor] = {}
    for tensor in graph.tensors:
        for source in tensor.inputs:
            readers[source.index] = tensor
        if tensor.variables:
            layers[tensor.index] = _NORM.sub("", next(iter(tensor.variables.values())).rpartition("/")[0])
        elif tensor.op in ("relu", "squeeze"):
            layers[tensor.index] = layers.get(tensor.inputs[0].index) or names.get(tensor.index, tensor.op)
        elif tensor.index in names:
            layers[tensor.index] = names[tensor.index]
        elif tensor.op == "input":
            layers[tensor.index] = "input"
    for tensor in reversed(graph.tensors):
        if tensor.index not in layers:
            reader = readers.get(tensor.index)
            after = tensor.op if reader is None else names.get(reader.index) or layers[reader.index]
            # The sum of the first version's unit is named by the ReLU that follows; a subsampled input by the sum.
            layers[tensor.index] = f"{after}/shortcut" if tensor.op == "subsample" else after
        if tensor.op == "relu" and tensor.inputs[0].op == "residual":
            layers[tensor.index] = layers[tensor.inputs[0].index] = names.get(tensor.index, layers[tensor.index])
    return layers


def unit_of(place: str) -> str:
    """The unit that a place is in, or "".

    Parameters
    ----------
    place : str

    Returns
    -------
    str
    """
    match = re.match(rf"[^/]+/unit_{NUMBER}(?=/|\Z)", place)
    return match[0] if match else ""


def block_of(place: str) -> str:
    """The block that a place is in, or "".

    Parameters
    ----------
    place : str

    Returns
    -------
    str
    """
    return unit_of(place).partition("/")[0]


def end_stage(place: str, first_version: bool, basic: bool) -> str:
    """The stage that TF-Slim's end point of a place is, by the version of the network and the kind of its units.

    Parameters
    ----------
    place : str
    first_version, basic : bool

    Returns
    -------
    str
        "" if it is not known.
    """
    unit = unit_of(place)
    if place == unit != "" or re.fullmatch(r"block[0-9]{1,4}", place):
        return "act" if first_version else "sum"
    if place == f"{unit}/{'conv2' if basic else 'conv3'}" or place == f"{unit}/shortcut":
        return "norm" if first_version else "bias"
    if place == "conv1":
        return "act" if first_version else "bias"
    known = {"pool1": "pool", "pool5": "mean", "logits": "bias", "predictions": "softmax", "postnorm": "act"}
    return known.get(place, "act" if unit and not place.endswith("avg_pool") else "")


_IN_UNIT = ("preact", "shortcut", "avg_pool", "conv1", "conv2", "conv3", "")
_ENDS = ("postnorm", "pool5", "global_pool", "logits", "predictions")


def order_of(place: str) -> tuple[int, int, int, int]:
    """A key that puts places of any ResNet in network order, where no graph tells it.

    Parameters
    ----------
    place : str

    Returns
    -------
    tuple of int
    """
    if unit := unit_of(place):
        block, _, number = unit.partition("/unit_")
        layer = place[len(unit) :].strip("/")
        digits = re.search(r"[0-9]{1,4}\Z", block)
        return (1, int(digits[0]) if digits else 0, int(number), _IN_UNIT.index(layer) if layer in _IN_UNIT else 0)
    if match := re.fullmatch(r"block([0-9]{1,4})", place):
        return (1, int(match[1]), 10_000, 0)
    if place in _ENDS:
        return (2, _ENDS.index(place), 0, 0)
    return (0, 0 if place == "input" else 2 if place == "pool1" else 1, 0, 0)


def stages_by_place(values: Iterable[Value]) -> dict[str, list[Value]]:
    """The values that arise at each place, in their order; at a unit's or a block's, that of its end.

    Parameters
    ----------
    values : iterable of Value

    Returns
    -------
    dict of str to list of Value
    """
    places: dict[str, list[Value]] = {}
    for value in values:
        if value.place:
            places.setdefault(value.place, []).append(value)
    own = set(places)
    for place in list(places):
        if place == unit_of(place) and block_of(place) not in own:
            places[block_of(place)] = places[place]
    return places
