"""What a file holds beside the network: each has a kind, and none that would change the result is passed over."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from refnet.checks import listed
from refnet.errors import ConfigError, WeightsError
from refnet.network.architecture import Architecture
from refnet.network.networks import BY_UNIT
from refnet.network.shapes import hwio

#: What follows the name of a variable in the names of its moving average.
AVERAGE = "/ExponentialMovingAverage"

#: Kinds of tensors, as notes and warnings name them.
TRAINING, UNKNOWN = "state of the training", "not known"

# Variables of an optimizer or of a training loop that belong to no other variable.
_TRAINING = re.compile(
    r"(^|[/.])(global_step|beta[12]_power|learning_rate|save_counter|num_batches_tracked|iterations?)$"
    r"|^(optimizer|optimizer_state|train|training)[/.]"
)
_KERNELS = {"weight", "weights", "kernel"}
_BIASES = {"bias", "biases"}

# Of a layer: by the last part of each tensor's name, the whole name and the tensor.
_Roles = dict[str, tuple[str, np.ndarray]]


class Dense(NamedTuple):
    """A layer of a head: a kernel, and biases or None.

    Attributes
    ----------
    name : str
    kernel : array [height, width, inputs, outputs]
    biases : array [outputs] or None
    tensors : list of str
        The names of both in the file.
    """

    name: str
    kernel: np.ndarray
    biases: np.ndarray | None
    tensors: list[str]

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return int(self.kernel.shape[2])

    @property
    def outputs(self) -> int:
        """Channels that it writes."""
        return int(self.kernel.shape[3])

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a dense layer, or a convolution that is one on each pixel."""
        return self.kernel.shape[:2] == (1, 1)

    def __str__(self) -> str:
        return f"{self.name} {list(self.kernel.shape[2:] if self.is_pointwise else self.kernel.shape)}"


class Head(NamedTuple):
    """What follows the features.

    Attributes
    ----------
    classifier : Dense or None
        The layer that gives the logits; None: there are none.
    not_run : list of str
        The tensors of the other layers that follow the features.
    remark : str or None
        What is not run, and what to do about it.
    """

    classifier: Dense | None
    not_run: list[str]
    remark: str | None


def kind_of(name: str, names: Collection[str]) -> str:
    """The kind of a tensor that belongs to no layer of the network, by its name.

    Parameters
    ----------
    name : str
    names : collection of str
        All tensors of the file, by the names there and by TF-Slim's.

    Returns
    -------
    str
    """
    # A variable's name is never that of a layer: what stands below it is what an optimizer keeps of it.
    variable, _, _ = name.rpartition("/")
    return TRAINING if _TRAINING.search(name) or variable in names else UNKNOWN


def inside(names: Iterable[str], architecture: Architecture) -> list[str]:
    """The tensors below the names of the network's own layers.

    Parameters
    ----------
    names : iterable of str
    architecture : Architecture

    Returns
    -------
    list of str
    """
    scope = re.escape(f"{architecture.scope}/" if architecture.scope else "")
    units = "|".join(rf"{re.escape(block.scope)}/unit_\d+/({'|'.join(BY_UNIT)})" for block in architecture.blocks)
    own = re.compile(rf"^{scope}({units}|conv1(_\d+)?|postnorm)/")
    return [name for name in names if own.match(name)]


def check_inside(names: list[str]) -> None:
    """Refuse tensors of layers that would change the result, if refnet ran them.

    Parameters
    ----------
    names : list of str

    Raises
    ------
    WeightsError
        There are some.
    """
    if names:
        raise WeightsError(
            f"The file holds tensors of layers within the network that refnet does not have: {listed(names)}. "
            "Without them the result would be wrong.",
            tensor=names[0],
            found=names,
        )


def find_head(
    own: Dense | None, tensors: Mapping[str, np.ndarray], features: int, head: str | None, *, outputs_first: bool
) -> Head:
    """Find the classifier among the layers that may follow the features.

    It is the one with the home's own name; or the only layer on the features, whatever its name, if no other follows.

    Parameters
    ----------
    own : Dense or None
        The layer that has the classifier's name.
    tensors : mapping of str to array
        Tensors that belong to no layer of the network.
    features : int
        How many there are.
    head : str or None
        The name in the file of the layer to take. "from_weights": as above. None: no layer, for the features alone.
    outputs_first : bool
        Whether matrices are [outputs, inputs].

    Returns
    -------
    Head

    Raises
    ------
    WeightsError
        A layer can stand between the features and the classifier.
    ConfigError
        There is no layer of that name on the features.
    """
    layers = _layers(tensors)
    dense = [layer for name, roles in layers.items() if (layer := _dense(name, roles, outputs_first)) is not None]
    on_features = [layer for layer in ([own] if own else []) + dense if layer.inputs == features]
    norms = _norms(layers, {features})
    if head is None:
        return Head(None, _names(features, _after(features, own, dense), layers), None)
    if head != "from_weights":
        found = next((layer for layer in on_features if layer.name == head and layer.is_pointwise), None)
        if found is None:
            names = listed([repr(layer.name) for layer in on_features if layer.is_pointwise])
            there = f"the dense layers on the {features} features are {names}" if names else "there is none at all"
            raise ConfigError(f"There is no dense layer {head!r} on the features; {there}.", found=head)
        return Head(found, _names(features, _without(found, _after(features, own, dense)), layers), None)
    if own is not None and (own in on_features or not on_features):
        # Of another shape than the network needs, it is an error later.
        return _checked(own, on_features, norms, features, layers)
    if not on_features:
        return Head(None, [], None)
    alone = on_features[0]
    follows = any(layer.inputs == alone.outputs for layer in _without(alone, dense))
    if own is None and len(on_features) == 1 and alone.is_pointwise and not follows:
        # Layers that read something else, such as features of two pools together, can lead to it too.
        norms += [str(layer) for layer in _without(alone, dense) if layer.outputs == features]
        return _checked(alone, on_features, norms, features, layers)
    not_run = listed(map(str, on_features))
    word = "is" if len(on_features) == 1 else "are"
    return Head(
        None,
        _names(features, _after(features, own, dense), layers),
        f"there are features only, without logits: of the head, {not_run} {word} not run, nor is what follows; head= "
        "names a layer to run, and head=None asks for the features",
    )


def _checked(
    classifier: Dense, on_features: list[Dense], norms: list[str], features: int, layers: Mapping[str, _Roles]
) -> Head:
    """The classifier, if no other layer can stand before it."""
    others = _without(classifier, on_features)
    between = norms + [str(layer) for layer in others if layer.outputs == features]
    if between and classifier in on_features:
        raise WeightsError(
            f"Between the {features} features and the classifier {classifier.name} there can be {listed(between)}, "
            f"which refnet does not run: the logits would be wrong. If the classifier reads the features themselves, "
            f"pass head={classifier.name!r}; for the features alone, head=None.",
            found=between,
        )
    remark = f"other heads are not run: {listed(map(str, others))}; head= names the one to run" if others else None
    return Head(classifier, _names(features, others, layers), remark)


def _after(features: int, own: Dense | None, dense: list[Dense]) -> list[Dense]:
    """The layers that read the features, or what other such layers write."""
    rest, sizes, found = ([own] if own else []) + dense, {features}, []
    while after := [layer for layer in rest if layer.inputs in sizes]:
        found += after
        rest = [layer for layer in rest if layer not in after]
        sizes |= {layer.outputs for layer in after}
    return found


def _without(layer: Dense, layers: list[Dense]) -> list[Dense]:
    return [other for other in layers if other is not layer]


def _names(features: int, dense: list[Dense], layers: Mapping[str, _Roles]) -> list[str]:
    """The tensors of some layers, and of the norms that can follow the features or these layers."""
    norms = _norms(layers, {features, *(layer.outputs for layer in dense)})
    return [name for layer in dense for name in layer.tensors] + [
        name for norm in norms for name, _ in layers[norm].values()
    ]


def _norms(layers: Mapping[str, _Roles], sizes: set[int]) -> list[str]:
    """The layers of several vectors of the same size, without a kernel."""
    return [
        name
        for name, roles in layers.items()
        if len(roles) > 1
        and len({tensor.shape for _, tensor in roles.values()}) == 1
        and all(tensor.ndim == 1 and tensor.size in sizes for _, tensor in roles.values())
    ]


def _layers(tensors: Mapping[str, np.ndarray]) -> dict[str, _Roles]:
    """The tensors of each layer by their role: the last part of the name."""
    layers: dict[str, _Roles] = {}
    for name, tensor in tensors.items():
        layer, role = _split(name)
        layers.setdefault(layer, {})[role] = name, tensor
    return layers


def layer_of(name: str) -> str:
    """The name of the layer that a tensor belongs to.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    return _split(name)[0]


def _split(name: str) -> tuple[str, str]:
    cut = max(name.rfind("/"), name.rfind("."))
    return name[: max(cut, 0)], name[cut + 1 :]


def _dense(name: str, roles: _Roles, outputs_first: bool) -> Dense | None:
    """A layer with a kernel; None for others."""
    kernel = next((roles[role] for role in roles if role in _KERNELS), None)
    if kernel is None or kernel[1].ndim not in (2, 4):
        return None
    biases = next((roles[role] for role in roles if role in _BIASES), None)
    tensors = [entry[0] for entry in (kernel, biases) if entry is not None]
    return Dense(name, hwio(kernel[1], outputs_first=outputs_first), None if biases is None else biases[1], tensors)


def take_averages(
    tensors: Mapping[str, np.ndarray], averages: bool
) -> tuple[dict[str, np.ndarray], dict[str, str], str | None]:
    """Choose between variables and their moving averages, which have the variables' names and `AVERAGE` behind them.

    Parameters
    ----------
    tensors : mapping of str to array
    averages : bool
        Whether to take the averages where there are both. Where there is only one of the two, it is taken.

    Returns
    -------
    tensors : dict of str to array
        By the variables' names.
    left_out : dict of str to str
        Why each of the others was not taken.
    remark : str or None
        What was chosen, if there was a choice.

    Raises
    ------
    ConfigError
        Averages are asked for, and there are none.
    """
    there = {name for name in tensors if name.endswith(AVERAGE)}
    if not there:
        if averages:
            raise ConfigError("The file holds no moving averages of its variables (names ending in " + AVERAGE + ").")
        return dict(tensors), {}, None
    both = {name for name in there if name.removesuffix(AVERAGE) in tensors}
    dropped = {name.removesuffix(AVERAGE) for name in both} if averages else both
    reason = "its moving average was taken" if averages else "it is a moving average, and averages were not asked for"
    taken = {name.removesuffix(AVERAGE): tensor for name, tensor in tensors.items() if name not in dropped}
    if averages or not both:
        remark = f"the moving averages of {len(there)} variables were taken"
    else:
        remark = (
            f"the file holds moving averages of {len(both)} variables, by which such networks are usually evaluated, "
            "and the variables themselves were taken: averages=True takes the averages"
        )
    return taken, dict.fromkeys(dropped, reason), remark
