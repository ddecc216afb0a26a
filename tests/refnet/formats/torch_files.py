"""PyTorch's files without PyTorch: a writer in which a test can say anything, with valid checksums."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAGIC_NUMBER, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage",
    "i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage",
}  # fmt: skip


class Raw(NamedTuple):
    """Opcodes as they are."""

    opcodes: bytes


class Global(NamedTuple):
    module: str
    name: str


class Reduce(NamedTuple):
    """A call; then items are set in its result, and a state."""

    function: Any
    arguments: Any
    items: Any = None
    state: Any = None


class Persistent(NamedTuple):
    identity: Any


def opcodes(value: Any) -> bytes:
    """The opcodes that push a value."""
    if isinstance(value, Raw):
        return value.opcodes
    if isinstance(value, Global):
        return b"c" + value.module.encode() + b"\n" + value.name.encode() + b"\n"
    if isinstance(value, Reduce):
        items = b"" if value.items is None else b"(" + b"".join(map(opcodes, pairs(value.items))) + b"u"
        state = b"" if value.state is None else opcodes(value.state) + b"b"
        return opcodes(value.function) + opcodes(value.arguments) + b"R" + items + state
    if isinstance(value, Persistent):
        return opcodes(value.identity) + b"Q"
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(content)]) + content
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        content = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(content)) + content
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    assert isinstance(value, dict)
    return b"}(" + b"".join(map(opcodes, pairs(value))) + b"u"


def pairs(items: Mapping[Any, Any]) -> list[Any]:
    return [part for pair in items.items() for part in pair]


def pickled(value: Any, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + opcodes(value) + b"."


def ordered(items: Mapping[Any, Any], state: Any = None) -> Reduce:
    """An OrderedDict, as state dicts are."""
    return Reduce(Global("collections", "OrderedDict"), (), items, state)


def storage(key: Any, numel: Any, of: str = "FloatStorage", *more: Any) -> Persistent:
    return Persistent(("storage", Global("torch", of), key, "cpu", numel, *more))


def rebuilt(of: Any, offset: Any = 0, shape: Any = (2,), strides: Any = (1,), *more: Any) -> Reduce:
    """A tensor of a storage."""
    hooks = ordered({})
    return Reduce(Global("torch._utils", "_rebuild_tensor_v2"), (of, offset, shape, strides, False, hooks, *more))


def state_of(arrays: Mapping[str, np.ndarray], *more: Any) -> tuple[Reduce, dict[str, bytes]]:
    """A state dict and its storages' values, one storage for each array."""
    entries, values = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
        of = storage(str(number), array.size, STORAGES[array.dtype.str[1:]], *more)
        entries[name] = rebuilt(of, 0, array.shape, strides)
        values[str(number)] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return ordered(entries, {"_metadata": ordered({"": {"version": 1}})}), values


def archive(
    path: Path,
    value: Any,
    values: Mapping[str, bytes] | None = None,
    others: Mapping[str, bytes] | None = None,
    *,
    method: int = zipfile.ZIP_STORED,
) -> Path:
    """The zip archive; ``value`` is pickled unless it is bytes, ``others`` are members besides."""
    content = value if isinstance(value, bytes) else pickled(value)
    members = {"a/data.pkl": content, "a/byteorder": b"little"}
    members |= {f"a/data/{key}": data for key, data in (values or {}).items()}
    members |= {"a/version": b"3\n", **(others or {})}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return path


def legacy(
    path: Path,
    value: Any,
    values: Sequence[tuple[str, int, bytes]] = (),
    *,
    system: Any = None,
    keys: Any = None,
    start: bytes = pickled(MAGIC_NUMBER) + pickled(VERSION),
    end: bytes = b"",
) -> Path:
    """The file of before PyTorch 1.6; ``values`` has each storage's key, number of elements, and bytes."""
    content = start + pickled({"little_endian": True} if system is None else system)
    content += value if isinstance(value, bytes) else pickled(value)
    content += pickled([key for key, _, _ in values] if keys is None else keys)
    content += b"".join(struct.pack("<Q", numel) + data for _, numel, data in values)
    path.write_bytes(content + end)
    return path


def save(path: Path, arrays: Mapping[str, np.ndarray], *, zipped: bool = True) -> Path:
    """A file of a state dict, as torch.save writes it."""
    if zipped:
        return archive(path, *state_of(arrays))
    value, values = state_of(arrays, None)
    sizes = [array.size for array in arrays.values()]
    return legacy(path, value, [(key, size, data) for (key, data), size in zip(values.items(), sizes, strict=True)])
