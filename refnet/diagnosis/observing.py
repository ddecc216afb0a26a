"""Which values of the network a port's arrays are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet.comparison.alignment import GUESSED, Pair, align
from refnet.comparison.layouts import layouts_of
from refnet.comparison.reference import ComputedReference
from refnet.comparison.sources import ALONE, arrays_of
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.observation import ROUNDOFFS, Outputs, is_softmax_of, outputs_of
from refnet.diagnosis.patched import Label
from refnet.errors import InputError
from refnet.graph.graph import Tensor
from refnet.weights.weights import Weights

#: Names of a network's outputs: whether they say that these are probabilities.
_NAMES = {
    "logits": False, "predictions": True, "probabilities": True, "probs": True, "softmax": True, "scores": None,
    "output": None, "outputs": None, "net": None,
}  # fmt: skip
#: Classes more or less that outputs may have.
_MORE_OR_LESS = 2


class Point(NamedTuple):
    """A value of the network that was observed.

    Attributes
    ----------
    name : str
        The array's.
    tensor : int
        The index of its tensor in the network as it is meant.
    outputs : Outputs
    """

    name: str
    tensor: int
    outputs: Outputs


def observe(
    observed: Any, lab: Lab, weights: Weights, options: Mapping[str, Any], mapping: Mapping[str, str]
) -> tuple[list[Point], list[str]]:
    """The values that were observed, in network order, and what is to be said about them.

    Raises
    ------
    InputError
        None of the arrays is a value of the network.
    """
    arrays = arrays_of(observed, "the outputs").arrays
    points, rest = [], {}
    for name, array in arrays.items():
        leaf = _leaf(name)
        point = None
        if name not in mapping and (
            leaf in _NAMES or (len(arrays) == 1 and not _is_a_name(name, array, lab, weights, options))
        ):
            point = _output(name, array, _NAMES.get(leaf), lab)
        if point is None:
            rest[name] = array
        else:
            points.append(point)
    notes: list[str] = []
    if rest and not (len(arrays) == 1 and ALONE in rest):
        points += _layers(rest, lab, weights, options, mapping, notes, needed=not points)
    if not points:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"The outputs are no values of the network: they have the shapes {shapes}; its logits or features have "
            f"{lab.reference.net.shape} for {len(lab.images)} image{'s' if len(lab.images) > 1 else ''}. Pass the "
            "outputs of all images, and no others.",
            expected=lab.reference.net.shape,
        )
    notes += [note for point in points for note in _notes(point, lab)]
    found = {(point.tensor, point.outputs.are_probabilities): point for point in points}
    for tensor, are_probabilities in list(found):
        logits = found.get((tensor, False))
        if are_probabilities and logits and is_softmax_of(found[tensor, True].outputs, logits.outputs):
            del found[tensor, True]  # they tell no more than the logits, and less where they are saturated
    return [found[key] for key in sorted(found)], list(dict.fromkeys(notes))


def _leaf(name: str) -> str:
    """The last part of a name, as `_NAMES` has it."""
    return name.rsplit("/", 1)[-1].split(":")[0].lower()


def _is_a_name(name: str, array: np.ndarray, lab: Lab, weights: Weights, options: Mapping[str, Any]) -> bool:
    """Whether an array's name says which value of the network it is."""
    if name == ALONE:
        return False
    try:
        pairs = align({name: array}, ComputedReference(weights, lab.images, **options), by_value=False).pairs
    except InputError:
        return False
    return any(not pair.how.startswith(GUESSED) for pair in pairs)


def _notes(point: Point, lab: Lab) -> Iterator[str]:
    """What is to be said of how a value was taken."""
    name, outputs, graph = point.name, point.outputs, lab.reference.graph
    if outputs.are_probabilities and _NAMES.get(_leaf(name)) is False:
        yield f"{name} holds probabilities, not logits: they were compared as what they are."
    if outputs.dtype in ROUNDOFFS:
        yield f"The values of {name} are {outputs.dtype}: they are judged by its rounding, which hides small mistakes."
    classes = lab.reference.net.shape[-1]
    if outputs.label is None and outputs.values.shape[-1] != classes:
        yield f"{name} has {outputs.values.shape[-1]} classes and the network {classes}: compare the same classes."
    shape = graph.tensors[point.tensor].shape
    others = [label for label, tensor in graph.made.items() if label[0] == "collect" and tensor.shape == shape]
    if name == ALONE and outputs.label is not None and len(others) > 1:
        yield (
            f"Of {len(others)} values of this shape the array was taken for {outputs.label[1]}: pass "
            "{name: array} if it is another one."
        )


def _output(name: str, array: np.ndarray, named: bool | None, lab: Lab) -> Point | None:
    """An array as the network's logits, probabilities or features, by its shape."""
    graph, net = lab.reference.graph, lab.reference.net
    shape = _shape(array.shape, net.shape)
    if shape is not None:
        return Point(name, net.index, outputs_of(array.reshape(shape), None, named))
    for label in reversed(graph.made):
        tensor = graph.made[label]
        if label[0] in ("reduce_mean", "collect") and tensor.depth == _depth(lab):
            layouts = layouts_of(array.shape, tensor.shape)
            if layouts:
                return Point(name, tensor.index, outputs_of(layouts[0].arranged(array), label))
    return None


def _depth(lab: Lab) -> int:
    """The channels of the features."""
    return next(tensor.depth for tensor in reversed(lab.reference.graph.tensors) if tensor.op in ("relu", "residual"))


def _shape(found: Sequence[int], expected: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of outputs as the network has it, but for a few classes more or less."""
    if not found or abs(found[-1] - expected[-1]) > _MORE_OR_LESS:
        return None
    sizes, wanted = ([size for size in shape[:-1] if size != 1] for shape in (found, expected))
    return (*expected[:-1], found[-1]) if sizes == wanted else None


def _layers(
    arrays: Mapping[str, np.ndarray],
    lab: Lab,
    weights: Weights,
    options: Mapping[str, Any],
    mapping: Mapping[str, str],
    notes: list[str],
    needed: bool,
) -> list[Point]:
    """Arrays as values within the network, by their names and values."""
    reference = ComputedReference(weights, lab.images, **options)
    try:
        alignment = align(arrays, reference, mapping)
    except InputError:
        if needed:
            raise
        notes.append(f"None of {', '.join(list(arrays)[:5])} is a value of the network.")
        return []
    if alignment.unmatched:
        notes.append(f"Left out, as no values of the network: {', '.join(list(alignment.unmatched)[:5])}.")
    labels = {tensor.index: label for label, tensor in lab.reference.graph.made.items()}
    points = (_point(pair, arrays[pair.name], labels, lab) for pair in alignment.pairs)
    return [point for point in points if point is not None]


def _point(pair: Pair, array: np.ndarray, labels: Mapping[int, Label], lab: Lab) -> Point | None:
    index, layout = pair.value.index, pair.layout
    if layout is None or (layout.step, layout.own_step) != (1, 1):
        return None
    tensor, net = lab.reference.graph.tensors[index], lab.reference.net
    values = layout.arranged(array)
    if tensor.op == "softmax":
        return Point(pair.name, index, outputs_of(values.reshape(net.shape), None, True))
    if _is_logits(tensor, net):
        return Point(pair.name, net.index, outputs_of(values.reshape(net.shape), None, None))
    return Point(pair.name, index, outputs_of(values, labels[index])) if index in labels else None


def _is_logits(tensor: Tensor, net: Tensor) -> bool:
    return tensor.index == net.index or (net.op == "squeeze" and net.inputs[0].index == tensor.index)
