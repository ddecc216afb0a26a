"""The layers of a network, read off its `refnet.graph.graph.Graph`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import as_int, check_mapping, check_positive
from refnet.graph.graph import Graph
from refnet.network.architecture import Architecture
from refnet.network.networks import network_blocks
from refnet.tables import html_table
from refnet.weights.weights import Weights
from refnet_kernels.catalog import OPS

#: The variables that batch norm computes and no gradient reaches.
_STATISTICS = ("moving_mean", "moving_variance")


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

    def __repr__(self) -> str:
        return f"<Summary of {self.architecture.scope}: {len(self.layers)} layers, {self.total:,} parameters>"

    def _repr_html_(self) -> str:
        rows = [[layer.name, layer.operation, list(layer.shape), layer.parameters] for layer in self.layers]
        return html_table(repr(self)[1:-1], ["layer", "operation", "shape", "parameters"], rows)

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
    graph = net.graph
    if not isinstance(network, str):
        graph.check_variables()
    # A network given by name has no variables: what it is missing is all that it has.
    sizes = {name: math.prod(shape) for name, shape in graph.missing}
    sizes |= {name: int(np.size(variables[name])) for name in graph.used if name in variables}
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
