"""TensorFlow checkpoints, V1 and V2, without TensorFlow.

V2 is ``prefix.index``, a table of entries, and ``prefix.data-SSSSS-of-NNNNN``, the raw bytes. V1, the format of the
weights that TF-Slim released, is one table that holds everything.

Sources: TensorFlow's ``core/util/tensor_bundle/tensor_bundle.cc`` and ``core/protobuf/tensor_bundle.proto`` (V2),
``core/util/tensor_slice_reader.cc``, ``saved_tensor_slice.proto`` and ``saved_tensor_slice_util.cc`` (V1),
``core/lib/strings/ordered_code.cc`` (the keys of slices).
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refnet.errors import CorruptError, FormatError, WeightsError
from refnet.files import json_object, regular_file_size
from refnet.weights.conversion import Conversion
from refnet.weights.formats import tf_objects
from refnet.weights.formats.format import Format
from refnet.weights.formats.loaded import (
    METADATA_MAX_BYTES,
    METADATA_NAME,
    Arena,
    Loaded,
    check_shape,
    float32_of_bfloat16,
    in_context,
    not_numeric,
    read_all,
    read_at,
)
from refnet.weights.formats.protobuf import integer, messages, parse, read_packed_varints, read_varint, signed
from refnet.weights.formats.table import MAGIC, masked_crc32c, read_table

FORMAT_START = "TF checkpoint"
V1, V2 = f"{FORMAT_START} V1", f"{FORMAT_START} V2"

_STATE_FILE = "checkpoint"
_STATE_FILE_MAX_BYTES = 1 << 20
_COMPANION = re.compile(r"\.(meta|data-[0-9]{5}-of-[0-9]{5})\Z")
# In a SavedModel, or a TensorFlow Hub module.
_SAVED_MODEL, _VARIABLES = "saved_model.pb", os.path.join("variables", "variables.index")
_FULL_EXTENT = -1
_CRC_BYTES = 4


class _Dtype(NamedTuple):
    name: str
    stored: str  # the NumPy type of the bytes in a file
    field: int  # the field of TensorProto that holds the values in V1


_FLOAT_VAL, _DOUBLE_VAL, _INT_VAL, _INT64_VAL, _HALF_VAL, _UINT32_VAL, _UINT64_VAL = 5, 6, 7, 10, 13, 16, 17
_TENSOR_CONTENT = 4
# types.proto
_NUMERIC = {
    1: _Dtype("float32", "<f4", _FLOAT_VAL),
    2: _Dtype("float64", "<f8", _DOUBLE_VAL),
    3: _Dtype("int32", "<i4", _INT_VAL),
    4: _Dtype("uint8", "|u1", _INT_VAL),
    5: _Dtype("int16", "<i2", _INT_VAL),
    6: _Dtype("int8", "|i1", _INT_VAL),
    9: _Dtype("int64", "<i8", _INT64_VAL),
    14: _Dtype("bfloat16", "<u2", _HALF_VAL),
    17: _Dtype("uint16", "<u2", _INT_VAL),
    19: _Dtype("float16", "<f2", _HALF_VAL),
    22: _Dtype("uint32", "<u4", _UINT32_VAL),
    23: _Dtype("uint64", "<u8", _UINT64_VAL),
}
#: The number of the dtype of the bytes in a file.
NUMBERS = {dtype.stored: number for number, dtype in _NUMERIC.items() if dtype.name != "bfloat16"}
_SKIPPED = {
    7: "string",
    8: "complex64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    18: "complex128",
    20: "resource",
    21: "variant",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    29: "int4",
    30: "uint4",
}

_SLICE_KEY_START = b"\0"

# One (start, length) per dimension; the length of a whole dimension is _FULL_EXTENT.
_Extents = tuple[tuple[int, int], ...]

# A slice's key, dtype and shape -> its values, of that shape.
_ReadPiece = Callable[[bytes, int, tuple[int, ...]], np.ndarray]


class _Entry(NamedTuple):
    """A tensor, or a slice of one, as an index describes it."""

    dtype: int
    shape: tuple[int, ...]
    slices: tuple[_Extents, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0


def is_table(path: str) -> bool:
    """Whether a path is a regular file that ends as TensorFlow's tables do.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    if not os.path.isfile(path) or os.path.getsize(path) < len(MAGIC):
        return False
    with open(path, "rb") as file:
        file.seek(-len(MAGIC), os.SEEK_END)
        return file.read(len(MAGIC)) == MAGIC


def is_companion(path: str) -> bool:
    """Whether a path is named like a file that belongs to a checkpoint's table.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    return _COMPANION.search(path) is not None or os.path.basename(path) == _SAVED_MODEL


def is_state(path: str) -> bool:
    """Whether a path is the state file of a directory, which names its latest checkpoint.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    if os.path.basename(path) != _STATE_FILE or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return b"model_checkpoint_path" in file.read(_STATE_FILE_MAX_BYTES)


def find(path: str) -> str:
    """The table (V2's ``.index``, or a V1 file) of the checkpoint that `path` names.

    Parameters
    ----------
    path : str
        A directory, which may be a SavedModel, a prefix that is not a file itself, or a ``.meta``,
        ``.data-SSSSS-of-NNNNN`` or ``saved_model.pb`` file.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        There is no such checkpoint; the message lists the paths that were tried.
    FormatError
        The directory has no checkpoint, or several.
    """
    if os.path.isdir(path):
        return _find_in_directory(path)
    if os.path.basename(path) == _SAVED_MODEL and os.path.exists(path):
        return _find_in_directory(os.path.dirname(path) or ".")
    prefix = _COMPANION.sub("", path)
    candidates = [path, f"{path}.index", *([f"{prefix}.index", prefix] if prefix != path else [])]
    for candidate in candidates[1:]:
        if os.path.exists(candidate):
            return candidate
    raise FileNotFoundError(2, f"no weights file or checkpoint; looked for {', '.join(candidates)}", path)


def _find_in_directory(directory: str) -> str:
    state = os.path.join(directory, _STATE_FILE)
    if os.path.isfile(state):
        return _find_by_state(directory, state)
    if os.path.exists(os.path.join(directory, _SAVED_MODEL)):
        variables = os.path.join(directory, _VARIABLES)
        if os.path.exists(variables):
            return variables
        raise FormatError(
            f"{directory}: it is a SavedModel without {_VARIABLES}: it has no variables, or they were lost."
        )
    tables = [entry for entry in sorted(os.listdir(directory)) if is_table(os.path.join(directory, entry))]
    if len(tables) == 1:
        return os.path.join(directory, tables[0])
    if not tables and os.path.exists(f"{directory}.index"):
        return f"{directory}.index"
    found = f"{len(tables)} checkpoints ({', '.join(tables)})" if tables else "no checkpoint"
    raise FormatError(
        f"{directory}: the directory has no '{_STATE_FILE}' file and holds {found}; give the path of a weights file."
    )


def _find_by_state(directory: str, state: str) -> str:
    """The latest checkpoint according to the state file; only the file's own directory is searched."""
    with open(state, "rb") as file:
        text = file.read(_STATE_FILE_MAX_BYTES)
    match = re.search(rb'^model_checkpoint_path:\s*"([^"\\\0]+)"', text, re.MULTILINE)
    if match is None:
        raise FormatError(f"{state}: the file has no line 'model_checkpoint_path: \"...\"'.")
    prefix = os.path.join(directory, os.path.basename(os.fsdecode(match[1])))
    for candidate in (f"{prefix}.index", prefix):
        if os.path.isfile(candidate):
            return candidate
    raise FileNotFoundError(2, f"{state} names this checkpoint; looked for {prefix}.index and {prefix}", prefix)


def read_checkpoint(path: str) -> Loaded:
    """Read a checkpoint.

    Parameters
    ----------
    path : str
        The ``.index`` file of a V2 checkpoint, or a V1 file. The only other files that are opened are the ``.data``
        files that belong to it.

    Returns
    -------
    Loaded
        Every numeric tensor, with its checksums verified.

    Raises
    ------
    FormatError, CorruptError, LimitError
        All the problems found, with the tensors and files that they are in.
    """
    with open(path, "rb") as file:
        table = read_table(file.read())
    # V1's header starts with a message, V2's with the number of shards.
    header = parse(table.pop(b"", memoryview(b"")))
    if not header:
        raise FormatError("the table has no header: it is not a checkpoint.")
    if isinstance(header.get(1, [0])[0], int):
        if not path.endswith(".index"):
            raise FormatError("it is the index of a V2 checkpoint; rename it to PREFIX.index, beside PREFIX.data-*.")
        loaded = _read_v2(path.removesuffix(".index"), integer(header, 1), integer(header, 2), table)
        _take_metadata(loaded)
        loaded.conversion.left_out.pop(tf_objects.KEY, None)
        return loaded
    return _read_v1(b"".join(messages(header, 1)), table)


def _read_v2(prefix: str, num_shards: int, endianness: int, table: dict[bytes, memoryview]) -> Loaded:
    if endianness != 0:
        raise FormatError("it was written on a big-endian machine; refnet reads little-endian checkpoints.")
    entries = {key: _bundle_entry(key, value) for key, value in table.items()}
    _check_disjoint(entries)
    shards = {_shard_path(prefix, num_shards, entry.shard) for entry in entries.values()}
    # Entries do not share bytes of these files, so all that are read fit.
    arena = Arena(regular_file_size(*filter(os.path.exists, sorted(shards))), len(entries))

    def read_piece(key: bytes, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
        entry = entries.get(key)
        if entry is None:
            raise CorruptError("one of its slices is not in the index.")
        if (entry.dtype, entry.shape) != (dtype, shape):
            raise FormatError("the index describes one of its slices in two ways.", expected=shape, found=entry.shape)
        return _read_entry(prefix, num_shards, entry, arena)

    tensors = {_name(key): entry for key, entry in entries.items() if not key.startswith(_SLICE_KEY_START)}
    loaded = _load(V2, tensors, read_piece)
    if tf_objects.is_object_based(tensors):
        _take_own_names(loaded, _read_object_graph(prefix, num_shards, tensors.get(tf_objects.KEY)))
    return loaded


def _take_own_names(loaded: Loaded, graph: memoryview) -> None:
    """Give the tensors of an object-based checkpoint their variables' own names, if these are distinct.

    A variable that two objects hold has two equal tensors; one of them is kept. What metrics and optimizers keep is
    left out.
    """
    names = tf_objects.full_names(graph) | tf_objects.names_by_path(loaded.tensors)
    for key in sorted(tf_objects.state_of_training(loaded.tensors)):
        del loaded.tensors[key]
        loaded.conversion.left_out[key] = "it is the state of a training"
    keys: dict[str, list[str]] = {}
    for key in loaded.tensors:
        keys.setdefault(names.get(key, key), []).append(key)
    for name, (key, *others) in keys.items():
        content = loaded.tensors[key]
        if any(not np.array_equal(content, loaded.tensors[other]) for other in others):
            loaded.conversion.remarks.append(
                f"{len(others) + 1} variables are named {name!r}: they keep the file's keys"
            )
            continue
        for other in (key, *others):
            del loaded.tensors[other]
        loaded.tensors[name] = content
        if name != key:
            loaded.conversion.renamed[name] = key


def _read_object_graph(prefix: str, num_shards: int, entry: _Entry | None) -> memoryview:
    """The one string of the object graph's tensor: its length, a checksum of that, its bytes.

    The checksum of the whole is that of the length as four bytes, of its checksum, and of the bytes.
    """
    if entry is None:
        raise FormatError(
            f"its keys are paths of Python objects, but {tf_objects.KEY}, which holds the variables' names, is missing."
        )
    try:
        if entry.shape or entry.slices or _SKIPPED.get(entry.dtype) != "string":
            raise FormatError("it is not the one string that holds the object graph.")
        path = _shard_of(prefix, num_shards, entry)
        content = memoryview(bytearray(entry.size))
        _read_into(content, path, entry.offset)
        length, start = read_varint(content, 0)
        if start + _CRC_BYTES + length != len(content):
            raise FormatError(
                f"its string of {length} bytes does not fill the {len(content)} bytes that the index gives it."
            )
        plain = length.to_bytes(4, "little") + bytes(content[start:])
        found = (masked_crc32c(plain[:4]).to_bytes(4, "little"), masked_crc32c(plain))
        if found != (plain[4 : 4 + _CRC_BYTES], entry.crc):
            raise CorruptError("its bytes do not have the stored checksums: the file is damaged.")
        return content[start + _CRC_BYTES :]
    except WeightsError as error:
        raise in_context(f"tensor {tf_objects.KEY!r}", error, tensor=tf_objects.KEY) from error


def _take_metadata(loaded: Loaded) -> None:
    """Take out refnet's metadata: the format has no place for them, so they are a tensor of bytes."""
    stored = loaded.tensors.pop(METADATA_NAME, None)
    if stored is None:
        return
    if stored.dtype != np.uint8 or stored.nbytes > METADATA_MAX_BYTES:
        raise FormatError(
            f"tensor {METADATA_NAME!r}: it is {stored.dtype} {list(stored.shape)}; "
            f"it can be up to {METADATA_MAX_BYTES} bytes of refnet's metadata, as uint8.",
            tensor=METADATA_NAME,
        )
    loaded.metadata.update(json_object(stored.tobytes(), f"tensor {METADATA_NAME!r}"))


def _read_v1(meta: bytes, table: dict[bytes, memoryview]) -> Loaded:
    tensors: dict[str, _Entry] = {}
    for message in messages(parse(memoryview(meta)), 1):
        fields = parse(message)
        name = _name(b"".join(messages(fields, 1)))
        if name in tensors:
            raise FormatError(f"tensor {name!r} is listed twice.", tensor=name)
        try:
            slices = tuple(_extents(extents) for extents in messages(fields, 4))
            tensors[name] = _Entry(integer(fields, 3), _shape(messages(fields, 2)), slices)
        except WeightsError as error:
            raise in_context(f"tensor {name!r}", error, tensor=name) from error

    def read_piece(key: bytes, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
        if key not in table:
            raise CorruptError("one of its slices is not in the file.")
        # SavedTensorSlices.data, SavedSlice.data: a TensorProto.
        message = table[key]
        for number in (2, 3):
            found = messages(parse(message), number)
            if not found:
                raise FormatError("one of its slices holds no values.")
            message = found[-1]
        values = _tensor_proto_values(message, _NUMERIC[dtype])
        if values.size != math.prod(shape):
            raise FormatError(
                f"a slice of shape {shape} holds {values.size} values.", expected=math.prod(shape), found=values.size
            )
        return values.reshape(shape)

    return _load(V1, tensors, read_piece)


def _load(format_name: str, entries: dict[str, _Entry], read_piece: _ReadPiece) -> Loaded:
    """Read each numeric tensor, and raise all the problems together."""
    loaded = Loaded({}, format_name, {}, Conversion())
    wanted = {name: entry for name, entry in entries.items() if entry.dtype not in _SKIPPED}

    def read(name: str) -> np.ndarray:
        try:
            return _native(_assemble(name, wanted[name], read_piece), wanted[name].dtype)
        except WeightsError as error:
            raise in_context(f"tensor {name!r}", error, tensor=name) from error

    arrays = read_all(read, wanted, lambda name: wanted[name].size)
    loaded.tensors.update(zip(wanted, arrays, strict=True))
    for name, entry in entries.items():
        if entry.dtype in _SKIPPED:
            loaded.conversion.left_out[name] = not_numeric(_SKIPPED[entry.dtype])
        elif _NUMERIC[entry.dtype].name == "bfloat16":
            loaded.conversion.converted[name] = "bfloat16"
    return loaded


def _assemble(name: str, entry: _Entry, read_piece: _ReadPiece) -> np.ndarray:
    """A whole tensor from its slices; their sizes are compared with its shape before any memory is taken."""
    if entry.dtype not in _NUMERIC:
        raise FormatError(f"its dtype has the number {entry.dtype}, which refnet does not know.", found=entry.dtype)
    check_shape(entry.shape, np.dtype(_NUMERIC[entry.dtype].stored).itemsize)
    if not entry.slices:
        return read_piece(name.encode(), entry.dtype, entry.shape)
    if len(set(entry.slices)) != len(entry.slices):
        raise FormatError("one of its slices is listed twice.")
    windows = [_window(extents, entry.shape) for extents in entry.slices]
    shapes = [tuple(part.stop - part.start for part in window) for window in windows]
    if sum(map(math.prod, shapes)) != math.prod(entry.shape):
        raise FormatError(f"its slices do not make up its shape {entry.shape}.", expected=entry.shape, found=shapes)
    pieces = [
        read_piece(_slice_key(name, extents), entry.dtype, shape)
        for extents, shape in zip(entry.slices, shapes, strict=True)
    ]
    if len(pieces) == 1:
        return pieces[0].reshape(entry.shape)
    whole = np.empty(entry.shape, pieces[0].dtype)
    covered = np.zeros(entry.shape, bool)
    for window, piece in zip(windows, pieces, strict=True):
        whole[window] = piece
        covered[window] = True
    if not covered.all():
        raise FormatError(f"its slices overlap in its shape {entry.shape}.")
    return whole


def _native(array: np.ndarray, dtype: int) -> np.ndarray:
    """An array of its own memory in the machine's byte order; bfloat16, the upper half of a binary32, as binary32."""
    if _NUMERIC[dtype].name == "bfloat16":
        return float32_of_bfloat16(array)
    if array.flags.writeable and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def _bundle_entry(key: bytes, value: memoryview) -> _Entry:
    """Decode a BundleEntryProto."""
    try:
        fields = parse(value)
        shard, offset, size = (signed(integer(fields, number)) for number in (3, 4, 5))
        if min(shard, offset, size) < 0:
            raise FormatError("its shard, offset or size is negative.", found=(shard, offset, size))
        slices = tuple(_extents(message) for message in messages(fields, 7))
        return _Entry(integer(fields, 1), _shape(messages(fields, 2)), slices, shard, offset, size, integer(fields, 6))
    except WeightsError as error:
        raise in_context(f"the index entry {key!r}", error) from error


def _check_disjoint(entries: dict[bytes, _Entry]) -> None:
    """Bytes that belong to several tensors would let a small file fill the memory."""
    ranges = sorted((entry.shard, entry.offset, entry.size, key) for key, entry in entries.items() if entry.size)
    for (shard, offset, size, key), (next_shard, next_offset, _, next_key) in itertools.pairwise(ranges):
        if shard == next_shard and offset + size > next_offset:
            raise FormatError(f"{key!r} and {next_key!r} claim the same bytes of shard {shard}.")


def _read_entry(prefix: str, num_shards: int, entry: _Entry, arena: Arena) -> np.ndarray:
    """The checked bytes of an entry, from its shard."""
    stored = np.dtype(_NUMERIC[entry.dtype].stored)
    nbytes = math.prod(entry.shape) * stored.itemsize
    if entry.size != nbytes:
        raise FormatError(
            f"its shape {entry.shape} takes {nbytes} bytes, but the index gives it {entry.size}.",
            expected=nbytes,
            found=entry.size,
        )
    path = _shard_of(prefix, num_shards, entry)
    array = arena.take(nbytes).view(stored).reshape(entry.shape)
    content = array.reshape(-1).view(np.uint8).data
    _read_into(content, path, entry.offset)
    found = masked_crc32c(content)
    if found != entry.crc:
        raise CorruptError(
            f"its bytes in {os.path.basename(path)} have the checksum {found:#010x} instead of the stored "
            f"{entry.crc:#010x}: the file is damaged.",
            expected=entry.crc,
            found=found,
        )
    return array


def _shard_path(prefix: str, num_shards: int, shard: int) -> str:
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def _shard_of(prefix: str, num_shards: int, entry: _Entry) -> str:
    """The path of an entry's shard, which is checked to exist and to be long enough."""
    if entry.shard >= num_shards:
        raise FormatError(f"it is in shard {entry.shard}, but there are {num_shards} shards.", found=entry.shard)
    path = _shard_path(prefix, num_shards, entry.shard)
    shard = os.path.basename(path)
    if not os.path.exists(path):
        raise CorruptError(f"its shard {shard} is missing; put it beside the index.")
    file_size, end = regular_file_size(path), entry.offset + entry.size
    if end > file_size:
        raise CorruptError(
            f"it ends at byte {end} of {shard}, which has {file_size}: the shard is cut off.",
            expected=end,
            found=file_size,
        )
    return path


def _read_into(content: memoryview, path: str, offset: int) -> None:
    with open(path, "rb") as file:
        if read_at(file.fileno(), offset, content) != len(content):
            raise CorruptError(f"{os.path.basename(path)} was cut off while it was read.")


def _tensor_proto_values(message: memoryview, dtype: _Dtype) -> np.ndarray:
    """The values of a TensorProto, one-dimensional, in the stored type."""
    fields = parse(message)
    stored = np.dtype(dtype.stored)
    content = b"".join(messages(fields, _TENSOR_CONTENT))
    if not content:
        content = b"".join(messages(fields, dtype.field))
        if dtype.field not in (_FLOAT_VAL, _DOUBLE_VAL):
            return _narrow(read_packed_varints(memoryview(content)), dtype)
    if len(content) % stored.itemsize:
        raise FormatError(f"a slice of {dtype.name} has {len(content)} bytes, which is not a whole number of values.")
    return np.frombuffer(content, stored)


def _narrow(values: np.ndarray, dtype: _Dtype) -> np.ndarray:
    """Varints as the stored type; float16 and bfloat16 travel as the integers of their bits."""
    integers = np.dtype("<u2") if dtype.field == _HALF_VAL else np.dtype(dtype.stored)
    # Negative numbers are sign-extended to 64 bits.
    wide = values if integers == np.uint64 else values.view(np.int64)
    narrow = wide.astype(integers)
    if (narrow != wide).any():
        raise FormatError(f"a value is outside the range of {dtype.name}.")
    return narrow.view(dtype.stored)


def _shape(protos: list[memoryview]) -> tuple[int, ...]:
    """The shape in a TensorShapeProto; a scalar's is absent."""
    if not protos:
        return ()
    # A message that is there several times is, by protobuf's rules, one with the fields of all.
    fields = parse(memoryview(b"".join(protos)))
    if integer(fields, 3):
        raise FormatError("its rank is not known.")
    return tuple(signed(integer(parse(dimension), 1)) for dimension in messages(fields, 2))


def _extents(proto: memoryview) -> _Extents:
    """The extents in a TensorSliceProto; an extent without a length spans its dimension."""
    extents = [parse(message) for message in messages(parse(proto), 1)]
    return tuple((signed(integer(fields, 1)), signed(integer(fields, 2, _FULL_EXTENT))) for fields in extents)


def _window(extents: _Extents, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The extents as slices with their bounds checked."""
    if len(extents) != len(shape):
        raise FormatError(f"a slice has {len(extents)} dimensions, but the tensor has {len(shape)}.")
    window = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length == _FULL_EXTENT else start + length
        if not 0 <= start <= stop <= size:
            raise FormatError(f"a slice spans {start} to {stop} of a dimension of {size}.")
        window.append(slice(start, stop))
    return tuple(window)


def _slice_key(name: str, extents: _Extents) -> bytes:
    """The OrderedCode key under which a slice is stored."""
    # Ends the string; 0xff would be escaped as well, but UTF-8 has none.
    text = name.encode().replace(b"\0", b"\0\xff") + b"\0\1"
    rank = len(extents).to_bytes((len(extents).bit_length() + 7) // 8, "big")
    numbers = b"".join(_ordered(number) for extent in extents for number in extent)
    return _SLICE_KEY_START + text + bytes([len(rank)]) + rank + numbers


def _ordered(value: int) -> bytes:
    """OrderedCode's signed number: n bytes in two's complement, the upper n bits inverted."""
    length = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << length) - 1) << (7 * length)
    return ((value % (1 << (8 * length))) ^ header).to_bytes(length, "big")


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the name {key!r} is not UTF-8.") from error


FORMAT = Format("TensorFlow checkpoints (V1 and V2)", lambda path, head: is_table(path), read_checkpoint)
