"""Keras' weights files: legacy ``.h5``, ``.weights.h5`` and ``.keras``, read with h5py and without Keras.

Tensors are found by the names of their layers, never by their order. Only groups and datasets in the file itself are
read; ``config.json``, which names Python code, is not even opened. HDF5 is parsed by its own C library: see SECURITY.md
for the consequences.

Sources: Keras' ``legacy/saving/legacy_h5_format.py`` and ``saving/saving_lib.py``; the HDF5 File Format Specification.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from refnet.errors import CorruptError, DtypeError, FormatError, LimitError, WeightsError
from refnet.files import expands_too_much
from refnet.resources import is_want
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format
from refnet.weights.formats.loaded import Loaded, check_shape, in_context, not_numeric, raise_problems
from refnet.weights.formats.npz import MAGICS, check_archive, zip_errors
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.forks import making

MAGIC = b"\x89HDF\r\n\x1a\n"
FORMAT_START = "Keras"

_LEGACY, _WEIGHTS, _ARCHIVE = (f"{FORMAT_START} {name}" for name in (".h5", ".weights.h5", ".keras"))
_MEMBER, _CONFIG = "model.weights.h5", "config.json"
_OPTIMIZER = ("optimizer", "optimizer_weights")
_MAX_DEPTH, _MAX_OBJECTS = 16, 1 << 17
# The roles of Keras 3's numbered variables, by the number of variables in a layer.
_ROLES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
# Filters by their number: deflate and shuffle, which Keras writes. Others may live in plug-ins, which are code, and
# HDF5's own have bugs: a chunk that is shorter than its fletcher32 crashes the process.
_FILTERS = {1, 2}
_OTHER_FILTERS = {3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
# The start of a collection of the global heap, of 16 bytes with its size, which is 4096 at least.
_COLLECTION, _COLLECTION_HEAD, _COLLECTION_LEAST = b"GCOL\x01", 16, 4096
# The start of a local heap; the least free block in it, and what stands for the next one after the last.
_LOCAL_HEAP, _FREE_BLOCK, _NO_BLOCK = b"HEAP\x00", 16, 1
_SCANNED_BYTES = 1 << 22
_DEFLATE_MAX_RATIO = 1032
# What h5py raises on files that are damaged or hostile.
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError)


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
        loaded = _read(io.BytesIO(content), len(content), file_size)
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
        The file has links, or external or virtual parts, or is not a Keras file; or h5py is not installed.
    CorruptError, LimitError, DtypeError
        All the problems found, with the datasets that they are in.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return _read(file, size, size)


def _read(file: IO[bytes], size: int, given: int) -> Loaded:
    """Read HDF5 of ``size`` bytes, from a file of ``given`` bytes."""
    # h5py registers its lock for forks when it is imported. A fork that has waited for that import does not take the
    # lock, so that nobody may hold it meanwhile: the fork waits for the whole file.
    with making:
        return _read_in_making(file, size, given)


def _read_in_making(file: IO[bytes], size: int, given: int) -> Loaded:
    h5py = _h5py()
    _check_start(file)
    _check_heaps(file, size)
    loaded = Loaded({}, _LEGACY, {}, Conversion())
    problems: list[WeightsError] = []
    with _hdf5_errors(), h5py.File(file, "r") as root:
        datasets = _datasets(h5py, root)
        total = 0
        for path, dataset in datasets.items():
            try:
                with _hdf5_errors():
                    total += _check(dataset, size)
            except WeightsError as error:
                problems.append(in_context(f"dataset {path!r}", error, tensor=path))
        raise_problems(problems)
        if expands_too_much(given, total):
            raise LimitError(f"its datasets expand to {total} bytes, but the file has {given}.", found=total)
        if "layers" in root:
            loaded = loaded._replace(format=_WEIGHTS)
        for path, name in _names(datasets).items():
            _load(path, name, datasets[path], loaded)
    return loaded


def _check_start(file: IO[bytes]) -> None:
    """Refuse a file with addresses or lengths of other than 8 bytes, or that do not count from the file's start."""
    file.seek(0)
    head = file.read(32)
    sizes, base = (13, 24) if head[8:9] in (b"\0", b"\1") else (9, 12)
    if not head.startswith(MAGIC) or head[sizes : sizes + 2] != b"\x08\x08" or head[base : base + 8] != bytes(8):
        raise CorruptError("the HDF5 file is damaged: it does not begin as Keras' files do.")


def _check_heaps(file: IO[bytes], size: int) -> None:
    """Refuse a file with a heap on which HDF5 would loop for ever or read beyond its end.

    The names of Keras 3's layers lie in the global heap, and the parts of virtual datasets; the names in a group lie in
    a local heap. HDF5 takes a heap from wherever an address points, if it starts as one: so all such places in the file
    are looked at, before HDF5 sees it. Another process, with a deadline, would take longer to start than most files to
    load.
    """
    taken = 0
    for start, is_global in _heaps(file):
        file.seek(start)
        length, first, address = struct.unpack("<8xQQQ", file.read(32).ljust(32, b"\0"))
        place, least = (start, _COLLECTION_LEAST) if is_global else (address, 0)
        if not least <= length <= size - place:
            continue  # HDF5 refuses it, and it may be part of a tensor
        taken += length
        file.seek(place)
        sound = taken <= size and (_follow(file.read(length)) if is_global else _ends(file.read(length), first))
        if not sound:
            raise CorruptError(f"the HDF5 file is damaged: its heap at byte {start}.")


def _heaps(file: IO[bytes]) -> Iterator[tuple[int, bool]]:
    """Where in a file heaps could start; and whether it is a collection of the global heap, or a local heap."""
    before, block = 0, b""
    while True:
        file.seek(before + len(block))
        fresh = file.read(_SCANNED_BYTES)
        if not fresh:
            return
        # A start may lie across two reads.
        kept = block[-4:]
        before, block = before + len(block) - len(kept), kept + fresh
        for start in (_COLLECTION, _LOCAL_HEAP):
            found = block.find(start)
            while found >= 0:
                yield before + found, start == _COLLECTION
                found = block.find(start, found + 1)


def _ends(heap: bytes, first: int) -> bool:
    """Whether the list of a local heap's free blocks comes to an end."""
    for _ in range(len(heap) // _FREE_BLOCK + 1):
        if first == _NO_BLOCK or first > len(heap) - _FREE_BLOCK:
            return True  # or HDF5 refuses it
        (first,) = struct.unpack_from("<Q", heap, first)
    return False


def _follow(collection: bytes) -> bool:
    """Whether the objects of a collection of the global heap follow each other up to its end."""
    place, end = _COLLECTION_HEAD, len(collection)
    # What is left at the end may be too short for an object.
    while end - place >= _COLLECTION_HEAD:
        index, size = struct.unpack_from("<H6xQ", collection, place)
        # Object 0 is the free space, whose size counts its head.
        taken = size if index == 0 else _COLLECTION_HEAD + -(-size // 8) * 8
        if not _COLLECTION_HEAD <= taken <= end - place:
            return False
        place += taken
    return True


def _h5py() -> Any:
    try:
        with making:
            import h5py
    except ImportError as error:
        raise FormatError(
            "it is an HDF5 file, as Keras writes, but h5py, which reads such files, is not installed: "
            f"{how_to_get('keras')}"
        ) from error
    return h5py


@contextlib.contextmanager
def _hdf5_errors() -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except _H5PY_ERRORS as error:
        if is_want(error):
            raise
        raise CorruptError(f"the HDF5 file is damaged: {error}.") from error


def _datasets(h5py: Any, root: Any) -> dict[str, Any]:
    """Every dataset by its path, except the optimizer's: each object once, and only by hard links."""
    found: dict[str, Any] = {}
    seen: set[Any] = set()
    pending = [("", root)]
    while pending:
        path, group = pending.pop()
        for name in group:
            child_path = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise FormatError(
                    f"{child_path!r} is a link, within the file or to another one; refnet follows no links.",
                    tensor=child_path,
                )
            if child_path in _OPTIMIZER:
                continue
            child = group[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen or len(seen) > _MAX_OBJECTS or child_path.count("/") > _MAX_DEPTH:
                raise FormatError(f"{child_path!r} has another name too, or the file has too many or too deep groups.")
            seen.add(address)
            if isinstance(child, h5py.Dataset):
                found[child_path] = child
            elif isinstance(child, h5py.Group):
                pending.append((child_path, child))
    return found


def _check(dataset: Any, file_size: int) -> int:
    """The bytes that reading a dataset takes, checked against the bytes that the file has for it."""
    if dataset.is_virtual or dataset.external:
        raise FormatError("its values are in other files, which refnet does not open.")
    dtype = dataset.dtype
    if dtype.kind in "OV":
        raise DtypeError(
            f"its dtype is {dtype}: values of varying length, records or references, not numbers.", found=dtype
        )
    if dataset.shape is None:
        raise FormatError("it has no shape.")
    check_shape(dataset.shape, dtype.itemsize)
    nbytes: int = math.prod(dataset.shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    filters = dataset.id.get_create_plist()
    codes = [filters.get_filter(index)[0] for index in range(filters.get_nfilters())]
    if not _FILTERS.issuperset(codes):
        others = ", ".join(_OTHER_FILTERS.get(code, "unknown") for code in codes if code not in _FILTERS)
        raise FormatError(
            f"it is stored through the filters {codes} ({others}); refnet reads only gzip and shuffle.", found=codes
        )
    if stored > file_size:
        raise CorruptError(f"it takes {stored} bytes, but the file has {file_size}: the file is cut off.")
    if nbytes > stored * (_DEFLATE_MAX_RATIO if codes else 1):
        raise LimitError(
            f"its shape {dataset.shape} takes {nbytes} bytes, but the file holds {stored} for it.",
            expected=nbytes,
            found=stored,
        )
    # Values that pass through a filter do so in whole chunks.
    chunk: int = math.prod(dataset.chunks or ()) * dtype.itemsize
    return max(nbytes, chunk)


def _names(datasets: Mapping[str, Any]) -> dict[str, str]:
    """The name of each dataset: ``layer/role``, after the name of an outer layer if several have layers so named."""
    names = {path: _name(path, dataset) for path, dataset in datasets.items()}
    counts = Counter(names.values())
    outer = {path: _outer(path) for path in names}
    clashing = {outer[path] for path, name in names.items() if counts[name] > 1} - {""}
    return {path: f"{outer[path]}/{name}" if outer[path] in clashing else name for path, name in names.items()}


def _outer(path: str) -> str:
    """The outer layer: the groups before that of a layer, without those that only Keras' format has; "" if none."""
    *groups, layer = path.split("/")[: -2 if path.split("/")[-2:-1] == ["vars"] else -1] or [""]
    outer = [group for group in groups if group not in ("layers", "model_weights")]
    # A layer that is in no other has a group of its own name in the older format.
    return "" if outer == [layer] else "/".join(outer)


def _load(path: str, name: str, dataset: Any, loaded: Loaded) -> None:
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        loaded.conversion.left_out[name] = not_numeric(dataset.dtype)
        return
    if name in loaded.tensors:
        raise FormatError(f"two datasets have the name {name!r}; the second is {path!r}.", tensor=name)
    values = np.asarray(dataset[()])
    loaded.tensors[name] = values.astype(values.dtype.newbyteorder("="), order="C", copy=False)


def _name(path: str, dataset: Any) -> str:
    """``layer/role``: Keras 3 numbers a layer's variables and keeps its name as an attribute."""
    parts = path.split("/")
    if len(parts) < 2:
        return path
    if parts[-2] != "vars":
        return f"{parts[-2]}/{parts[-1].removesuffix(':0')}"
    variables = dataset.parent
    roles = _ROLES.get(len(variables), ())
    numbers = [str(number) for number in range(len(roles))]
    if parts[-1] not in numbers or "name" not in variables.attrs:
        return path
    attribute = variables.attrs.get_id("name")
    if attribute.shape != () or _h5py().check_string_dtype(attribute.dtype) is None:
        return path
    layer = variables.attrs["name"]
    return f"{layer}/{roles[numbers.index(parts[-1])]}" if isinstance(layer, str) else path


FORMAT = Format("Keras' .h5", lambda path, head: head.startswith(MAGIC), read_hdf5)
ARCHIVE_FORMAT = Format("Keras' .keras", lambda path, head: head.startswith(MAGICS) and is_archive(path), read_archive)
