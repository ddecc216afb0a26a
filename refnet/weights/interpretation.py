"""What the tensors of a file, or of a mapping by another framework's names, are: one network, and what is beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refnet.graph.graph import ArgScope, Graph
from refnet.images.preprocess import Recipe
from refnet.network.architecture import Architecture, infer_architecture
from refnet.run.variables import array_of
from refnet.weights import leftovers
from refnet.weights.conversion import Conversion
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes import home_of, network_in
from refnet.weights.leftovers import Dense


class Interpretation(NamedTuple):
    """One network of a file.

    Attributes
    ----------
    tensors : dict of str to array
        Under TF-Slim's names; those beside the network have the names that they have in the file.
    options : dict of str to Any
        As in `refnet.Weights`.
    recipe : Recipe or None
    conversion : Conversion
    doubts : list of str
        What a user should know before trusting the result, in sentences.
    not_run : list of str
        Tensors of heads that are not run; they are left out.
    architecture : Architecture
    stride_place : str or None
        The option that the architecture was read with.
    graph : Graph
        Of the tensors, for a small image.
    home : str
        The title of the tensors' home; "" if they have TF-Slim's names.
    untold : str
        What the tensors do not tell about the network, or "".
    unsettled : str
        The same, where the result is wrong if it is another network; or "".
    """

    tensors: dict[str, np.ndarray]
    options: dict[str, Any]
    recipe: Recipe | None
    conversion: Conversion
    doubts: list[str]
    not_run: list[str]
    architecture: Architecture
    stride_place: str | None
    graph: Graph
    home: str
    untold: str
    unsettled: str


def interpret(
    loaded: Loaded,
    options: Mapping[str, Any] | None = None,
    *,
    scope: str | None = None,
    head: str | None = "from_weights",
    averages: bool = False,
) -> Interpretation:
    """Give the tensors of a network TF-Slim's names, find its classifier, and sort what is left over.

    Parameters
    ----------
    loaded : Loaded
    options : mapping of str to Any, optional
        Those in the file's metadata; for files of other frameworks, these are their home's.
    scope, head, averages
        As for `refnet.load_weights`.

    Returns
    -------
    Interpretation

    Raises
    ------
    ConfigError
        ``scope``, ``head`` or ``averages`` asks for what is not there, or the file holds several networks.
    WeightsError
        There is no network that refnet has, or layers that would change the result would be left over.
    """
    tensors, left_out, remark = leftovers.take_averages(loaded.tensors, averages and not loaded.averaged)
    doubts = [remark] if remark else []
    named, others, outputs_first, home = network_in(loaded._replace(tensors=tensors), scope)
    left_out |= {name: f"it belongs to another network, below {other!r}" for name, other in others.items()}
    own_options = dict(named.options if named.renamed else options or {})
    place = own_options.get("stride_place")
    found = infer_architecture(named.tensors, stride_place=place)
    arg_scope = ArgScope(**{name: value for name, value in own_options.items() if name in ArgScope._fields})
    graph = found.graph(named.tensors, arg_scope)
    extra = {
        name: tensor for name, tensor in named.tensors.items() if name not in graph.used and tensor.dtype.kind == "f"
    }
    in_file = named.tensors.keys() | set(named.renamed.values())
    kinds = {name: leftovers.kind_of(name, in_file) for name in extra}
    unknown = {name: extra[name] for name, kind in kinds.items() if kind == leftovers.UNKNOWN}
    within = {*named.inside, *leftovers.inside(unknown, found)} & unknown.keys()
    if arg_scope.bias_before_batch_norm is False:
        # Biases that the file itself says are not to be added.
        within -= found.graph(named.tensors, arg_scope._replace(bias_before_batch_norm=None)).used
    # Where variables are missing, these may be they, by other names: that error comes when the network is run.
    if not graph.missing:
        leftovers.check_inside(sorted(within))

    own = _own_classifier(named.tensors, found, named.renamed)
    features = int(found.blocks[-1].args[-1]["depth"])
    # A head that somebody names can be any of the file's.
    apart = set(named.not_run) & unknown.keys() if head == "from_weights" else set()
    heads = {name: tensor for name, tensor in unknown.items() if name not in apart}
    chosen = leftovers.find_head(own, heads, features, head, outputs_first=outputs_first)
    doubts += [remark for remark in (chosen.remark, named.doubt if apart else "") if remark]
    named_tensors, renamed, added = dict(named.tensors), dict(named.renamed), list(named.added)
    logits, not_run = _logits(found), [*chosen.not_run, *sorted(apart)]
    if own is not None and chosen.classifier is not own:
        for slim in (f"{logits}/weights", f"{logits}/biases"):
            if named_tensors.pop(slim, None) is not None:
                not_run.append(renamed.pop(slim, slim))
    for name in not_run:
        named_tensors.pop(name, None)
    left_out |= dict.fromkeys(not_run, "it belongs to a head that is not run")
    if chosen.classifier is not own:
        if chosen.classifier is not None:
            _put(chosen.classifier, logits, named_tensors, renamed, added)
        found = infer_architecture(named_tensors, stride_place=place)
        graph = found.graph(named_tensors, arg_scope)
    before = loaded.conversion
    conversion = replace(
        before,
        renamed={name: key for name, key in before.renamed.items() if name in named_tensors}
        | {slim: before.renamed.get(name, name) for slim, name in renamed.items()},
        left_out=before.left_out | left_out,
        added=before.added + added,
        kinds={name: kind for name, kind in kinds.items() if name in named_tensors},
        remarks=before.remarks + named.remarks,
        recipe_from=f"the default of {home}" if named.recipe else "",
        standardized=dict(named.standardized),
    )
    return Interpretation(
        named_tensors,
        own_options,
        named.recipe,
        conversion,
        doubts,
        not_run,
        found,
        place,
        graph,
        home,
        named.untold,
        named.unsettled,
    )


def _logits(architecture: Architecture) -> str:
    return f"{architecture.scope}/logits" if architecture.scope else "logits"


def _own_classifier(
    tensors: Mapping[str, np.ndarray], architecture: Architecture, renamed: Mapping[str, str]
) -> Dense | None:
    """The layer with the classifier's own name."""
    place = _logits(architecture)
    kernel = tensors.get(f"{place}/weights")
    if kernel is None or kernel.ndim != 4:
        return None
    names = [f"{place}/weights", f"{place}/biases"]
    original = [renamed.get(name, name) for name in names if name in tensors]
    return Dense(leftovers.layer_of(original[0]), kernel, tensors.get(names[1]), original)


def _put(
    classifier: Dense, place: str, tensors: dict[str, np.ndarray], renamed: dict[str, str], added: list[str]
) -> None:
    """Give a layer the classifier's name."""
    for name in classifier.tensors:
        del tensors[name]
    tensors[f"{place}/weights"] = classifier.kernel
    renamed[f"{place}/weights"] = classifier.tensors[0]
    biases = f"{place}/biases"
    if classifier.biases is None:
        # Zeros change no bit: a sum starts at +0, so it is never -0.
        tensors[biases] = np.zeros(classifier.outputs, np.float32)
        added.append(biases)
    else:
        tensors[biases] = classifier.biases
        renamed[biases] = classifier.tensors[1]


def interpret_arrays(tensors: Mapping[str, Any], scope: str | None = None) -> Interpretation | None:
    """`interpret` for a mapping in memory.

    Parameters
    ----------
    tensors : mapping of str to array
    scope : str, optional

    Returns
    -------
    Interpretation or None
        None: the names are of no framework that refnet knows.

    Raises
    ------
    ConfigError, WeightsError
        As `interpret` raises them, and for values that are not arrays of numbers.
    """
    loaded = Loaded({name: array_of(name, value) for name, value in tensors.items()}, "arrays", {}, Conversion())
    if scope is None and home_of(loaded) is None:
        return None
    found = interpret(loaded, scope=scope)
    untold = [sentence for sentence in (found.untold, found.unsettled) if sentence]
    conversion = replace(found.conversion, remarks=found.conversion.remarks + untold + found.doubts)
    return found._replace(conversion=conversion)
