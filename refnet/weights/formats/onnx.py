"""ONNX: a protobuf message that holds a graph and its constants; large constants can be in a file beside it.

It is read without the library. `refnet.weights.formats.onnx_graph` then finds the network in the graph.

Source: ONNX's ``onnx.proto``, and "External Data" in its documentation.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import shown
from refnet.errors import CorruptError, FormatError, LimitError
from refnet.files import regular_file_size
from refnet.weights.conversion import Conversion
from refnet.weights.formats import protobuf
from refnet.weights.formats.format import Format
from refnet.weights.formats.loaded import (
    Arena,
    Loaded,
    check_shape,
    float32_of_bfloat16,
    in_context,
    not_numeric,
    read_at,
)
from refnet.weights.formats.onnx_graph import Graph, Network, Node, network_of
from refnet.weights.formats.protobuf import Fields

SUFFIX = ".onnx"

_FORMAT = "ONNX"
# A model starts with the version of its format. A SavedModel does too, with version 1.
_VERSION_KEY, _FIRST_VERSION, _MAX_VERSION = 0x08, 3, 0x7F
_FIRST_OPSET = 7
# Protobuf's own limit.
_MAX_BYTES = (1 << 31) - 1
# In all messages together: a field can take two bytes of a file and two hundred as an object. Networks of two hundred
# layers have some ten thousand.
_MAX_FIELDS = 1 << 18
_MAX_NODES, _MAX_OUTPUTS = 1 << 14, 64
_MAX_NAME_BYTES = 1 << 12
_MAX_FILE_NAME_BYTES = 255
_PART_BYTES = 1 << 20
# Beside floats there are the numbers of shapes and axes, and flags.
_MAX_INTEGERS = 64

# Fields of TensorProto: by data type, how NumPy has the numbers, and the field that can hold them in place of raw_data.
_RAW, _EXTERNAL = 9, 13
_NUMERIC = {
    1: ("<f4", 4),
    10: ("<f2", _RAW),
    11: ("<f8", 10),
    16: ("<u2", _RAW),
    6: ("<i4", 5),
    7: ("<i8", 7),
    9: ("|b1", 5),
}
_BFLOAT16 = 16
_OTHERS = {
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 8: "string", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128",
}  # fmt: skip
_DATA_FIELDS = {4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 9: "raw_data", 10: "double_data"}


class _External(NamedTuple):
    """The place of a tensor's values: a file, and bytes of it."""

    file: str
    start: int
    stop: int
    checksum: str | None


class _Tensor(NamedTuple):
    name: str
    data_type: int
    shape: tuple[int, ...]
    values: memoryview | _External


def is_onnx(head: bytes) -> bool:
    """Whether a file can be one, by its first bytes.

    Parameters
    ----------
    head : bytes

    Returns
    -------
    bool
    """
    # After the version comes the producer's name, or another field of the model.
    keys = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"
    return len(head) > 2 and head[0] == _VERSION_KEY and _FIRST_VERSION <= head[1] <= _MAX_VERSION and head[2] in keys


def read_onnx(path: str) -> Loaded:
    """Read the weights of the network that a model computes.

    Parameters
    ----------
    path : str

    Returns
    -------
    Loaded
        Under TF-Slim's names, with the options that the graph shows.

    Raises
    ------
    FormatError, CorruptError, LimitError
        The file is malformed.
    WeightsError
        The graph does not compute a ResNet that refnet has.
    """
    size = regular_file_size(path)
    if size > _MAX_BYTES:
        raise LimitError(f"the file has {size} bytes; a protobuf message has at most {_MAX_BYTES}.", found=size)
    with open(path, "rb") as file:
        content = file.read(size)
    reader = _Reader(os.path.dirname(path))
    network = network_of(reader.graph(memoryview(content)))
    conversion = Conversion(
        converted={slim: "bfloat16" for slim, name in network.names.items() if name in reader.bfloat16},
        renamed=network.names,
        left_out=reader.left_out | _unread(reader.floats, network),
        # The graph's remarks tell of those that are not zeros.
        added=[name for name, tensor in network.tensors.items() if name not in network.names and not tensor.any()],
        remarks=network.remarks,
    )
    return Loaded(_own(network.tensors), _FORMAT, {"options": network.options}, conversion, by_graph=True)


def _unread(names: list[str], network: Network) -> dict[str, str]:
    read = set(network.names.values())
    return {name: "no layer of the network reads it" for name in names if name not in read}


def _own(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Contiguous copies, which do not keep the file's bytes."""
    arena = Arena(sum(array.nbytes for array in tensors.values()), len(tensors))
    copies = {}
    for name, array in tensors.items():
        copy = arena.take(array.nbytes).view(array.dtype.newbyteorder("=")).reshape(array.shape)
        copy[...] = array
        copies[name] = copy
    return copies


class _Reader:
    """What reads a model; ``directory`` is where its other files are."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fields = 0
        self.bfloat16: set[str] = set()
        self.floats: list[str] = []
        self.left_out: dict[str, str] = {}

    def graph(self, content: memoryview) -> Graph:
        """The graph of a model."""
        model = self._parse(content)
        graphs = protobuf.messages(model, 7)
        if len(graphs) != 1:
            raise FormatError(f"the model has {len(graphs)} graphs; it must have one: it is cut off, or is not ONNX.")
        self._check_version(model)
        fields = self._parse(graphs[0])
        if 15 in fields:
            raise FormatError("the graph has sparse constants, which refnet does not read.")
        stored = [self._tensor(message) for message in protobuf.messages(fields, 5)]
        nodes = []
        for message in protobuf.messages(fields, 1):
            node = self._node(message)
            if node.op == "Constant":
                stored.append(self._constant(node))
            else:
                nodes.append(node)
        tensors = self._values(stored)
        inputs = dict(self._value(message) for message in protobuf.messages(fields, 11))
        inputs = {name: shape for name, shape in inputs.items() if name not in tensors and name not in self.left_out}
        graph = Graph(nodes, tensors, inputs, [self._value(message)[0] for message in protobuf.messages(fields, 12)])
        if len(nodes) > _MAX_NODES or len(graph.outputs) > _MAX_OUTPUTS:
            raise LimitError(
                f"the graph has {len(nodes)} nodes and {len(graph.outputs)} outputs; refnet reads up to "
                f"{_MAX_NODES} and {_MAX_OUTPUTS}."
            )
        self._check_order(graph)
        return graph

    def _check_version(self, model: Fields) -> None:
        """The version of ONNX's operations: in early ones the same attributes mean something else."""
        versions = [
            protobuf.integer(fields, 2)
            for fields in map(self._parse, protobuf.messages(model, 8))
            if self._last_text(fields, 1) in ("", "ai.onnx")
        ]
        if len(versions) != 1 or versions[0] < _FIRST_OPSET:
            raise FormatError(
                f"the model has the versions {shown(versions)} of ONNX's operations; it must have one, "
                f"{_FIRST_OPSET} or later.",
                expected=_FIRST_OPSET,
                found=versions,
            )

    def _parse(self, message: memoryview) -> Fields:
        fields = protobuf.parse(message)
        self._fields += sum(map(len, fields.values()))
        if self._fields > _MAX_FIELDS:
            raise LimitError(f"the model has more than {_MAX_FIELDS} fields; such networks have some ten thousand.")
        return fields

    def _text(self, value: memoryview) -> str:
        if len(value) > _MAX_NAME_BYTES:
            raise LimitError(f"a name takes {len(value)} bytes; refnet reads up to {_MAX_NAME_BYTES}.")
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"a name is not UTF-8: {error}.") from error

    def _texts(self, fields: Fields, number: int) -> tuple[str, ...]:
        return tuple(self._text(value) for value in protobuf.messages(fields, number))

    def _last_text(self, fields: Fields, number: int) -> str:
        return next(reversed(self._texts(fields, number)), "")

    def _integers(self, fields: Fields, number: int) -> list[int]:
        """Numbers that are packed, or a field each."""
        found: list[int] = []
        for value in fields.get(number, []):
            if isinstance(value, int):
                found.append(protobuf.signed(value))
            elif len(value) > 10 * _MAX_INTEGERS:
                raise LimitError(
                    f"a list of numbers takes {len(value)} bytes; such networks have shapes and axes only."
                )
            else:
                found += protobuf.read_packed_varints(value).view(np.int64).tolist()
        return found

    # Nodes.

    def _node(self, message: memoryview) -> Node:
        fields = self._parse(message)
        op, domain = self._last_text(fields, 4), self._last_text(fields, 7)
        outputs = self._texts(fields, 2)
        if not outputs or not outputs[0]:
            raise FormatError(f"a node ({shown(op)}) has no output.")
        attributes: dict[str, Any] = {}
        for attribute in protobuf.messages(fields, 5):
            name, value = self._attribute(self._parse(attribute))
            if name in attributes:
                raise FormatError(f"a node ({shown(op)}) has two attributes {shown(name)}.")
            attributes[name] = value
        full = op if domain in ("", "ai.onnx") else f"{domain}.{op}"
        return Node(self._last_text(fields, 3) or outputs[0], full, self._texts(fields, 1), outputs, attributes)

    def _attribute(self, fields: Fields) -> tuple[str, Any]:
        """Its name and value; None for kinds that no node of such networks has."""
        kind = protobuf.integer(fields, 20)
        kind = kind or next((kind for field, kind in ((2, 1), (3, 2), (4, 3), (5, 4), (8, 7)) if field in fields), 0)
        value: Any = None
        if kind == 1:
            bits = np.array(protobuf.integer(fields, 2) % 2**32, np.uint32)
            # The shortest decimal number that is this float32: what the exporter had as a float64.
            value = float(str(bits.view(np.float32)))
        elif kind == 2:
            value = protobuf.signed(protobuf.integer(fields, 3))
        elif kind == 3:
            value = self._last_text(fields, 4)
        elif kind == 4:
            value = next((self._tensor(message) for message in protobuf.messages(fields, 5)), None)
        elif kind == 7:
            value = self._integers(fields, 8)
        return self._last_text(fields, 1), value

    def _constant(self, node: Node) -> _Tensor:
        """The tensor of a node that gives one."""
        value = next(iter(node.attributes.values()), None)
        name = node.outputs[0]
        if isinstance(value, _Tensor):
            return value._replace(name=name)
        if isinstance(value, float):
            return _Tensor(name, 11, (), memoryview(np.array(value, "<f8").tobytes()))
        if isinstance(value, int | list):
            numbers = np.array(value, "<i8")
            return _Tensor(name, 7, numbers.shape, memoryview(numbers.tobytes()))
        raise FormatError(f"node {shown(node.name)} (Constant) has no tensor that refnet reads.")

    def _value(self, message: memoryview) -> tuple[str, tuple[int | None, ...]]:
        """The name and the shape of an input or an output; () if the shape is not fixed at all."""
        fields = self._parse(message)
        dimensions: tuple[int | None, ...] = ()
        for kind in protobuf.messages(fields, 2)[-1:]:
            for tensor in protobuf.messages(self._parse(kind), 1)[-1:]:
                for shape in protobuf.messages(self._parse(tensor), 2)[-1:]:
                    sizes = [self._parse(dimension) for dimension in protobuf.messages(self._parse(shape), 1)]
                    dimensions = tuple(protobuf.integer(size, 1) or None for size in sizes)
        return self._last_text(fields, 1), dimensions

    @staticmethod
    def _check_order(graph: Graph) -> None:
        """Each value is made once, and before it is read: there can be no cycle."""
        known = {"", *graph.tensors, *graph.inputs}
        for node in graph.nodes:
            for name in node.outputs:
                if name and name in known:
                    raise FormatError(
                        f"node {shown(node.name)} ({node.op}) gives {shown(name)}, which is there already."
                    )
            known.update(node.outputs)
        made = {"", *graph.tensors, *graph.inputs}
        for node in graph.nodes:
            late = next((name for name in node.inputs if name in known and name not in made), None)
            if late is not None:
                raise FormatError(f"node {shown(node.name)} ({node.op}) reads {shown(late)} before it is made.")
            made.update(node.outputs)

    # Tensors.

    def _tensor(self, message: memoryview) -> _Tensor:
        """What a tensor is, and where its values are."""
        fields = self._parse(message)
        name = self._last_text(fields, 8)
        try:
            return self._described(name, fields)
        except (FormatError, LimitError) as error:
            raise in_context(f"tensor {shown(name)}", error, tensor=name) from error

    def _described(self, name: str, fields: Fields) -> _Tensor:
        data_type, shape = protobuf.integer(fields, 2), tuple(self._integers(fields, 1))
        if data_type not in _NUMERIC:
            return _Tensor(name, data_type, shape, memoryview(b""))
        dtype, own_field = _NUMERIC[data_type]
        itemsize = np.dtype(dtype).itemsize
        check_shape(shape, itemsize)
        nbytes = math.prod(shape) * itemsize
        if 3 in fields:
            raise FormatError("it is one of several segments, which refnet does not read.")
        found = [number for number in _DATA_FIELDS if number in fields]
        if protobuf.integer(fields, 14):
            if found:
                raise FormatError(f"its values are in another file, and in {_DATA_FIELDS[found[0]]} too.")
            return _Tensor(name, data_type, shape, self._external(fields, nbytes))
        if len(found) > 1 or not set(found) <= {_RAW, own_field}:
            names = ", ".join(_DATA_FIELDS[number] for number in found)
            raise FormatError(
                f"its values are in {names}; they must be in raw_data or {_DATA_FIELDS[own_field]} alone."
            )
        values = memoryview(b"")
        if found == [_RAW] or (found and np.dtype(dtype).kind == "f"):
            parts = protobuf.messages(fields, found[0])
            values = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        elif found:
            values = memoryview(np.array(self._integers(fields, found[0]), dtype).tobytes())
        if len(values) != nbytes:
            raise FormatError(
                f"its shape {shape} takes {nbytes} bytes, but there are {len(values)}.",
                expected=nbytes,
                found=len(values),
            )
        return _Tensor(name, data_type, shape, values)

    def _external(self, fields: Fields, nbytes: int) -> _External:
        """Where its values are in another file."""
        entries: dict[str, str] = {}
        for message in protobuf.messages(fields, _EXTERNAL):
            pair = self._parse(message)
            key = self._last_text(pair, 1)
            if key in entries or key not in ("location", "offset", "length", "checksum"):
                raise FormatError(f"its place in another file has {shown(key)} twice, or refnet does not know that.")
            entries[key] = self._last_text(pair, 2)
        numbers = []
        for key, default in (("offset", "0"), ("length", str(nbytes))):
            digits = entries.get(key, default)
            if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
                raise FormatError(f"its {key} in another file is {shown(digits)}; it is a whole number.")
            numbers.append(int(digits))
        start, length = numbers
        if length != nbytes:
            raise FormatError(
                f"its shape takes {nbytes} bytes, but {length} in another file.", expected=nbytes, found=length
            )
        location = entries.get("location", "")
        if not _is_bare(location):
            raise FormatError(
                f"its values are in {shown(location)}; that must be the name of a file in the model's own directory."
            )
        return _External(location, start, start + length, entries.get("checksum"))

    def _values(self, stored: list[_Tensor]) -> dict[str, np.ndarray]:
        """The tensors of numbers, by their names."""
        counts = Counter(tensor.name for tensor in stored)
        for name, count in counts.items():
            if count > 1 or not name:
                raise FormatError(f"{count} constants have the name {shown(name)}.", tensor=name)
        places = [tensor.values for tensor in stored if isinstance(tensor.values, _External)]
        _check_apart(places)
        checksums = {(place.file, place.checksum) for place in places if place.checksum is not None}
        if len(checksums) > len({place.file for place in places}):
            raise FormatError("tensors name different checksums for one file with their values.")
        tensors = {}
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(_beside(self._directory, name)) for name in {p.file for p in places}}
            for name, checksum in checksums:
                _check_checksum(files[name], name, checksum)
            for tensor in stored:
                if tensor.data_type not in _NUMERIC:
                    kind = _OTHERS.get(tensor.data_type, f"data type {tensor.data_type}")
                    self.left_out[tensor.name] = not_numeric(kind)
                    continue
                values = tensor.values
                if isinstance(values, _External):
                    values = _read_external(files[values.file], values, tensor.name)
                array = np.frombuffer(values, _NUMERIC[tensor.data_type][0]).reshape(tensor.shape)
                if tensor.data_type == _BFLOAT16:
                    array = float32_of_bfloat16(array)
                    self.bfloat16.add(tensor.name)
                if array.dtype.kind == "f" and array.ndim:
                    self.floats.append(tensor.name)
                tensors[tensor.name] = array
        return tensors


def _is_bare(location: str) -> bool:
    """Whether it is a name, not a path."""
    is_name = location not in ("", ".", "..") and not set(location) & set("/\\\0")
    return is_name and len(location.encode()) <= _MAX_FILE_NAME_BYTES


def _check_apart(places: list[_External]) -> None:
    """No byte of another file belongs to two tensors, so that all of them take no more memory than the file."""
    end: dict[str, int] = {}
    for place in sorted(places, key=lambda place: (place.file, place.start, place.stop)):
        if place.start < end.get(place.file, 0):
            raise FormatError(f"two tensors overlap at byte {place.start} of {shown(place.file)}.", found=place.start)
        end[place.file] = place.stop


@contextlib.contextmanager
def _beside(directory: str, name: str) -> Iterator[int]:
    """A file in the model's own directory, opened for reading; not through any link."""
    path = os.path.join(directory, name)
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise CorruptError(
            f"the values are in another file, {name}, which is not there: put it beside the model.", found=path
        ) from error
    if stat.S_ISLNK(status.st_mode):
        raise FormatError(
            f"the values are in another file, {name}, which is a link, as in the caches of downloads; refnet follows "
            "none: copy the model and that file to another directory (cp --dereference).",
            found=path,
        )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise FormatError(
            f"the values are in another file, {name}, which is not a regular file with a single name: copy the model "
            "and that file to another directory.",
            found=path,
        )
    # Not of holes almost alone.
    regular_file_size(path)
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not os.path.samestat(status, os.fstat(file)):
            raise CorruptError(f"the file with the values, {name}, was replaced while it was read.", found=path)
        yield file
    finally:
        os.close(file)


def _check_checksum(file: int, name: str, checksum: str) -> None:
    """Compare the whole file with its SHA-1."""
    found, start = hashlib.sha1(), 0
    while part := os.pread(file, _PART_BYTES, start):
        found.update(part)
        start += len(part)
    if found.hexdigest() != checksum.lower():
        raise CorruptError(
            f"the file {name} has the SHA-1 {found.hexdigest()} instead of {shown(checksum)}.",
            expected=checksum,
            found=found.hexdigest(),
        )


def _read_external(file: int, place: _External, tensor: str) -> memoryview:
    size = os.fstat(file).st_size
    if place.stop > size:
        raise CorruptError(
            f"tensor {shown(tensor)}: its values end at byte {place.stop} of {place.file}, which has {size}: it is cut "
            "off, or belongs to another model.",
            tensor=tensor,
            expected=place.stop,
            found=size,
        )
    values = np.empty(place.stop - place.start, np.uint8)
    if read_at(file, place.start, values.data) != values.nbytes:
        raise CorruptError(f"tensor {shown(tensor)}: {place.file} was cut off while it was read.", tensor=tensor)
    return values.data


FORMAT = Format("ONNX", lambda path, head: is_onnx(head), read_onnx, known_by_suffix=SUFFIX)
