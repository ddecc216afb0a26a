"""Weights by TF-Slim's names: load, save, draw at random, and read the architecture off them."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refnet import doubts, keras_names, timm_names, torchvision_names
from refnet.conversion import Conversion
from refnet.errors import (
    ConfigError,
    CorruptError,
    DtypeError,
    MissingTensorError,
    RefnetWarning,
    ShapeMismatchError,
    WeightsError,
)
from refnet.graph import ArgScope, Graph
from refnet.networks import UNITS, network_blocks, resnet_of
from refnet.predictions import IMAGENET, WITH_BACKGROUND
from refnet.preprocess import VGG, Recipe
from refnet.resnet_utils import Block
from refnet.resnet_v1 import NETWORKS as V1_NETWORKS
from refnet.resnet_v1 import resnet_v1
from refnet.resnet_v2 import NETWORKS
from refnet_kernels.contract import Float32Array


class Architecture(NamedTuple):
    """What the names and shapes of a network's variables tell.

    Attributes
    ----------
    scope : str
        What stands before every name.
    blocks : list of Block
        Widths and units as the shapes have them; the strides as `infer_architecture` says.
    num_classes : int or None
        None without logits.
    include_root_block : bool
    channels : int
        Of the input.
    root_depths : tuple of int or None
        See `refnet.resnet_v2.resnet_v2`.
    """

    scope: str
    blocks: list[Block]
    num_classes: int | None
    include_root_block: bool
    channels: int
    root_depths: tuple[int, ...] | None = None


class Weights(Mapping[str, Float32Array]):
    """A read-only mapping of TF-Slim's variable names to float32 arrays, and what else the file said.

    Parameters
    ----------
    tensors : mapping of str to array
    recipe, labels, options, source, conversion
        See the attributes.
    copy : bool
        False takes the arrays themselves, and makes them read-only.

    Attributes
    ----------
    recipe : Recipe
        How raw uint8 pixels become the network's input; where nobody says it, what TF-Slim does for these names.
    image_size : tuple of int or None, or None
        Height and width of the images that the weights classify best, where the recipe was given.
    labels : list of str or None
        A name for each class.
    options : dict of str to Any
        The options of `refnet.Engine` that the network was trained with, where they are not TF-Slim's:
        ``batch_norm_epsilon``, ``pool_mode``, ``bias_before_batch_norm``, ``stride_place``, ``avg_down``.
    source : str
        The format that the weights were read from.
    conversion : Conversion
        What was converted or left out on the way; ``notes`` says it in sentences.
    engines : dict
        The engines that `forward` made for these weights.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        *,
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        source: str = "arrays",
        conversion: Conversion | None = None,
        copy: bool = True,
    ) -> None:
        self.conversion = conversion or Conversion()
        self._tensors = as_variables(tensors, self.conversion, copy)
        self.recipe = recipe or slim_recipe(self._tensors)
        self.image_size = None if recipe is None else (recipe.height, recipe.width)
        self.labels = list(labels) if labels is not None else None
        self.options = dict(options or {})
        self.source = source
        self.engines: dict[Any, Any] = {}

    def __getitem__(self, name: str) -> Float32Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def arg_scope(self) -> ArgScope:
        """The options that the graph is made with."""
        return ArgScope(**{name: value for name, value in self.options.items() if name in ArgScope._fields})

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The options that make another function of the tensors than TF-Slim does: their values and TF-Slim's."""
        return {
            name: (value, SLIM_OPTIONS.get(name))
            for name, value in self.options.items()
            if value != SLIM_OPTIONS.get(name)
        }

    @property
    def notes(self) -> list[str]:
        """What was converted or left out on the way, in sentences."""
        return self.conversion.notes

    def __repr__(self) -> str:
        parameters = sum(tensor.size for tensor in self._tensors.values())
        return f"<Weights from {self.source}: {len(self)} tensors, {parameters:,} parameters>"


#: In which unit a block strides.
STRIDE_PLACES = ("last_unit", "first_unit")
#: The options that belong to weights, with TF-Slim's values.
SLIM_OPTIONS: dict[str, Any] = {
    "batch_norm_epsilon": ArgScope().batch_norm_epsilon,
    "pool_mode": ArgScope().pool_mode,
    "bias_before_batch_norm": ArgScope().bias_before_batch_norm,
    "stride_place": STRIDE_PLACES[0],
    "avg_down": ArgScope().avg_down,
}


def as_variables(
    tensors: Mapping[str, Any], conversion: Conversion | None = None, copy: bool = True
) -> dict[str, Float32Array]:
    """Read-only, contiguous float32 arrays of a mapping's floating-point tensors.

    Wider and narrower floats are converted, integers (``global_step``) left out; ``conversion`` is told of
    both. Without ``copy`` arrays that need no conversion are taken themselves.

    Raises
    ------
    WeightsError
        A key is no string, or a value no array.
    DtypeError
        A tensor of the network itself is of integers, complex numbers, strings or booleans.
    """
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"Weights are a mapping of names to arrays, not {type(tensors).__name__}.")
    conversion = conversion or Conversion()
    variables = {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise WeightsError(f"The names of weights are strings; {name!r} is {type(name).__name__}.")
        array = _array_of(name, value)
        if array.dtype.kind == "f":
            if array.dtype.itemsize != 4:
                conversion.converted[name] = str(array.dtype)
            with np.errstate(over="ignore"):
                array = np.array(array, np.float32, order="C", copy=copy or None)
            array.flags.writeable = False
            variables[name] = array
        elif _VARIABLE.search(name):
            raise DtypeError(
                f"{name} is of {array.dtype}, which is no float.", tensor=name, expected="float32", found=array.dtype
            )
        else:
            conversion.left_out[name] = f"{array.dtype} is no float"
    return variables


#: The leaves of the network's own variables.
_VARIABLE = re.compile(r"(^|/)(weights|biases|gamma|beta|moving_mean|moving_variance)$")


def _array_of(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:
        raise WeightsError(f"{name} cannot be read as an array: {error}", tensor=name) from error
    if array.dtype.kind in "OSUV":
        raise DtypeError(f"{name} is no array of numbers, but of {array.dtype}.", tensor=name, found=array.dtype)
    return array


def load_weights(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    labels: Sequence[str] | None = None,
    strict: bool = False,
) -> Weights:
    """Load the weights of a ResNet, of its first or second version.

    Parameters
    ----------
    path : path
        A TF checkpoint (V1 or V2, by its prefix, its directory or any of its files), the directory of a SavedModel
        or of a module of TensorFlow Hub, a safetensors file, an .npz, or a .h5,
        .weights.h5 or .keras file of Keras Applications' ResNets; the content decides, not the name. The tensors may
        have timm's or torchvision's names too (`refnet.timm_names`, `refnet.torchvision_names`).
    recipe : Recipe, optional
        How raw pixels are preprocessed. By default what the file says; if it says nothing, the recipe of TF-Slim's
        released weights: Inception's, 299 x 299, and for its ResNet v1 VGG's, 224 x 224.
    labels : sequence of str, optional
        A name for each class.
    strict : bool
        Whether tensors that are not part of the network are an error, not a note.

    Returns
    -------
    Weights

    Raises
    ------
    WeightsError
        FormatError, CorruptError, DtypeError or LimitError: the file cannot be used. MissingTensorError: it holds no
        ResNet.
    FileNotFoundError, PermissionError
        From the system.
    """
    from refnet import formats

    loaded = formats.read(path)
    tensors, stored = loaded.tensors, loaded.metadata
    if recipe is None and "recipe" in stored:
        recipe = recipe_from(stored["recipe"])
    options = options_from(stored.get("options", {}))
    if loaded.format.startswith(formats.KERAS) or keras_names.is_keras(tensors):
        keys = loaded.conversion.renamed.copy()
        tensors, renamed, version = keras_names.slim_tensors(tensors)
        loaded.conversion.renamed = {slim: keys.get(name, name) for slim, name in renamed.items()}
        recipe, options = recipe or version.recipe, version.options
    elif timm_names.is_timm(tensors):
        recipe, options = recipe or timm_names.RECIPE, timm_names.options_of(tensors)
        tensors = timm_names.slim_tensors(tensors, loaded.conversion)
    elif torchvision_names.is_torchvision(tensors):
        tensors = torchvision_names.slim_tensors(tensors, loaded.conversion)
        recipe, options = recipe or torchvision_names.RECIPE, torchvision_names.OPTIONS
    timm_names.refuse_others(tensors)
    if recipe is None and loaded.format.startswith(formats.TF_CHECKPOINT) and _is_released(tensors):
        recipe = slim_recipe(tensors)
    weights = Weights(
        tensors,
        recipe=recipe,
        labels=labels if labels is not None else stored.get("labels"),
        options=options,
        source=loaded.format,
        conversion=loaded.conversion,
        copy=False,
    )
    _check_finite(weights)
    architecture = infer_architecture(weights)
    _check_labels(weights.labels, architecture.num_classes)
    extra = sorted(set(weights) - variables_of(architecture, weights.arg_scope))
    if extra:
        weights.conversion.extra += extra
        if strict:
            raise WeightsError(f"The file holds tensors that are not part of the network: {', '.join(extra)}.")
        message = f"{len(extra)} tensors are not part of the network: {', '.join(extra[:8])}"
        warnings.warn(message, RefnetWarning, stacklevel=2)
    if recipe is None and weights.recipe != VGG and resnet_of(architecture.blocks) is resnet_v1:
        weights.conversion.remarks.append(
            "nothing says how images are prepared, and uint8 ones go through Inception's recipe; TF-Slim has VGG's for "
            f"its ResNet v1: pass recipe=refnet.{VGG} if these weights want it"
        )
    doubt = None if options else doubts.biases(weights)
    if doubt:
        weights.conversion.remarks.append(doubt)
    return weights


def _is_released(tensors: Mapping[str, Any]) -> bool:
    """Whether the names and classes are those of the checkpoints that TF-Slim released."""
    return _has_classes(tensors, NETWORKS, WITH_BACKGROUND) or _has_classes(tensors, V1_NETWORKS, IMAGENET)


def slim_recipe(tensors: Mapping[str, Any]) -> Recipe:
    """What TF-Slim prepares images by: VGG's recipe for its ResNet v1, else Inception's."""
    return VGG if _has_classes(tensors, V1_NETWORKS, IMAGENET) else Recipe()


def _has_classes(tensors: Mapping[str, Any], networks: Iterable[str], count: int) -> bool:
    """Whether the tensors are those of one of the published networks, with so many classes."""
    biases = [tensors[name] for network in networks if (name := f"{network}/logits/biases") in tensors]
    return any(np.shape(tensor) == (count,) for tensor in biases)


def _check_labels(labels: list[str] | None, num_classes: int | None) -> None:
    if labels is None or len(labels) == num_classes:
        return
    classes = "no logits" if num_classes is None else f"{num_classes} classes"
    hint = " One of them is a background class." if {len(labels), num_classes} == {1000, 1001} else ""
    raise ConfigError(
        f"There are {len(labels)} labels, but the weights have {classes}.{hint}",
        expected=num_classes,
        found=len(labels),
    )


def recipe_from(stored: Any) -> Recipe:
    """The recipe that a file's metadata holds.

    Raises
    ------
    WeightsError
        It is no recipe.
    """
    if not isinstance(stored, Mapping) or not set(stored) <= set(Recipe._fields):
        raise WeightsError(f"The file's preprocessing recipe is not understood: {stored!r}.")
    return Recipe(**stored)


def options_from(stored: Any) -> dict[str, Any]:
    """The options of `refnet.Engine` that a file's metadata hold.

    Raises
    ------
    WeightsError
        They are no options, or not of those that belong to weights.
    """
    kinds = {name: type(value) for name, value in SLIM_OPTIONS.items()}
    if not isinstance(stored, Mapping) or any(type(value) is not kinds.get(name) for name, value in stored.items()):
        raise WeightsError(f"The file's options of the network are not understood: {stored!r}.")
    return dict(stored)


def _check_finite(weights: Weights) -> None:
    bad = {name: int(np.sum(~np.isfinite(tensor))) for name, tensor in weights.items() if not np.isfinite(tensor).all()}
    if bad:
        counts = ", ".join(f"{name} ({count})" for name, count in bad.items())
        raise CorruptError(f"The weights hold NaN or infinite values: {counts}.", tensor=next(iter(bad)))


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Save weights, with their recipe, labels and options; whole or not at all.

    Parameters
    ----------
    path : path
        Its name says the format: it ends in .npz, in .safetensors, or as the prefix of a TensorFlow checkpoint (V2)
        in .ckpt or .ckpt-1234.
    weights : Weights or mapping of str to array

    Raises
    ------
    ConfigError
        The name is that of no format, or a tensor's name cannot be written in it.
    """
    from refnet import formats

    if not isinstance(weights, Weights):
        weights = Weights(weights)
    metadata: dict[str, Any] = {}
    if weights.image_size is not None or weights.recipe != slim_recipe(weights):  # what is meant if nothing is said
        metadata["recipe"] = weights.recipe._asdict()
    if weights.labels is not None:
        metadata["labels"] = weights.labels
    if weights.options:
        metadata["options"] = weights.options
    formats.write(path, weights, metadata)


_UNIT = re.compile(r"^(?:(?P<scope>.+)/)?(?P<block>[^/]+)/unit_(?P<unit>\d+)/(?P<kind>bottleneck_v[12])/(?P<leaf>.+)$")


def infer_architecture(
    variables: Mapping[str, Any], scope: str | None = None, stride_place: str | None = None
) -> Architecture:
    """Read scope, blocks, classes and root block off the names and shapes of the variables.

    Parameters
    ----------
    variables : mapping of str to array
    scope : str, optional
        Which network, where the mapping holds several.
    stride_place : {"last_unit", "first_unit"}, optional
        TF-Slim's rule: the last unit of each block but the last one strides by 2; or timm's: the first unit of each
        block but the first one. None: what `Weights` say, else TF-Slim's.

    Raises
    ------
    MissingTensorError
        There is no ResNet among the variables; the message lists what there is.
    ConfigError
        There are several, and ``scope`` does not say which; or there is no such ``stride_place``.
    WeightsError
        Some units are of the first version, some of the second.
    """
    said = variables.options.get("stride_place") if isinstance(variables, Weights) else None
    place = stride_place if stride_place is not None else said or STRIDE_PLACES[0]
    if place not in STRIDE_PLACES:
        raise ConfigError(f"stride_place is {place!r}; it can be {' or '.join(map(repr, STRIDE_PLACES))}.", found=place)
    units: dict[tuple[str, str], dict[str, int]] = {}
    for match in filter(None, map(_UNIT.match, variables)):
        if scope is None or (match["scope"] or "") == scope:
            blocks = units.setdefault((match["scope"] or "", match["kind"]), {})
            blocks[match["block"]] = max(blocks.get(match["block"], 1), int(match["unit"]))
    if not units:
        names = ", ".join(sorted(variables)[:8]) or "none"
        raise MissingTensorError(
            "These are not the weights of a ResNet: no tensor is named .../unit_1/bottleneck_v2/... or bottleneck_v1. "
            f"There are {len(variables)} tensors: {names}{', ...' if len(variables) > 8 else ''}."
        )
    scopes = sorted({found for found, _ in units})
    if len(scopes) > 1:
        raise ConfigError(f"The weights hold several networks; scope= can be {', '.join(map(repr, scopes))}.")
    if len(units) > 1:
        raise WeightsError(f"The weights hold units of both versions below {scopes[0]!r}, bottleneck_v1 and _v2.")
    (found_scope, kind), blocks = next(iter(units.items()))
    return _architecture(found_scope, kind, blocks, variables, place)


def _architecture(
    scope: str, kind: str, units: Mapping[str, int], variables: Mapping[str, Any], stride_place: str
) -> Architecture:
    """The architecture whose blocks have so many units of a kind."""

    def full(place: str) -> str:
        return f"{scope}/{place}/weights" if scope else f"{place}/weights"

    def kernel(place: str) -> tuple[int, ...]:
        return _kernel_shape(variables, full(place))

    names = sorted(units, key=_natural)
    result = []
    for name in names:
        args = []
        for unit in range(1, units[name] + 1):
            conv1, conv3 = (kernel(f"{name}/unit_{unit}/{kind}/{leaf}") for leaf in ("conv1", "conv3"))
            args.append({"depth": conv3[3], "depth_bottleneck": conv1[3], "stride": 1})
        if stride_place == "last_unit":
            args[-1]["stride"] = 1 if name == names[-1] else 2
        else:
            args[0]["stride"] = 1 if name == names[0] else 2
        result.append(Block(name, UNITS[kind], args))
    deep: list[tuple[int, ...]] = []
    while full(f"conv1_{len(deep) + 1}") in variables:
        deep.append(kernel(f"conv1_{len(deep) + 1}"))
    root = full("conv1") in variables
    first = kernel("conv1") if root else deep[0] if deep else kernel(f"{names[0]}/unit_1/{kind}/conv1")
    return Architecture(
        scope,
        result,
        kernel("logits")[3] if full("logits") in variables else None,
        include_root_block=root or bool(deep),
        channels=first[2],
        root_depths=None if root or not deep else tuple(shape[3] for shape in deep),
    )


def _kernel_shape(variables: Mapping[str, Any], name: str) -> tuple[int, ...]:
    if name not in variables:
        raise MissingTensorError(f"{name} is missing.", tensor=name)
    found: tuple[int, ...] = np.shape(variables[name])
    if len(found) != 4:
        raise ShapeMismatchError(f"{name} has shape {found}, not four dimensions.", tensor=name, found=found)
    if found[:2] != (1, 1) and found[2:] == (1, 1):
        message = f"{name} has shape {found}, an OIHW kernel; transpose the kernels to HWIO."
        raise ShapeMismatchError(message, tensor=name, found=found)
    return found


def _natural(name: str) -> list[Any]:
    """Order "block10" after "block2"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def variables_of(architecture: Architecture, arg_scope: ArgScope | None = None) -> set[str]:
    """The names of all the variables of an architecture."""
    return {name for name, _ in _variables(architecture, arg_scope)}


def _variables(architecture: Architecture, arg_scope: ArgScope | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in network order: all that a network without any variable misses."""
    return graph_of(architecture, {}, arg_scope).missing


def graph_of(architecture: Architecture, variables: Mapping[str, Any], arg_scope: ArgScope | None = None) -> Graph:
    """The network for a small image; what it misses among the variables, the graph knows."""
    graph = Graph(variables, arg_scope)
    placeholder = graph.placeholder((1, 32, 32, architecture.channels))
    resnet_of(architecture.blocks)(
        placeholder,
        architecture.blocks,
        architecture.num_classes,
        include_root_block=architecture.include_root_block,
        root_depths=architecture.root_depths,
        scope=architecture.scope,
    )
    return graph


def random_weights(
    network: str | Sequence[Block],
    num_classes: int | None = 1001,
    seed: int = 0,
    *,
    include_root_block: bool = True,
    channels: int = 3,
    root_depths: Sequence[int] | None = None,
    scope: str | None = None,
) -> Weights:
    """Untrained weights by TF-Slim's initialisers, the same bits on every machine.

    Kernels are drawn from a normal distribution cut off at two deviations, of standard deviation
    ``sqrt(1.3 * 2 / fan_in)`` before the cut (``slim.variance_scaling_initializer()``; He et al., 2015); biases,
    beta and moving means are 0, gamma and moving variances 1.

    Parameters
    ----------
    network : str or sequence of Block
        "resnet_v2_50", "resnet_v2_101", "resnet_v2_152", "resnet_v2_200", the same of "resnet_v1", or blocks.
    num_classes : int, optional
        None: without logits.
    seed : int
        Each tensor's numbers depend on the seed and on its name alone.
    include_root_block : bool
    channels : int
        Of the input.
    root_depths : sequence of int, optional
        See `refnet.resnet_v2.resnet_v2`.
    scope : str, optional
        Before every name; by default the network's name, or "resnet_v2" or "resnet_v1".

    Returns
    -------
    Weights
    """
    if isinstance(network, str):
        blocks, scope = network_blocks(network), scope or network
    else:
        blocks, scope = list(network), scope or resnet_of(network).__name__
    depths = None if root_depths is None else tuple(root_depths)
    architecture = Architecture(scope, blocks, num_classes, include_root_block, channels, depths)
    tensors = {name: _initial(name, shape, seed) for name, shape in _variables(architecture)}
    return Weights(tensors, source=f"random_weights(seed={seed})", copy=False)


def _initial(name: str, shape: tuple[int, ...], seed: int) -> Float32Array:
    leaf = name.rsplit("/", 1)[-1]
    if leaf != "weights":
        return np.full(shape, leaf in ("gamma", "moving_variance"), np.float32)
    bits = random_bits(name, int(np.prod(shape)), seed)
    fan_in = shape[0] * shape[1] * shape[2]
    deviation = np.sqrt(1.3 * 2.0 / fan_in)
    kernel: Float32Array = (_truncated_normal(bits) * deviation).astype(np.float32).reshape(shape)
    return kernel


def random_bits(name: str, size: int, seed: int) -> NDArray[np.uint64]:
    """``size`` times 64 random bits that depend on the name and the seed alone: Philox, of integer operations only."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(size)
    return bits


_STEPS = 4096


def _truncated_normal(bits: np.ndarray) -> np.ndarray:
    """Numbers of the standard normal distribution within two deviations, from 64 random bits each.

    The quantile function at 4096 equal steps, linear between them: only sums, products and comparisons, so that
    every machine draws the same bits.
    """
    quantiles = _quantiles()
    step = (bits >> np.uint64(52)).astype(np.int64)
    fraction = ((bits & np.uint64((1 << 52) - 1)).astype(np.float64) + 0.5) * 2.0**-52
    low = quantiles[step]
    number: np.ndarray = low + fraction * (quantiles[step + 1] - low)
    return number


@cache
def _quantiles() -> np.ndarray:
    """Where the truncated normal's distribution function reaches i / 4096, by bisection."""
    total = _normal_integral(np.array([2.0]))[0]
    targets = (np.arange(_STEPS + 1) / _STEPS * 2 - 1) * total
    low, high = np.full(targets.shape, -2.0), np.full(targets.shape, 2.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = _normal_integral(middle) < targets
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    low[0], low[-1] = -2.0, 2.0
    return low


def _normal_integral(x: np.ndarray) -> np.ndarray:
    """The integral of exp(-t^2 / 2) from 0 to x, by its power series, for |x| <= 2."""
    total, power = np.zeros_like(x), x.copy()
    for n in range(40):
        total = total + power / (2 * n + 1)
        power = power * (x * x) / (-2.0 * (n + 1))
    return total
