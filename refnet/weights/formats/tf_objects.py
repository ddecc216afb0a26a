"""The object graph of TensorFlow 2's checkpoints, in which a variable's key is its path among Python objects.

``tf.train.Checkpoint`` and ``tf.saved_model.save`` write such checkpoints. The graph holds each variable's own name
beside its key.

Sources: TensorFlow's ``core/protobuf/trackable_object_graph.proto`` and ``python/trackable/base.py``; for the names by
paths, google-research's ``big_transfer``, ``bit_tf2/models.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from refnet.errors import FormatError
from refnet.weights.formats.protobuf import messages, parse

#: The key of the graph.
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT, _METRICS = "/.OPTIMIZER_SLOT/", "keras_api/metrics/"
_ITERATIONS = re.compile(rf"(?P<optimizer>.+/)(_?iterations|iter){re.escape(_VALUE_SUFFIX)}\Z", re.DOTALL)
# The objects of BiT's network. From TensorFlow 2.2 on its variables' own names lack the scopes, and so repeat.
_BITS_PATH = re.compile(
    r"(?P<outer>(?:.+/)?)(?:_root/.*(?P<root>kernel)|_pre_head/0/(?P<norm>_?(?:gamma|beta))|_head/(?P<head>kernel|bias)"
    r"|_blocks/(?P<block>[0-9]{1,4})/layer_with_weights-(?P<unit>[0-9]{1,4})/"
    r"(?P<part>_proj|_unit_a_conv|_unit_[abc]/layer_with_weights-[01])/(?P<role>kernel|_?gamma|_?beta)"
    rf"){re.escape(_VALUE_SUFFIX)}\Z",
    re.DOTALL,
)
_BITS_PARTS = {"_proj": "a/proj", "_unit_a_conv": "a", "_unit_a": "a", "_unit_b": "b", "_unit_c": "c"}
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


def state_of_training(keys: Iterable[str]) -> set[str]:
    """The keys of what Keras' metrics and optimizers keep.

    These are slots of variables, and what is below an object that counts its iterations.

    Parameters
    ----------
    keys : iterable of str

    Returns
    -------
    set of str
    """
    keys = list(keys)
    optimizers = tuple(match["optimizer"] for match in map(_ITERATIONS.match, keys) if match)
    # Keras 3's optimizers hold the variables of the model, too.
    models = tuple(f"{optimizer}_trainable_variables/" for optimizer in optimizers)
    kept = (*optimizers, _METRICS)
    return {key for key in keys if _SLOT in key or (key.startswith(kept) and not key.startswith(models))}


def names_by_path(keys: Iterable[str]) -> dict[str, str]:
    """The names of variables whose own names may not tell them apart, where their paths do: those of BiT's files.

    Parameters
    ----------
    keys : iterable of str

    Returns
    -------
    dict of str to str
        Names by keys.
    """
    matches = [match for match in map(_BITS_PATH.match, keys) if match]
    networks = {match["outer"] for match in matches if match["part"] == "_unit_a_conv"}
    return {m.string: f"{m['outer']}resnet/{_bits_name(m)}" for m in matches if m["outer"] in networks}


def _bits_name(match: re.Match[str]) -> str:
    """The name in BiT's own files."""
    if match["block"] is None:
        layer = "root_block/standardized_conv2d" if match["root"] else "group_norm" if match["norm"] else "head/dense"
        return f"{layer}/{(match['root'] or match['norm'] or match['head']).removeprefix('_')}"
    kind = "standardized_conv2d" if match["role"] == "kernel" else "group_norm"
    part = _BITS_PARTS[match["part"].partition("/")[0]]
    return f"block{int(match['block']) + 1}/unit{int(match['unit']) + 1:02d}/{part}/{kind}/{match['role'].lstrip('_')}"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the object graph has the name {content!r}, which is not UTF-8.") from error
