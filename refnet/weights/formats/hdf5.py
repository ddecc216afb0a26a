"""Keras' weights files: legacy ``.h5``, ``.weights.h5`` and ``.keras``, read without Keras and without HDF5's library.

Tensors are found by the names of their layers, never by their order. Only groups and datasets in the file itself are
read; ``config.json``, which names Python code, is not even opened.

Sources: Keras' ``legacy/saving/legacy_h5_format.py`` and ``saving/saving_lib.py``.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from refnet.errors import CorruptError, FormatError, LimitError, WeightsError
from refnet.files import expands_too_much
from refnet.resources import is_want
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format
from refnet.weights.formats.hdf5_objects import MAGIC, Hdf5File, Object
from refnet.weights.formats.hdf5_structures import Extents
from refnet.weights.formats.hdf5_values import Dataset, describe, read_values
from refnet.weights.formats.loaded import Arena, Loaded, in_context, not_numeric, raise_problems, read_all, read_at
from refnet.weights.formats.npz import MAGICS, check_archive, zip_errors

FORMAT_START = "Keras"

_LEGACY, _WEIGHTS, _ARCHIVE = (f"{FORMAT_START} {name}" for name in (".h5", ".weights.h5", ".keras"))
_MEMBER, _CONFIG = "model.weights.h5", "config.json"
_OPTIMIZER = ("optimizer", "optimizer_weights")
_MAX_DEPTH, _MAX_OBJECTS = 16, 1 << 17
# A path repeats the names of the groups on the way.
_PATHS_MAX_LENGTH = 16 << 20
# In the older format, the group of an outermost layer lists its variables: in parts, if there are many.
_LISTS = ("weight_names", "weight_names0")
# The roles of Keras 3's numbered variables, by the number of variables in a layer.
_ROLES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def is_archive(path: str) -> bool:
    """Whether a zip archive is a ``.keras`` file: it has a member that an ``.npz`` does not have.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return not {_MEMBER, _CONFIG}.isdisjoint(archive.namelist())
    except Exception as error:  # a damaged archive raises many things, and is reported as an .npz
        if is_want(error):
            raise
        return False


def read_archive(path: str) -> Loaded:
    """Read the one member of a ``.keras`` file that holds weights.

    Parameters
    ----------
    path : str

    Returns
    -------
    Loaded
        As from `read_hdf5`.

    Raises
    ------
    FormatError, CorruptError, LimitError, DtypeError
        As `read_hdf5` raises them.
    """
    with open(path, "rb") as file, zip_errors(), zipfile.ZipFile(file) as archive:
        file_size = os.fstat(file.fileno()).st_size
        check_archive(archive.infolist(), file_size)
        if _MEMBER not in archive.namelist():
            raise CorruptError(f"member {_MEMBER!r}, which holds the weights of a .keras file, is missing.")
        content = archive.read(_MEMBER)
    try:
        loaded = _read(Extents(partial(_copy, memoryview(content)), len(content)), file_size)
    except WeightsError as error:
        raise in_context(f"member {_MEMBER!r}", error) from error
    return loaded._replace(format=_ARCHIVE)


def read_hdf5(path: str) -> Loaded:
    """Read a ``.h5`` file of either kind.

    Parameters
    ----------
    path : str

    Returns
    -------
    Loaded
        The integers and floats of all layers, named ``layer/role``, without an optimizer's.

    Raises
    ------
    FormatError
        The file has links, or external or virtual parts, or is not a Keras file.
    CorruptError, LimitError, DtypeError
        All the problems found, with the datasets that they are in.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return _read(Extents(partial(read_at, file.fileno()), size), size)


def _copy(source: memoryview, start: int, content: memoryview) -> int:
    """Fill ``content`` as `read_at` does, from bytes."""
    found = source[start : start + len(content)]
    content[: len(found)] = found
    return len(found)


def _read(extents: Extents, given: int) -> Loaded:
    """Read HDF5, from a file of ``given`` bytes."""
    file = Hdf5File(extents)
    found, outermost = _datasets(file)
    loaded = Loaded({}, _WEIGHTS if "layers" in outermost else _LEGACY, {}, Conversion())
    datasets: dict[str, Dataset] = {}
    problems: list[WeightsError] = []
    names = _names(file, found)
    for path, name in names.items():
        try:
            described = describe(file, found[path].header)
        except WeightsError as error:
            problems.append(in_context(f"dataset {path!r}", error, tensor=path))
            continue
        if isinstance(described, str):
            loaded.conversion.left_out[name] = not_numeric(described)
        elif name in datasets:
            raise FormatError(f"two datasets have the name {name!r}; the second is {path!r}.", tensor=name)
        else:
            datasets[name] = described
    raise_problems(problems)
    total = sum(dataset.expanded for dataset in datasets.values())
    if expands_too_much(given, total):
        raise LimitError(f"its datasets expand to {total} bytes, but the file has {given}.", found=total)
    _load(extents, datasets, names, loaded)
    return loaded


def _load(extents: Extents, datasets: Mapping[str, Dataset], names: Mapping[str, str], loaded: Loaded) -> None:
    paths = {name: path for path, name in names.items()}
    arena = Arena(sum(dataset.nbytes for dataset in datasets.values()), len(datasets))

    def read(name: str) -> np.ndarray:
        try:
            return read_values(extents, datasets[name], arena)
        except WeightsError as error:
            raise in_context(f"dataset {paths[name]!r}", error, tensor=paths[name]) from error

    arrays = read_all(read, datasets, lambda name: datasets[name].nbytes)
    loaded.tensors.update(zip(datasets, arrays, strict=True))
    for name, dataset in datasets.items():
        if dataset.is_bfloat16:
            loaded.conversion.converted[name] = "bfloat16"


class _Found(NamedTuple):
    """A dataset, the groups that it is in from the outermost one, and how many are in the innermost."""

    header: Object
    groups: tuple[Object, ...]
    siblings: int


def _datasets(file: Hdf5File) -> tuple[dict[str, _Found], set[str]]:
    """Every dataset by its path, except the optimizer's: each object once, and only by hard links.

    And the names in the outermost group.
    """
    found: dict[str, _Found] = {}
    outermost: set[str] = set()
    seen = {file.root}
    length = 0
    pending: list[tuple[str, tuple[Object, ...]]] = [("", (file.object(file.root),))]
    while pending:
        path, groups = pending.pop()
        members = file.members(groups[-1])
        outermost = outermost or set(members)
        for name, address in members.items():
            child_path = f"{path}/{name}" if path else name
            length += len(child_path)
            if length > _PATHS_MAX_LENGTH:
                raise LimitError(f"the names in the file have more than {_PATHS_MAX_LENGTH} letters together.")
            if address is None:
                raise FormatError(
                    f"{child_path!r} is a link, within the file or to another one; refnet follows no links.",
                    tensor=child_path,
                )
            if child_path in _OPTIMIZER:
                continue
            if address in seen or len(seen) > _MAX_OBJECTS or child_path.count("/") > _MAX_DEPTH:
                raise FormatError(f"{child_path!r} has another name too, or the file has too many or too deep groups.")
            seen.add(address)
            child = file.object(address)
            if child.is_group:
                pending.append((child_path, (*groups, child)))
            elif child.is_dataset:
                found[child_path] = _Found(child, groups, len(members))
    return found, outermost


def _names(file: Hdf5File, datasets: Mapping[str, _Found]) -> dict[str, str]:
    """The name of each dataset: ``layer/role``.

    If several outer layers have layers so named, it is the variable's own name, with all its scopes; and where such
    names are the same, ``layer/role`` after the name of the outer layer.
    """
    layers: dict[str, str | None] = {}
    for path, dataset in datasets.items():
        if _is_numbered(path, dataset) and _group(path) not in layers:
            layers[_group(path)] = file.text_attribute(dataset.groups[-1], "name")
    names = {path: _name(path, dataset, layers) for path, dataset in datasets.items()}
    counts = Counter(names.values())
    outer = {path: _outer(path) for path in names}
    clashing = {outer[path] for path, name in names.items() if counts[name] > 1} - {""}
    own = {path: _own_name(file, path, datasets[path]) for path in names if outer[path] in clashing}
    if len(set(own.values()) - {""}) == len(own):
        return names | own
    return {path: f"{outer[path]}/{name}" if outer[path] in clashing else name for path, name in names.items()}


def _own_name(file: Hdf5File, path: str, dataset: _Found) -> str:
    """What follows the outermost layer, whose group lists its variables: in the older format, a variable's own name."""
    parts = path.split("/")
    for depth, group in enumerate(dataset.groups):
        if any(file.has_attribute(group, name) for name in _LISTS):
            return "/".join(parts[depth:]).removesuffix(":0")
    return ""


def _outer(path: str) -> str:
    """The outer layer: the groups before that of a layer, without those that only Keras' format has; "" if none."""
    *groups, layer = path.split("/")[: -2 if path.split("/")[-2:-1] == ["vars"] else -1] or [""]
    outer = [group for group in groups if group not in ("layers", "model_weights")]
    # A layer that is in no other has a group of its own name in the older format.
    return "" if outer == [layer] else "/".join(outer)


def _group(path: str) -> str:
    return path.rpartition("/")[0]


def _is_numbered(path: str, dataset: _Found) -> bool:
    """Whether it is one of a layer's variables as Keras 3 numbers them; the layer's name is an attribute there."""
    *_, group, role = ["", *path.split("/")]
    return group == "vars" and role in map(str, range(len(_ROLES.get(dataset.siblings, ()))))


def _name(path: str, dataset: _Found, layers: Mapping[str, str | None]) -> str:
    """``layer/role``."""
    parts = path.split("/")
    if len(parts) < 2:
        return path
    if parts[-2] != "vars":
        return f"{parts[-2]}/{parts[-1].removesuffix(':0')}"
    layer = layers.get(_group(path))
    if layer is None or not _is_numbered(path, dataset):
        return path
    return f"{layer}/{_ROLES[dataset.siblings][int(parts[-1])]}"


FORMAT = Format("Keras' .h5", lambda path, head: head.startswith(MAGIC), read_hdf5)
ARCHIVE_FORMAT = Format("Keras' .keras", lambda path, head: head.startswith(MAGICS) and is_archive(path), read_archive)
