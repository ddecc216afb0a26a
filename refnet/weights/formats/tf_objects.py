"""The object graph of TensorFlow 2's checkpoints, in which a variable's key is its path among Python objects.

``tf.train.Checkpoint`` and ``tf.saved_model.save`` write such checkpoints. The graph holds each variable's own name
beside its key.

Source: TensorFlow's ``core/protobuf/trackable_object_graph.proto`` and ``python/trackable/base.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from refnet.errors import FormatError
from refnet.weights.formats.protobuf import messages, parse

#: The key of the graph.
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# Fields of TrackableObjectGraph, TrackableObject and SerializedTensor.
_NODES, _ATTRIBUTES, _FULL_NAME, _CHECKPOINT_KEY = 1, 2, 2, 3


def is_object_based(names: Iterable[str]) -> bool:
    """Whether the tensors' keys are paths.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    bool
    """
    return any(name.endswith(_VALUE_SUFFIX) for name in names)


def full_names(graph: memoryview) -> dict[str, str]:
    """The variables' own names.

    Parameters
    ----------
    graph : memoryview

    Returns
    -------
    dict of str to str
        Names by keys; variables without a name are left out.

    Raises
    ------
    FormatError, LimitError
        The graph is malformed.
    """
    names: dict[str, str] = {}
    for node in messages(parse(graph), _NODES):
        for attribute in messages(parse(node), _ATTRIBUTES):
            fields = parse(attribute)
            name, key = (_text(b"".join(messages(fields, number)[-1:])) for number in (_FULL_NAME, _CHECKPOINT_KEY))
            if names.get(key, name) != name:
                raise FormatError(f"the object graph names the tensor {key!r} twice: {names[key]!r} and {name!r}.")
            if name:
                names[key] = name
    return names


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the object graph has the name {content!r}, which is not UTF-8.") from error
