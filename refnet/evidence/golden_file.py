"""A golden's file: end points, their hashes and how they were made, in one safetensors file.

The tensors are ``end_points/<name>`` and ``images``. Everything else is a JSON document in the metadata, under the key
``refnet``. It lists the end points in network order, the net among them; ``refnet_sha256`` is its hash. Goldens that
were recorded before there was ``tensors``, the hash of each variable, lack it.

Source of the format: the safetensors library's own documentation.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from refnet.checks import path_of
from refnet.errors import ConfigError, FormatError, GoldenError, WeightsError
from refnet.evidence.digest import digest
from refnet.files import json_object, naming_file, regular_file_size
from refnet.images.preprocess import MAX_PIXELS, Recipe, fields_of
from refnet.network.networks import NETWORKS
from refnet.resources import Telling
from refnet.tables import html_table
from refnet.weights.files import MAX_STORED_PIXELS, recipe_from
from refnet.weights.formats.safetensors import pack, unpack
from refnet_kernels.contract import CONTRACT_VERSION, FloatArray
from refnet_kernels.system.float_mode import contract_mode

FORMAT = "refnet golden"
FORMAT_VERSION = 1

#: A golden of a few kilobytes can have this many numbers drawn: four million pixels of three colours.
MAX_SEEDED = 3 * MAX_STORED_PIXELS

_DOCUMENT, _DOCUMENT_SHA256 = "refnet", "refnet_sha256"
_PREFIX = "end_points/"
_IMAGES = "images"

T = TypeVar("T")


class EndPoint(NamedTuple):
    """What a golden knows about an end point: its shape, the SHA-256 of its values, and the roundings behind it."""

    shape: tuple[int, ...]
    sha256: str
    roundings: int


class Golden(NamedTuple):
    """A recorded run.

    Attributes
    ----------
    contract : int
        The version of the arithmetic contract.
    made_with : dict of str to str
        Versions of refnet and of what it depends on.
    options : dict of str to Any
        The options that were passed to `Engine`, in JSON's types.
    weights : str
        SHA-256 of the variables that the network reads.
    network : str or None
        The published network whose weights `refnet.random_weights` draws from ``seed``.
    images : str
        SHA-256 of the normalised images.
    shape : tuple of int
        The shape of the images.
    recipe : Recipe or None
        How the images were made from raw pixels, if they were.
    seeded_images : bool
        Whether `refnet.seeded.random_images` draws the images from ``seed``.
    seed : int
    end_points : dict of str to EndPoint
        In network order, the net among them.
    values : dict of str to array
        The values of all end points, or none.
    stored_images : array or None
        The normalised images, if the file holds them.
    tensors : tuple of str
        The first 8 digits of the SHA-256 of each variable that the network reads, in the order of their names, to tell
        which ones are others. Empty in goldens of earlier versions.

    Examples
    --------
    >>> import refnet
    >>> golden = refnet.golden.record("digit.safetensors", "digits.ckpt", refnet.load_image("digit3.png"))
    >>> golden.contract, golden.shape, golden.recipe.height
    (1, (32, 32, 3), 32)
    >>> list(golden.end_points)[:2], golden.values["net"].shape
    (['resnet_v2_digits/conv1', 'resnet_v2_digits/pool1'], (10,))
    """

    contract: int
    made_with: dict[str, str]
    options: dict[str, Any]
    weights: str
    network: str | None
    images: str
    shape: tuple[int, ...]
    recipe: Recipe | None
    seeded_images: bool
    seed: int
    end_points: dict[str, EndPoint]
    values: dict[str, np.ndarray]
    stored_images: FloatArray | None
    tensors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        what = f"{len(self.end_points)} end points" + ("" if self.values else ", hashes only")
        return f"<Golden of {self._weights}: {what}, images {list(self.shape)}, contract {self.contract}>"

    def _repr_html_(self) -> str:
        rows = [[name, list(point.shape), point.sha256, point.roundings] for name, point in self.end_points.items()]
        return html_table(repr(self)[1:-1], ["end point", "shape", "SHA-256", "roundings"], rows)

    @property
    def _weights(self) -> str:
        return f"{self.network}, seed {self.seed}" if self.network else f"weights {self.weights[:12]}"


def write_golden(path: str | os.PathLike[str], golden: Golden) -> None:
    """Write the file, whole or not at all.

    Raises
    ------
    ConfigError
        `path` is a directory, or the options do not fit into JSON.
    """
    try:
        document = json.dumps(as_document(golden), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"The options cannot be kept in a golden: {error}.") from error
    tensors = {_PREFIX + name: value for name, value in golden.values.items()}
    if golden.stored_images is not None:
        tensors[_IMAGES] = golden.stored_images
    pack(path_of(path), tensors, {_DOCUMENT: document, _DOCUMENT_SHA256: _sha256(document)})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def as_document(golden: Golden) -> dict[str, Any]:
    """The JSON of a golden: all that its file says beside the tensors."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "contract": golden.contract,
        "made_with": golden.made_with,
        "options": golden.options,
        "seed": golden.seed,
        "weights": {"sha256": golden.weights, "network": golden.network, "tensors": golden.tensors},
        "images": {
            "sha256": golden.images,
            "shape": golden.shape,
            "recipe": None if golden.recipe is None else fields_of(golden.recipe),
            "seeded": golden.seeded_images,
            "stored": golden.stored_images is not None,
        },
        "values_stored": bool(golden.values),
        "end_points": {name: end_point._asdict() for name, end_point in golden.end_points.items()},
    }


@Telling(GoldenError, "this golden", "Free memory, or raise the limit.")
@contract_mode()
def read_golden(path: str | os.PathLike[str]) -> Golden:
    """Read a golden and verify every hash in it.

    Raises
    ------
    GoldenError
        The file is damaged or is not a golden, or it has another format version or another arithmetic contract.
    FileNotFoundError, PermissionError
        As the system raises them.

    Examples
    --------
    >>> import refnet
    >>> _ = refnet.golden.record("digit.safetensors", "digits.ckpt", refnet.load_image("digit3.png"))
    >>> refnet.golden.read_golden("digit.safetensors").end_points["net"].shape
    (10,)
    """
    name = path_of(path)
    try:
        with naming_file(name):
            regular_file_size(name)
            return _parse(*_unpack(name))
    except WeightsError as error:
        raise GoldenError(error.message) from error
    except GoldenError as error:
        message = f"{name}: {error.message}"
        raise GoldenError(message, tensor=error.tensor, expected=error.expected, found=error.found) from error


def _unpack(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The document and the tensors."""
    try:
        tensors, metadata, _ = unpack(path)
    except WeightsError as error:
        raise GoldenError(
            f"it is not a safetensors file, or it is damaged: {error.message}", tensor=error.tensor
        ) from error
    if _DOCUMENT not in metadata:
        raise GoldenError(f"it is a safetensors file, but not a golden: its metadata have no {_DOCUMENT!r}.")
    document = metadata[_DOCUMENT]
    if metadata.get(_DOCUMENT_SHA256) != _sha256(document):
        raise GoldenError("it is damaged: its document does not have its hash.")
    try:
        return json_object(document.encode(), "document"), tensors
    except FormatError as error:
        raise GoldenError(error.message) from error


def _parse(document: dict[str, Any], tensors: dict[str, np.ndarray]) -> Golden:
    _check_versions(document)
    weights, images = (_field(document, key, dict) for key in ("weights", "images"))
    shape = _shape(images)
    golden = Golden(
        contract=CONTRACT_VERSION,
        made_with=_field(document, "made_with", dict),
        options=_field(document, "options", dict),
        weights=_field(weights, "sha256", str),
        network=_network(weights),
        images=_field(images, "sha256", str),
        shape=shape,
        recipe=_recipe(images, shape),
        seeded_images=_field(images, "seeded", bool),
        seed=_field(document, "seed", int),
        end_points={name: _end_point(name, entry) for name, entry in _field(document, "end_points", dict).items()},
        values={name[len(_PREFIX) :]: value for name, value in tensors.items() if name.startswith(_PREFIX)},
        stored_images=tensors.get(_IMAGES),
        tensors=_tensors(weights),
    )
    if "net" not in golden.end_points:
        raise GoldenError("its end points lack the net.")
    expected = [_PREFIX + name for name in golden.end_points] if _field(document, "values_stored", bool) else []
    expected += [_IMAGES] if _field(images, "stored", bool) else []
    _check_tensors(golden, expected, tensors)
    return golden


def _check_versions(document: Mapping[str, Any]) -> None:
    if document.get("format") != FORMAT:
        raise GoldenError(f"it is not a golden: its format is {document.get('format')!r}.", expected=FORMAT)
    if document.get("version") != FORMAT_VERSION:
        version = document.get("version")
        raise GoldenError(
            f"it has version {version!r} of the format, but this version of refnet reads {FORMAT_VERSION}.",
            expected=FORMAT_VERSION,
            found=version,
        )
    if document.get("contract") != CONTRACT_VERSION:
        contract = document.get("contract")
        raise GoldenError(
            f"it was recorded under version {contract!r} of the arithmetic contract, but this version of refnet "
            f"follows {CONTRACT_VERSION}, which defines other bits: record it again.",
            expected=CONTRACT_VERSION,
            found=contract,
        )


def _field(document: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = document.get(key)
    if type(value) is not kind:
        raise GoldenError(f"its {key!r} is {value!r}, not a {kind.__name__}.", expected=kind.__name__, found=value)
    return value


def _dimensions(document: Mapping[str, Any], what: str) -> tuple[int, ...]:
    shape = _field(document, "shape", list)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise GoldenError(f"the shape of its {what} is {shape!r}, not a list of sizes.", found=shape)
    return tuple(shape)


def _shape(images: Mapping[str, Any]) -> tuple[int, ...]:
    """The images' shape, small enough to make seeded or preprocessed images of it."""
    shape = _dimensions(images, "images")
    is_seeded = images.get("seeded")
    made, most = (shape, MAX_SEEDED) if is_seeded else (shape[-3:], 3 * MAX_PIXELS)
    if len(shape) not in (3, 4) or math.prod(made) > most:
        raise GoldenError(f"the shape of its images is {list(shape)}: these are not images, or too many.", found=shape)
    return shape


def _network(weights: Mapping[str, Any]) -> str | None:
    network = weights.get("network")
    if network is not None and network not in list(NETWORKS):
        raise GoldenError(f"its network is {network!r}; there are {', '.join(NETWORKS)}.", found=network)
    return network


def _tensors(weights: Mapping[str, Any]) -> tuple[str, ...]:
    tensors = weights.get("tensors", [])
    if not isinstance(tensors, list) or not all(isinstance(sha256, str) for sha256 in tensors):
        raise GoldenError("its hashes of the variables are not a list of strings.", found=tensors)
    return tuple(tensors)


def _recipe(images: Mapping[str, Any], shape: tuple[int, ...]) -> Recipe | None:
    """The recipe, if it can lead to the shape."""
    stored = images.get("recipe")
    if stored is None:
        return None
    try:
        recipe = recipe_from(stored)
    except WeightsError as error:
        raise GoldenError(f"its recipe is not understood: {stored!r}.", found=stored) from error
    if any(size not in (None, side) for size, side in zip(recipe[:2], shape[-3:-1], strict=True)):
        raise GoldenError(f"its recipe {stored!r} does not lead to images of shape {list(shape)}.", found=stored)
    return recipe


def _end_point(name: str, entry: Any) -> EndPoint:
    if not isinstance(entry, dict):
        raise GoldenError(f"its end point {name} is {entry!r}, not an object.", tensor=name, found=entry)
    return EndPoint(_dimensions(entry, name), _field(entry, "sha256", str), _field(entry, "roundings", int))


def _check_tensors(golden: Golden, expected: list[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Every tensor that the document promises is there, no other is, and each has its shape and hash."""
    known = {_PREFIX + name: (entry.shape, entry.sha256) for name, entry in golden.end_points.items()}
    known[_IMAGES] = (golden.shape, golden.images)
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is not in its document" for name in tensors if name not in expected]
    for name in expected:
        if name in tensors:
            shape, sha256 = known[name]
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype.kind != "f":
                problems.append(f"{name} is {tensor.dtype} {list(tensor.shape)}, not floats {list(shape)}")
            elif digest(tensor) != sha256:
                problems.append(f"the values of {name} do not have its hash")
    if problems:
        raise GoldenError(f"it is damaged: {'; '.join(problems)}.")
