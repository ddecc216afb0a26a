"""PyTorch's files, ``.pth``, ``.pt`` and ``.bin``: a pickle, and the values of tensors beside it. No code is run.

Since PyTorch 1.6 a file is a zip archive: ``NAME/data.pkl``, and ``NAME/data/KEY`` for each storage, the memory of one
or more tensors. Before, it was five pickles (a magic number, a version, the machine's byte order, the object and the
storages' keys), and then for each storage its size and its values.

Pickles are read by `refnet.weights.formats.pickle_values`, which runs nothing. From what they say, the state dict is
chosen, its tensors are checked, and only then are values read.

Source: PyTorch's ``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import itertools
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import listed
from refnet.errors import ConfigError, CorruptError, FormatError, LimitError, WeightsError
from refnet.files import regular_file_size
from refnet.resources import is_want
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format
from refnet.weights.formats.loaded import (
    Arena,
    Loaded,
    check_shape,
    check_sharing,
    float32_of_bfloat16,
    in_context,
    not_numeric,
    raise_problems,
    read_all,
    read_at,
)
from refnet.weights.formats.npz import MAGICS, check_archive, opened_member, zip_errors
from refnet.weights.formats.pickle_values import PROTOCOLS, START, Call, Name, Outside, Pickle, kind, read_pickle

_ZIP, _LEGACY = "PyTorch", "PyTorch, legacy"

# The zip archive.
_PICKLE = "/data.pkl"
_OWN_MEMBERS = re.compile(r"[^/]+/(data\.pkl|constants\.pkl|version|byteorder|\.format_version|data/[^/]+)")
_OTHER_ARCHIVES = {
    "constants.pkl": "a TorchScript archive, which holds a program: load it with torch.jit.load",
    "archive_format": "a program that torch.export saved: load it with torch.export.load",
}
_BYTE_ORDERS = {b"little": "<", b"big": ">"}

# The legacy file.
_MAGIC_NUMBER, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAGIC = b"\x8a\x0a" + _MAGIC_NUMBER.to_bytes(10, "little") + b"."
_FIRST_READ_BYTES = 1 << 20
# Protocols 0 and 1 have no magic number: a dict or a list, or a module, and a name in it.
_OLD_PICKLE = re.compile(rb"\([dl]p\d+\n|[}\]]q\0|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n")
_SIZE_BYTES = 8

_BFLOAT16 = "BFloat16Storage"
# Storages, and tensors that name their dtype beside an untyped storage: how NumPy has their numbers.
_NUMERIC = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "u2",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "UntypedStorage": "u1",
    "torch.uint16": "u2", "torch.uint32": "u4", "torch.uint64": "u8",
}  # fmt: skip
# Bytes per element of those that are left out.
_SKIPPED = {
    "BoolStorage": 1, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
    "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}  # fmt: skip
# What makes tensors: the position of the dtype and of the metadata among the arguments, where there are any.
_TENSORS: dict[str, tuple[int | None, int | None]] = {
    "torch._utils._rebuild_tensor": (None, None),
    "torch._utils._rebuild_tensor_v2": (None, 6),
    "torch._utils._rebuild_tensor_v3": (6, 7),
}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_TYPES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_SETS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")}

# Where the state dict is: checkpoints nest it a few times.
_MAX_DEPTH = 8
# In whole modules, and the length of all their names.
_MAX_TENSORS, _MAX_NAMES_LENGTH = 1 << 16, 16 << 20
_USUAL = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params")
_AVERAGES = re.compile(r"(^|[^a-z])(ema|swa|avg|averaged?|averages)([^a-z]|$)", re.IGNORECASE)
# In messages.
_FEW, _MAX_SHOWN = 8, 100

_Path = tuple[str, ...]


class _Source(NamedTuple):
    """A file's parts.

    Attributes
    ----------
    value : object
        What its pickle says.
    format : str
    byte_order : str
        NumPy's, ``"<"`` or ``">"``.
    size : callable
        The bytes that the file has for a storage, by the storage's key, or None.
    fill : callable
        Reads a storage's values, by its key.
    """

    value: Any
    format: str
    byte_order: str
    size: Callable[[str], int | None]
    fill: Callable[[str, memoryview], None]


class _Storage(NamedTuple):
    """The memory of tensors: its key, what its elements are, and their number."""

    key: str
    dtype: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * _itemsize(self.dtype)


class _Tensor(NamedTuple):
    """A tensor's place in a storage, all in elements of its dtype."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * _itemsize(self.dtype)

    @property
    def is_whole(self) -> bool:
        """Whether it has all of the storage's elements in their order."""
        following = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != following:
                return False
            following *= size
        return self.offset == 0 and self.nbytes == self.storage.nbytes


def _itemsize(dtype: str) -> int:
    return _SKIPPED[dtype] if dtype in _SKIPPED else int(_NUMERIC[dtype][1:])


def read_pytorch(path: str, averages: bool = False) -> Loaded:
    """Read a file that ``torch.save`` wrote.

    Parameters
    ----------
    path : str
    averages : bool
        Whether to take averages of the weights, where the file has both.

    Returns
    -------
    Loaded
        The integers and floats of the state dict, native-endian and C-contiguous, under the names that it has there;
        bfloat16 as float32.

    Raises
    ------
    FormatError, CorruptError, LimitError
        All the problems found, with the tensors that they are in.
    """
    size = regular_file_size(path)
    with open(path, "rb") as file:
        if file.read(4) not in MAGICS:
            return _read(_open_legacy(file.fileno(), size), averages)
        with zip_errors():
            archive = zipfile.ZipFile(file)
        with archive:
            return _read(_open_archive(archive, file.fileno(), size), averages)


def is_pytorch(path: str, head: bytes) -> bool:
    """Whether a file is one that ``torch.save`` writes, or an archive like it.

    Parameters
    ----------
    path : str
    head : bytes
        Its first bytes.

    Returns
    -------
    bool
    """
    if not head.startswith(MAGICS):
        return _is_pickle(head) and _MAGIC in head
    # The archive's first member; in an .npz it is an array, or stands in no folder.
    length = int.from_bytes(head[26:28], "little")
    first = head[30 : 30 + length]
    if len(first) == length and (first.endswith(b".npy") or b"/" not in first):
        return False
    if first.endswith(_PICKLE.encode()):
        return True
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return any(map(_OWN_MEMBERS.fullmatch, archive.namelist()))
    except Exception as error:  # a damaged archive raises many things, and is reported as an .npz
        if is_want(error):
            raise
        return False


def _is_pickle(head: bytes) -> bool:
    return len(head) > 1 and head[:1] == START and head[1] in PROTOCOLS


def foreign(path: str, head: bytes) -> str | None:
    """What a file is that is like PyTorch's but is none, and what to do.

    Parameters
    ----------
    path : str
    head : bytes
        Its first bytes.

    Returns
    -------
    str or None
        Words for an error.
    """
    if head[257:262] == b"ustar":
        return (
            "a tar archive: unpack it first; or, if PyTorch wrote it before its version 0.2, load it with PyTorch and "
            "save the state dict again"
        )
    if not _is_pickle(head) and not _OLD_PICKLE.match(head):
        return None
    try:
        with open(path, "rb") as file:
            what = f", of {kind(read_pickle(file.read(_FIRST_READ_BYTES), 0, 0).value)}"
    except WeightsError:
        what = ""
    return (
        f"a pickle{what}, but not one that torch.save wrote, and refnet loads no other: load it with what wrote it, "
        "and save the arrays with numpy.savez"
    )


def _open_archive(archive: zipfile.ZipFile, file: int, file_size: int) -> _Source:
    members = archive.infolist()
    check_archive(members, file_size)
    by_name = {member.filename: member for member in members}
    for name in by_name:
        if (what := _OTHER_ARCHIVES.get(name.partition("/")[2])) is not None:
            raise FormatError(f"it is {what} in PyTorch, and save model.state_dict() with torch.save.")
    pickles = [name for name in by_name if name.endswith(_PICKLE)]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise FormatError(
            f"PyTorch's archives have one member FOLDER{_PICKLE}; this one has {listed(pickles) or 'none'}.",
            found=pickles,
        )
    folder = pickles[0].removesuffix(_PICKLE)

    def content(name: str) -> bytes:
        member = by_name[name]
        values = bytearray(member.file_size)
        _fill(archive, file, member, memoryview(values))
        return bytes(values)

    if by_name[pickles[0]].CRC == 0 and by_name[pickles[0]].file_size:
        raise CorruptError(
            f"member {pickles[0]!r} has no checksum, as after torch.serialization.set_crc32_options(False): load the "
            "file with PyTorch, and save it with checksums."
        )
    data = content(pickles[0])
    order = content(f"{folder}/byteorder") if f"{folder}/byteorder" in by_name else b"little"
    if order not in _BYTE_ORDERS:
        raise FormatError(f"its byte order is {order[:_FEW]!r}; it is one of {', '.join(map(repr, _BYTE_ORDERS))}.")
    pickle = read_pickle(data, 0, file_size)
    if pickle.end != len(data):
        raise FormatError(f"{len(data) - pickle.end} bytes follow the pickle in member {pickles[0]!r}.")
    _storages(pickle.outside)

    def size(key: str) -> int | None:
        member = by_name.get(f"{folder}/data/{key}")
        return None if member is None else member.file_size

    def fill(key: str, values: memoryview) -> None:
        _fill(archive, file, by_name[f"{folder}/data/{key}"], values)

    return _Source(pickle.value, _ZIP, _BYTE_ORDERS[order], size, fill)


def _fill(archive: zipfile.ZipFile, file: int, member: zipfile.ZipInfo, values: memoryview) -> None:
    """Read all of a member, with its checksum."""
    done = 0
    try:
        with zip_errors(), opened_member(archive, file, member) as content:
            while count := content.readinto(values[done:]):
                done += count
    except WeightsError as error:
        raise in_context(f"member {member.filename!r}", error) from error
    if done != len(values):
        raise CorruptError(f"member {member.filename!r}: only {done} of its {len(values)} bytes are there.")


def _open_legacy(file: int, file_size: int) -> _Source:
    magic, version, system, pickle, keys = _legacy_pickles(file, file_size)
    if magic.value != _MAGIC_NUMBER or version.value != _VERSION:
        raise FormatError("it does not start with the magic number and the version of PyTorch's files.")
    if type(system.value) is not dict or system.value.get("little_endian") is not True:
        raise FormatError("it was written on a big-endian machine: load it with PyTorch there, and save it anew.")
    storages = _storages(pickle.outside)
    if type(keys.value) is not list or not all(type(key) is str and key in storages for key in keys.value):
        raise FormatError("its list of storages does not name the storages of its tensors.")
    places: dict[str, tuple[int, int]] = {}
    position = keys.end
    for key in keys.value:
        count = int.from_bytes(_read_some(file, position, _SIZE_BYTES), "little")
        if key in places or count != storages[key].numel:
            raise FormatError(
                f"storage {_short(key)!r} has {count} elements, but its tensors say {storages[key].numel}."
            )
        position += _SIZE_BYTES
        places[key] = position, storages[key].nbytes
        position += places[key][1]
        if position > file_size:
            raise CorruptError(
                f"storage {_short(key)!r} ends at byte {position}, but there are {file_size}: it is cut off."
            )
    if position != file_size:
        raise FormatError(f"{file_size - position} bytes follow the last storage.")

    def size(key: str) -> int | None:
        return places[key][1] if key in places else None

    def fill(key: str, values: memoryview) -> None:
        if read_at(file, places[key][0], values) != len(values):
            raise CorruptError("the file was cut off while it was read.")

    return _Source(pickle.value, _LEGACY, "<", size, fill)


def _legacy_pickles(file: int, file_size: int) -> list[Pickle]:
    """The five pickles. How long they are is not said, so more of the file is read until they end."""
    size = _FIRST_READ_BYTES
    while True:
        data = _read_some(file, 0, min(size, file_size))
        pickles: list[Pickle] = []
        try:
            for _ in range(5):
                pickles.append(read_pickle(data, pickles[-1].end if pickles else 0, file_size))
        except CorruptError:
            if size >= file_size:
                raise
            size *= 4
        else:
            return pickles


def _read_some(file: int, start: int, count: int) -> bytes:
    content = bytearray(count)
    if read_at(file, start, memoryview(content)) != count:
        raise CorruptError(f"the file ends before its byte {start + count}: it is cut off.")
    return bytes(content)


def _read(source: _Source, averages: bool) -> Loaded:
    """The tensors of the state dict in a file."""
    conversion = Conversion()
    tensors: dict[str, _Tensor] = {}
    problems: list[WeightsError] = []
    for name, value in _chosen(source.value, conversion, averages):
        try:
            _check_name(name, tensors)
            tensor = _tensor(value, source)
        except WeightsError as error:
            problems.append(in_context(f"tensor {_short(name)!r}", error, tensor=name))
            continue
        if isinstance(tensor, str):
            conversion.left_out[name] = tensor
            continue
        tensors[name] = tensor
        if tensor.dtype == _BFLOAT16:
            conversion.converted[name] = "bfloat16"
    raise_problems(problems)
    return Loaded(_values(tensors, source), source.format, {}, conversion)


def _values(tensors: Mapping[str, _Tensor], source: _Source) -> dict[str, np.ndarray]:
    """The tensors' values; a tensor that is not the whole of a storage of its own gets a copy."""
    users: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        users.setdefault(tensor.storage.key, []).append(name)
    storages = {key: tensors[names[0]].storage for key, names in users.items()}
    alone = {names[0] for names in users.values() if len(names) == 1 and tensors[names[0]].is_whole}
    nbytes = {key: storage.nbytes for key, storage in storages.items()}
    copied = sum(tensor.nbytes for name, tensor in tensors.items() if name not in alone)
    check_sharing(copied, sum(nbytes.values()))
    arena = Arena(sum(nbytes.values()) + copied, len(storages) + len(tensors))

    def read(key: str) -> np.ndarray:
        memory = arena.take(nbytes[key])
        try:
            source.fill(key, memory.data)
        except WeightsError as error:
            raise in_context(f"tensor {_short(users[key][0])!r}", error, tensor=users[key][0]) from error
        return memory

    memories = dict(zip(storages, read_all(read, storages, nbytes.__getitem__), strict=True))

    def array(name: str, tensor: _Tensor) -> np.ndarray:
        dtype = np.dtype(source.byte_order + _NUMERIC[tensor.dtype])
        strides = [
            stride * dtype.itemsize if size > 1 else 0
            for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        ]
        memory = memories[tensor.storage.key]
        if tensor.size == 0:
            values = memory[:0].view(dtype).reshape(tensor.shape)
        elif name in alone:
            values = memory.view(dtype).reshape(tensor.shape)
        else:
            values = arena.take(tensor.nbytes).view(dtype).reshape(tensor.shape)
            values[...] = np.ndarray(tensor.shape, dtype, memory.data, tensor.offset * dtype.itemsize, strides)
        if tensor.dtype == _BFLOAT16:
            return float32_of_bfloat16(values)
        return values.astype(dtype.newbyteorder("="), copy=False)

    return {name: array(name, tensor) for name, tensor in tensors.items()}


# What a pickle says of tensors.


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Call) and (
        value.title in _TENSORS or value.title in _PARAMETERS or value.title == _OF_TYPE
    )


def _plain(value: Any) -> Any:
    """The call that makes a tensor, without what makes a parameter of it; other values as they are."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, Call):
            break
        arguments = value.arguments
        if value.title in _PARAMETERS and arguments:
            value = arguments[0]
        elif value.title == _OF_TYPE and len(arguments) == 4 and _title(arguments[1]) in _TYPES:
            value = Call(_title(arguments[0]), arguments[2] if type(arguments[2]) is tuple else ())
        else:
            break
    return value


def _title(value: Any) -> str:
    return value.title if isinstance(value, Name) else ""


def _tensor(value: Any, source: _Source) -> _Tensor | str:
    """A tensor, or why the value is left out."""
    value = _plain(value)
    if not isinstance(value, Call) or value.title not in _TENSORS:
        return f"it is {kind(value)}, not a tensor"
    where_dtype, where_metadata = _TENSORS[value.title]
    arguments = value.arguments
    if len(arguments) < 4:
        raise FormatError(
            f"{value.title} takes a storage, an offset, a shape and strides, not {len(arguments)} values."
        )
    reference, offset, shape, strides = arguments[:4]
    storage = _storage(reference)
    if storage is None:
        raise FormatError("its storage is none of PyTorch's.")
    dtype = storage.dtype
    if where_dtype is not None:
        dtype = _title(arguments[where_dtype]) if len(arguments) > where_dtype else ""
    if dtype not in _NUMERIC:
        return not_numeric(dtype.removeprefix("torch."))
    if where_metadata is not None and len(arguments) > where_metadata and arguments[where_metadata]:
        return "its values stand in the file negated or conjugated"
    for what, numbers in (("offset", (offset,)), ("shape", shape), ("strides", strides)):
        # A bool passes for an int.
        if type(numbers) is not tuple or not all(type(number) is int and number >= 0 for number in numbers):
            raise FormatError(f"its {what} is not of whole numbers from 0 on.")
    if len(shape) != len(strides):
        raise FormatError(f"it has {len(shape)} dimensions, but {len(strides)} strides.")
    check_shape(shape, _itemsize(dtype))
    tensor = _Tensor(storage, dtype, offset, shape, strides)
    _check_place(tensor, source)
    return tensor


def _storage(reference: Any) -> _Storage | None:
    """The storage that a reference names; None if it names another thing."""
    identity = reference.identity if isinstance(reference, Outside) else None
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        return None
    _, of, key, _, count = identity[:5]
    dtype = _title(of).rpartition(".")[2]
    if not (dtype in _NUMERIC or dtype in _SKIPPED) or type(key) is not str or type(count) is not int or count < 0:
        return None
    if identity[5:] not in ((), (None,)):
        raise FormatError(f"storage {_short(key)!r} is a part of another, as only old versions of PyTorch write it.")
    return _Storage(key, dtype, count)


def _storages(references: list[Outside]) -> dict[str, _Storage]:
    """All storages, of each of which every tensor must say the same: PyTorch believes the first one."""
    storages: dict[str, _Storage] = {}
    for reference in references:
        if (storage := _storage(reference)) is not None and storages.setdefault(storage.key, storage) != storage:
            raise FormatError(f"two tensors say different things of storage {_short(storage.key)!r}.")
    return storages


def _check_place(tensor: _Tensor, source: _Source) -> None:
    """Check that the file holds the storage, and the storage the tensor."""
    storage = tensor.storage
    nbytes = storage.nbytes
    found = source.size(storage.key)
    if found is None:
        raise CorruptError(f"its storage {_short(storage.key)!r} is missing.")
    if found != nbytes:
        raise CorruptError(
            f"its storage {_short(storage.key)!r} has {found} bytes, but {storage.numel} elements of {storage.dtype} "
            f"take {nbytes}.",
            expected=nbytes,
            found=found,
        )
    if tensor.nbytes > nbytes:
        raise LimitError(
            f"its shape {tensor.shape} takes {tensor.nbytes} bytes, but its storage has {nbytes}.",
            expected=tensor.nbytes,
            found=nbytes,
        )
    steps = zip(tensor.shape, tensor.strides, strict=True)
    end = tensor.offset + sum((size - 1) * stride for size, stride in steps) + 1
    if tensor.size and end * _itemsize(tensor.dtype) > nbytes:
        raise CorruptError(
            f"it ends at element {end}, but its storage has {nbytes // _itemsize(tensor.dtype)}.",
            expected=end,
            found=nbytes // _itemsize(tensor.dtype),
        )


def _check_name(name: str, seen: Mapping[str, Any]) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError("its name is not Unicode.") from error
    if name in seen:
        raise FormatError("two tensors have this name.")


# Which of a file's values is the state dict.


def _chosen(value: Any, conversion: Conversion, averages: bool) -> Iterator[tuple[str, Any]]:
    """The names and values of the file's state dict; what is beside it is noted."""
    found, optimizers = _candidates(value)
    path, others = _choice(found, value, averages)
    for optimizer in optimizers:
        conversion.left_out[_titled(optimizer)] = "it is the state of an optimizer"
    kinds = [other for other in others if _are_averages(other)]
    if kinds and not _are_averages(path):
        conversion.remarks.append(
            f"the file holds averages of the weights too ({_listed(kinds)}), and the weights themselves were taken "
            f"({_titled(path)}): averages=True takes the averages"
        )
    if _are_averages(path):
        conversion.remarks.append(f"the averages of the weights were taken ({_titled(path)})")
    rest = [other for other in others if not _are_averages(other)]
    if rest:
        conversion.remarks.append(
            f"the file holds tensors beside {_titled(path)} that were left out: those of {_listed(rest)}"
        )
    chosen = found[path]
    if _modules(chosen) is not None:
        return _of_module(chosen)
    return ((name, item) for name, item in _entries(chosen).items() if isinstance(name, str))


def _candidates(value: Any) -> tuple[dict[_Path, Any], list[_Path]]:
    """All state dicts and modules in a value, by the keys that lead there, and the states of optimizers.

    A value is looked at once, though it may be in many places.
    """
    found: dict[_Path, Any] = {}
    optimizers: list[_Path] = []
    seen: set[int] = set()
    level: list[tuple[_Path, Any]] = [((), value)]
    for _ in range(_MAX_DEPTH):
        following: list[tuple[_Path, Any]] = []
        for path, item in level:
            entries = _entries(item)
            if not entries or id(item) in seen:
                continue
            seen.add(id(item))
            if "param_groups" in entries and "state" in entries:
                optimizers.append(path)
            elif _modules(item) is not None:
                found[path] = item
            else:
                if any(isinstance(name, str) and _is_tensor(entry) for name, entry in entries.items()):
                    found[path] = item
                following += [
                    ((*path, name), entry)
                    for name, entry in entries.items()
                    if isinstance(name, str) and isinstance(entry, dict | Call)
                ]
        level = following
    return found, optimizers


def _choice(found: Mapping[_Path, Any], value: Any, averages: bool) -> tuple[_Path, list[_Path]]:
    """The path of the state dict to take, and those of the others.

    The weights themselves come before their averages, and of several state dicts the one under a usual name.
    """
    if not found:
        keys = [_short(key) for key in itertools.islice(_entries(value), _FEW) if isinstance(key, str)]
        holds = f"{kind(value)} with the keys {', '.join(keys)}" if keys else kind(value)
        raise FormatError(f"it holds no state dict, but {holds}: save model.state_dict() with torch.save.")
    # A dict with a few tensors of no or one dimension holds a loss, or the state of a random generator.
    networks = [path for path, item in found.items() if _modules(item) is not None or _has_kernel(item)] or list(found)
    themselves = [path for path in networks if _are_averages(path) == averages]
    if averages and not themselves:
        raise ConfigError("The file holds no averages of its weights.")
    usual = [path for path in themselves if path and path[-1] in _USUAL]
    group = usual or themselves or networks
    depth = min(map(len, group))
    shallowest = [path for path in group if len(path) == depth]
    if len(shallowest) > 1:
        raise FormatError(
            f"it holds {len(networks)} state dicts, and refnet cannot tell which of them is the network's: load the "
            f"file with PyTorch, and save the one that you need with torch.save. They are {_listed(networks)}."
        )
    return shallowest[0], [path for path in networks if path != shallowest[0]]


def _has_kernel(item: Any) -> bool:
    """Whether a dict has a tensor of two dimensions or more."""
    for entry in _entries(item).values():
        call = _plain(entry) if _is_tensor(entry) else None
        shape = call.arguments[2:3] if isinstance(call, Call) else ()
        if shape and type(shape[0]) is tuple and len(shape[0]) > 1:
            return True
    return False


def _are_averages(path: _Path) -> bool:
    return any(map(_AVERAGES.search, path))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _titled(path: _Path) -> str:
    return ".".join(map(_short, path)) or "the file's own dict"


def _listed(paths: list[_Path]) -> str:
    return listed(map(_titled, paths))


def _entries(value: Any) -> Mapping[Any, Any]:
    """What a value holds by keys: a dict's items, or those of an object like a dict, or an object's attributes."""
    if type(value) is dict:
        return value
    if not isinstance(value, Call):
        return {}
    if value.items is not None:
        return value.items
    # Objects with slots have a state of two dicts.
    states = value.state if type(value.state) is tuple else (value.state,)
    return next((state for state in states if type(state) is dict), {})


def _modules(value: Any) -> Mapping[Any, Any] | None:
    """The modules in a module of PyTorch; None if the value is not a module."""
    if not isinstance(value, Call):
        return None
    entries = _entries(value)
    if not all(name in entries for name in ("_parameters", "_buffers", "_modules")):
        return None
    return _entries(entries["_modules"])


def _of_module(module: Call) -> Iterator[tuple[str, Any]]:
    """What the module's own state dict holds: parameters, and the buffers that last, under the names of modules.

    A module can be in many places, and in itself.
    """
    count, length = 0, 0
    waiting: list[tuple[str, Any]] = [("", module)]
    while waiting:
        name, item = waiting.pop()
        count += 1
        length += len(name)
        if count > _MAX_TENSORS or length > _MAX_NAMES_LENGTH:
            raise LimitError(f"its modules hold more than {_MAX_TENSORS} tensors, or one another without end.")
        modules = _modules(item)
        if modules is None:
            yield name, item
            continue
        entries = _entries(item)
        passing = _members(entries.get("_non_persistent_buffers_set"))
        buffers = {key: buffer for key, buffer in _entries(entries["_buffers"]).items() if key not in passing}
        parts = [*_entries(entries["_parameters"]).items(), *buffers.items(), *modules.items()]
        prefix = f"{name}." if name else ""
        length += len(parts) * len(prefix)
        waiting += [(prefix + key, part) for key, part in reversed(parts) if isinstance(key, str) and part is not None]


def _members(value: Any) -> set[str]:
    """The texts in a set."""
    if not isinstance(value, Call) or value.title not in _SETS or not value.arguments:
        return set()
    values = value.arguments[0]
    return {item for item in values if type(item) is str} if type(values) is list else set()


FORMAT = Format("PyTorch's .pth", is_pytorch, read_pytorch, read_averages=partial(read_pytorch, averages=True))
