"""The layers of a network, read off its `refnet.graph.graph.Graph`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import as_int, check_mapping, check_positive
from refnet.graph.graph import Graph
from refnet.network.architecture import Architecture
from refnet.network.networks import BY_UNIT, network_blocks
from refnet.tables import html_table
from refnet.weights.weights import Weights
from refnet_kernels.catalog import OPS

#: The variables that batch norm computes and no gradient reaches.
_STATISTICS = ("moving_mean", "moving_variance")


#: The columns of a summary's rows.
COLUMNS = ("layer", "operation", "output", "parameters", "connected to")
_NUMERIC = COLUMNS.index("parameters")


class Layer(NamedTuple):
    """One operation, with the biases that follow it.

    Attributes
    ----------
    name : str
        The scope of its variables, or its end point.
    operation : str
        For instance "conv 3x3/2": a kernel of 3 x 3 and a stride of 2.
    shape : tuple of int
        Shape of the output, for a batch of 1.
    parameters : int
    connected_to : list of str
        The layers whose outputs it reads.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    parameters: int
    connected_to: list[str]


class Summary(NamedTuple):
    """A network's layers and its parameters in total."""

    architecture: Architecture
    layers: list[Layer]
    trainable: int
    non_trainable: int

    @property
    def rows(self) -> list[list[str]]:
        """Name, operation, shape of the output, parameters and inputs of each layer, without what all names share."""
        return [_row(layer, self.architecture.scope) for layer in self.layers]

    def __str__(self) -> str:
        """A table of `COLUMNS`, and the sums."""
        lines = [list(COLUMNS), *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        padded = [
            "  ".join(
                cell.rjust(w) if i == _NUMERIC else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([*(line.rstrip() for line in padded), "", *self.totals])

    @property
    def totals(self) -> list[str]:
        """How many parameters there are of each kind, and their size."""
        kinds = {"total": self.total, "trainable": self.trainable, "non-trainable": self.non_trainable}
        return [f"{kind} parameters: {count:,} ({count * 4 / 2**20:.2f} MiB)" for kind, count in kinds.items()]

    def __repr__(self) -> str:
        return f"<Summary of {self.architecture.scope}: {len(self.layers)} layers, {self.total:,} parameters>"

    def _repr_html_(self) -> str:
        return html_table(repr(self)[1:-1], COLUMNS, self.rows)

    @property
    def total(self) -> int:
        """All parameters."""
        return self.trainable + self.non_trainable


def summarize(network: str | Mapping[str, Any], size: int = 224) -> Summary:
    """List the layers of a network.

    Parameters
    ----------
    network : str, or mapping of str to array
        The name of one of TF-Slim's networks (with its 1001 classes), or weights.
    size : int
        Height and width of the input.

    Raises
    ------
    ConfigError
        There is no network of that name.
    WeightsError
        The weights are not those of a ResNet, or do not fit together.
    """
    size = as_int(size)
    check_positive(size=size)
    variables: Mapping[str, Any] = {}
    if isinstance(network, str):
        architecture, arg_scope = Architecture(network, network_blocks(network), 1001, True, 3), None
    else:
        check_mapping(network=network)
        variables = weights = network if isinstance(network, Weights) else Weights(network)
        architecture, arg_scope = weights.architecture, weights.arg_scope
    net, _ = architecture.trace(variables, (1, size, size, architecture.channels), arg_scope)
    if not isinstance(network, str):
        net.graph.check_variables()
    return summary_of(net.graph, architecture)


def summary_of(graph: Graph, architecture: Architecture) -> Summary:
    """List the layers of a graph.

    Parameters
    ----------
    graph : Graph
    architecture : Architecture
        What it was made from.

    Returns
    -------
    Summary
    """
    # A network given by name has no variables: what it is missing is all that it has.
    sizes = {name: math.prod(shape) for name, shape in graph.missing}
    sizes |= {name: int(np.size(graph.variables[name])) for name in graph.used if name in graph.variables}
    fixed = sum(count for name, count in sizes.items() if name.endswith(_STATISTICS))
    return Summary(architecture, _layers(graph, sizes), sum(sizes.values()) - fixed, fixed)


def _layers(graph: Graph, sizes: Mapping[str, int]) -> list[Layer]:
    names = _names(graph)
    layers: dict[str, Layer] = {}
    for tensor in graph.tensors:
        name = names[tensor.index]
        parameters = sum(sizes[variable] for variable in tensor.variables.values())
        if tensor.op == "bias_add":
            layers[name] = layers[name]._replace(parameters=layers[name].parameters + parameters)
        else:
            connected_to = [names[source.index] for source in tensor.inputs]
            layers[name] = Layer(name, OPS[tensor.op].word(tensor.geometry), tensor.shape, parameters, connected_to)
    return list(layers.values())


def _names(graph: Graph) -> dict[int, str]:
    """A name for each tensor; a convolution and its biases share one."""
    end_points: dict[int, str] = {}
    for name, tensor in graph.end_points.items():
        end_points.setdefault(tensor.index, name)
    names: dict[int, str] = {}
    for tensor in graph.tensors:
        if tensor.variables:
            names[tensor.index] = next(iter(tensor.variables.values())).rsplit("/", 1)[0]
        elif tensor.op == "relu":
            names[tensor.index] = f"{end_points[tensor.index]}/Relu"
            if tensor.inputs[0].op == "residual":  # the first version's unit
                names[tensor.inputs[0].index] = end_points[tensor.index]
        elif tensor.op == "input":
            names[tensor.index] = "input"
        elif tensor.index in end_points:
            names[tensor.index] = end_points[tensor.index]
    for tensor in reversed(graph.tensors):
        for source in tensor.inputs:
            # TF-Slim's name for the subsampled input of a unit, which is not an end point.
            names.setdefault(source.index, f"{names[tensor.index]}/shortcut")
    return names


def _row(layer: Layer, scope: str) -> list[str]:
    """A row of the table, with short names: without the scope, and inside a unit without the unit."""
    name = _short(layer.name, scope)
    unit = name.split("/")[:2]
    sources = [_short(source, scope) for source in layer.connected_to]
    sources = [source.removeprefix(f"{'/'.join(unit)}/") if len(unit) == 2 else source for source in sources]
    shape = "x".join(map(str, layer.shape[1:]))
    return [name, layer.operation, shape, f"{layer.parameters:,}", ", ".join(sources)]


#: What stands between a unit and its variables.
_UNIT_NAMES = "/" + "|/".join(BY_UNIT)


def _short(name: str, scope: str) -> str:
    return re.sub(_UNIT_NAMES, "", name.removeprefix(f"{scope}/") if scope else name)
