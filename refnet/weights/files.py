"""Load weights from files, and save them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from refnet.checks import check_bool, check_text, labels_of, listed, path_of, shown
from refnet.errors import ConfigError, CorruptError, LimitError, RefnetWarning, WeightsError
from refnet.images import pillow
from refnet.images.preprocess import Recipe, check_recipe, fields_of
from refnet.network.options import SLIM_OPTIONS, check_slim_options
from refnet.resources import for_weights
from refnet.weights import doubts
from refnet.weights.conversion import Conversion
from refnet.weights.leftovers import UNKNOWN
from refnet.weights.weights import GIVEN, Weights, released_family, slim_recipe
from refnet_kernels.system.float_mode import contract_mode
from refnet_kernels.system.forks import making

if TYPE_CHECKING:
    from refnet.weights.formats.loaded import Loaded
    from refnet.weights.interpretation import Interpretation

#: A file of a few kilobytes may ask for this many pixels per image: a network takes about a gigabyte for them.
MAX_STORED_PIXELS = 4_000_000


@for_weights
@contract_mode()
def load_weights(
    path: str | os.PathLike[str],
    *,
    scope: str | None = None,
    head: str | None = "from_weights",
    averages: bool = False,
    recipe: Recipe | None = None,
    labels: Sequence[str] | None = None,
    strict: bool = False,
) -> Weights:
    """Load the weights of a ResNet, v1 or v2.

    Parameters
    ----------
    path : path
        A TF checkpoint (V1 or V2, given by its prefix, its directory or any of its files), the directory of a
        SavedModel or of a TensorFlow Hub module, a safetensors file, an .npz, a .pth, .pt or .bin file of PyTorch, an
        .onnx, or a .h5, .weights.h5 or .keras file of Keras Applications' ResNets. The format is detected by the
        content, not by the name. The tensors can also have the names of another framework (`refnet.weights.homes`).
    scope : str, optional
        Which network, if the file holds several: what stands before the names of its tensors there, such as
        "module.encoder_q" or "FirstStageFeatureExtractor/resnet_v1_101".
    head : str or None
        Which dense layer on the features gives the logits, by its name in the file. "from_weights": the one with the
        name that the file's framework gives it, or the only one. None: none, for the features alone.
    averages : bool
        Whether to take the moving averages of the variables, where the file has both.
    recipe : Recipe, optional
        How raw pixels are preprocessed. By default the file's own; else that of a file of configuration beside
        ``model.safetensors``, ``pytorch_model.bin`` or ``model.onnx`` (`refnet.weights.config`); else that of the
        framework whose names the tensors have; else that of TF-Slim's released weights: Inception's, 299 x 299, or for
        ResNet v1 VGG's, 224 x 224. ``conversion.recipe_from`` says which it was.
    labels : sequence of str, optional
        A name for each class. By default the file's own, or those of a file of configuration.
    strict : bool
        Whether tensors that are not part of the network are an error. Otherwise there is a warning and a note.

    Returns
    -------
    Weights

    Raises
    ------
    WeightsError
        FormatError, CorruptError, DtypeError or LimitError: the file cannot be used. MissingTensorError: it does not
        hold a ResNet.
    ConfigError
        There is not one label per class, or the file holds several networks.
    FileNotFoundError, PermissionError
        As the system raises them.

    Examples
    --------
    >>> import refnet
    >>> weights = refnet.load_weights("digits.ckpt")
    >>> weights
    <Weights from TF checkpoint V2: 110 tensors, 70,058 parameters>
    >>> weights["resnet_v2_digits/conv1/weights"].shape
    (7, 7, 3, 64)
    >>> weights.recipe.height, weights.labels[:3]
    (32, ('0', '1', '2'))
    """
    with making:
        from refnet.files import naming_file
        from refnet.weights import formats
        from refnet.weights.interpretation import interpret

    check_bool(averages=averages, strict=strict)
    check_text(**{name: given for name, given in {"scope": scope, "head": head}.items() if given is not None})
    recipe = None if recipe is None else check_recipe(recipe)
    labels = None if labels is None else labels_of(labels)
    name = path_of(path)
    with naming_file(name):
        loaded = formats.read(name, averages)
    with formats.naming(name):
        options = options_from(loaded.metadata.get("options", {}))
        found = interpret(loaded, options, scope=scope, head=head, averages=averages)
    found, recipe, labels = _configured(formats.config_directory(name), loaded, found, recipe, labels, head)
    with formats.naming(name):
        weights = _weights_of(loaded, found, recipe, labels)
        extra = weights.conversion.extra
        all_extra = extra + (found.not_run if head == "from_weights" else [])
        if all_extra and strict:
            names = listed(all_extra)
            raise WeightsError(f"The file holds {len(all_extra)} tensors that are not part of the network: {names}.")
    unknown = [name for name in extra if found.conversion.kinds.get(name, UNKNOWN) == UNKNOWN]
    others = [f"{len(unknown)} tensors are not part of the network: {listed(unknown)}"] if unknown else []
    for doubt in others + found.doubts:
        # The decorators stand between this and the caller.
        warnings.warn(doubt, RefnetWarning, stacklevel=4)
    return weights


def _configured(
    directory: str | None,
    loaded: Loaded,
    found: Interpretation,
    recipe: Recipe | None,
    labels: Sequence[str] | None,
    head: str | None,
) -> tuple[Interpretation, Recipe | None, Sequence[str] | None]:
    """What a file holds, with what files of configuration beside it say; the recipe and the labels, if they are known.

    Weights that refnet saved bring everything with them.
    """
    source = GIVEN if recipe is not None else "the file" if "recipe" in loaded.metadata else ""
    options, doubts_found, told = found.options, found.doubts, False
    if directory is not None and (loaded.by_graph or (found.home and not loaded.metadata)):
        with making:
            from refnet.weights import config
            from refnet.weights.formats.loaded import naming

        with_labels = labels is None and head == "from_weights"
        said = config.beside(
            directory, found.graph, found.architecture, found.home,
            with_recipe=recipe is None, with_labels=with_labels,
        )  # fmt: skip
        if said.recipe is not None:
            with naming(os.path.join(directory, said.recipe_from)):
                recipe, source = in_bounds(said.recipe), said.recipe_from
        labels = said.labels if labels is None else labels
        # What a graph shows is so, whatever a configuration says.
        options = options if loaded.by_graph else {**options, **said.options}
        doubts_found, told = doubts_found + list(said.doubts), said.tells
    untold, unsettled = ([] if told or not sentence else [sentence] for sentence in (found.untold, found.unsettled))
    conversion = replace(
        found.conversion,
        recipe_from=source or found.conversion.recipe_from,
        remarks=found.conversion.remarks + untold,
    )
    doubts_found = doubts_found + unsettled
    return found._replace(conversion=conversion, options=options, doubts=doubts_found), recipe, labels


def _weights_of(loaded: Loaded, found: Interpretation, recipe: Recipe | None, labels: Sequence[str] | None) -> Weights:
    """The weights in a file, after all that can be wrong with its content is checked."""
    with making:
        from refnet.weights.formats import TF_CHECKPOINT

    stored = loaded.metadata
    if recipe is None and "recipe" in stored:
        recipe = recipe_from(stored["recipe"])
    recipe, tensors = found.recipe if recipe is None else recipe, found.tensors
    if labels is None and "labels" in stored:
        labels = _labels_from(stored["labels"])
    conversion = found.conversion
    if recipe is None:
        family = released_family(tensors)
        whose = "TF-Slim's for its released weights" if family else "a guess: TF-Slim's for its ResNetV2"
        conversion = replace(conversion, recipe_from=whose)
        recipe = family.recipe if family and loaded.format.startswith(TF_CHECKPOINT) else None
    weights = Weights(
        tensors,
        recipe=recipe,
        labels=labels,
        options=found.options,
        source=loaded.format,
        conversion=conversion,
        copy=False,
    )
    if weights.keys() == tensors.keys() and weights.options.get("stride_place") == found.stride_place:
        weights._set(_architecture=found.architecture)
    _check_usable(weights, CorruptError)
    extra = sorted(weights.keys() - found.graph.used)
    remarks = _remarks(weights, recipe, found.graph.folded) + found.doubts
    return weights.replace(conversion=replace(weights.conversion, extra=extra, remarks=remarks))


#: Whose recipe it is, for each of TF-Slim's modes.
_WHOSE = {"inception": "Inception's", "vgg": "VGG's"}


def _remarks(weights: Weights, recipe: Recipe | None, folded: Sequence[str]) -> list[str]:
    """The remarks of the conversion, and what looks wrong with the weights."""
    remarks = list(weights.conversion.remarks)
    family = weights.architecture.family
    if recipe is None and weights.recipe != family.recipe:
        remarks.append(
            "the file has no recipe, so uint8 images go through Inception's; TF-Slim uses "
            f"{_WHOSE[family.recipe.mode]} for its {family.title}: pass recipe=refnet.{family.recipe} if these weights "
            "need it"
        )
    if folded:
        remarks.append(
            f"{len(folded)} convolutions have biases and no batch norm, as after folding, and run so: "
            f"{listed(folded, 1)}"
        )
    doubt = None if weights.options else doubts.biases(weights)
    return remarks + ([doubt] if doubt else [])


def _check_usable(weights: Weights, not_finite: type[WeightsError]) -> None:
    """Refuse what is no network, and what cannot belong to it."""
    _check_finite(weights, not_finite)
    _check_labels(weights.labels, weights.architecture.num_classes)


def _check_read_back(weights: Weights) -> None:
    """Refuse weights of which a file would be read as others: as another framework's, or with another classifier."""
    with making:
        from refnet.weights.formats.loaded import Loaded
        from refnet.weights.interpretation import interpret

    found = interpret(Loaded(dict(weights), "", {}, Conversion()), weights.options)
    moved = [
        name
        for name in sorted(weights.keys() | found.tensors.keys())
        if found.tensors.get(name) is not weights.get(name)
    ]
    if moved or found.options != weights.options:
        raise ConfigError(
            f"The weights would be read back as others, because of the names of {listed(moved)}: leave out the tensors "
            "that are not part of the network, or rename them.",
            found=moved,
        )


def _check_labels(labels: Sequence[str] | None, num_classes: int | None) -> None:
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
    """The recipe in a file's metadata.

    Parameters
    ----------
    stored : object

    Returns
    -------
    Recipe

    Raises
    ------
    WeightsError
        It is not a recipe, or asks for too much memory.
    """
    if not isinstance(stored, Mapping) or not set(stored) <= set(Recipe._fields):
        raise WeightsError(f"The file's preprocessing recipe is not understood: {shown(stored)}.")
    with _in_file("preprocessing recipe is"):
        recipe = check_recipe(Recipe(**stored))
    return in_bounds(recipe)


def in_bounds(recipe: Recipe) -> Recipe:
    """The recipe itself, if a file can ask for it.

    Raises
    ------
    LimitError
        It asks for too much memory.
    """
    try:
        check_stored(recipe)
    except ConfigError as error:
        message = f"{error.message} Pass a recipe of your own."
        raise LimitError(message, expected=error.expected, found=error.found) from error
    return recipe


def check_stored(recipe: Recipe) -> None:
    """Refuse a recipe that makes more pixels, of an image of any size, than a file can ask for.

    Raises
    ------
    ConfigError
    """
    # A side that a recipe leaves alone is the image's. Pillow makes the whole of a resized image.
    side = recipe.resize_side or 1
    least = side if recipe.interpolation in pillow.FILTERS else 1
    height, width = (max(size or side, least) for size in recipe[:2])
    if height * width > MAX_STORED_PIXELS:
        raise ConfigError(
            f"The recipe makes {height} x {width} pixels of any image; one in a file can make {MAX_STORED_PIXELS:,}.",
            expected=MAX_STORED_PIXELS,
            found=height * width,
        )


def _labels_from(stored: Any) -> tuple[str, ...]:
    with _in_file("labels are"):
        return labels_of(stored)


def options_from(stored: Any) -> dict[str, Any]:
    """The options of `refnet.Engine` in a file's metadata.

    Parameters
    ----------
    stored : object

    Returns
    -------
    dict of str to Any

    Raises
    ------
    WeightsError
        They are not options that belong to weights.
    """
    kinds = {name: type(value) for name, value in SLIM_OPTIONS.items()}
    if not isinstance(stored, Mapping) or any(type(value) is not kinds.get(name) for name, value in stored.items()):
        raise WeightsError(f"The file's options of the network are not understood: {shown(stored)}.")
    with _in_file("options of the network are"):
        check_slim_options(stored)
    return dict(stored)


@contextlib.contextmanager
def _in_file(what: str) -> Iterator[None]:
    """What is wrong with an argument is wrong with the file that it is from."""
    try:
        yield
    except ConfigError as error:
        message = f"The file's {what} not understood: {error.message}"
        raise WeightsError(message, expected=error.expected, found=error.found) from error


def _check_finite(weights: Weights, kind: type[WeightsError]) -> None:
    bad = {name: int(np.sum(~np.isfinite(tensor))) for name, tensor in weights.items() if not np.isfinite(tensor).all()}
    if bad:
        counts = listed([f"{name} ({count})" for name, count in bad.items()])
        raise kind(f"The weights hold NaN or infinite values: {counts}.", tensor=next(iter(bad)))


def weights_of(weights: Mapping[str, Any] | str | os.PathLike[str], scope: str | None = None) -> Weights:
    """Weights in any of the forms in which a caller can pass them.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
    scope : str, optional
        Which network of a file or of a mapping, as for `load_weights`; `Weights` are returned as they are.

    Returns
    -------
    Weights
        `Weights` themselves; a copy of another mapping; or those in the file.

    Raises
    ------
    WeightsError, ConfigError
        As `Weights` and `load_weights` raise them.
    """
    if isinstance(weights, str | os.PathLike):
        return load_weights(weights, scope=scope)
    return weights if isinstance(weights, Weights) else Weights(weights, scope=scope)


@for_weights
def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Save weights with their recipe, labels and options, whole or not at all, so that `load_weights` reads them.

    A file that is replaced keeps its permissions, and a link still leads to it.

    Parameters
    ----------
    path : path
        The end of its name gives the format: .npz, .safetensors, or for the prefix of a TensorFlow checkpoint (V2)
        .ckpt or .ckpt-1234.
    weights : Weights or mapping of str to array

    Raises
    ------
    ConfigError
        The name does not end in one of these; or the format cannot hold a tensor's name or the labels, there is not one
        label per class, or the recipe makes more pixels than a file can ask for.
    WeightsError
        There is no ResNet among the tensors, or some hold NaN or infinite values.

    Examples
    --------
    >>> import refnet
    >>> weights = refnet.load_weights("digits.ckpt")
    >>> refnet.save_weights("digits.safetensors", weights)
    >>> copy = refnet.load_weights("digits.safetensors")
    >>> copy.labels == weights.labels, copy.recipe == weights.recipe
    (True, True)
    """
    with making:
        from refnet.weights import formats

    path = path_of(path)
    weights = weights if isinstance(weights, Weights) else Weights(weights)
    _check_usable(weights, WeightsError)
    _check_read_back(weights)
    metadata: dict[str, Any] = {}
    if weights.image_size is not None or weights.recipe != slim_recipe(weights):  # the default is not stored
        check_stored(weights.recipe)
        metadata["recipe"] = fields_of(weights.recipe)
    if weights.labels is not None:
        metadata["labels"] = list(weights.labels)
    if weights.options:
        metadata["options"] = dict(weights.options)
    formats.write(path, weights, metadata)
