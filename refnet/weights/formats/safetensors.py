"""Safetensors: a JSON header with the place of each tensor, then the bytes of all tensors without a gap.

It is read without the library, which maps the file and allows a name to be in the header twice. Whatever is accepted
here, the library accepts too.

Source: the safetensors library's own documentation of the format.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np

from refnet.errors import ConfigError, CorruptError, FormatError, LimitError, WeightsError
from refnet.files import json_object, regular_file_size, written_whole
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format, by_suffix
from refnet.weights.formats.loaded import (
    METADATA_NAME,
    Arena,
    Loaded,
    check_shape,
    float32_of_bfloat16,
    in_context,
    json_document,
    not_numeric,
    raise_problems,
    read_all,
    read_at,
    writable,
)
from refnet_kernels.system.forks import making

SUFFIX = ".safetensors"

_FORMAT = "safetensors"
# The one key of the header that does not name a tensor: strings by name.
_METADATA = "__metadata__"
_LENGTH_BYTES = 8
# As Python objects a header is some thirty times larger; a network's takes a few hundred thousand bytes.
_HEADER_MAX_BYTES = 4 << 20
_FIELDS = {"dtype", "shape", "data_offsets"}
_NUMERIC = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip
# Bits per element.
_SKIPPED = {
    "BOOL": 8, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
}  # fmt: skip


class Contents(NamedTuple):
    """Everything in a file: its tensors, its metadata, and what was left out or converted."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    conversion: Conversion


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def is_safetensors(head: bytes) -> bool:
    """Whether a file can be one, by its first bytes: the header's brace comes after its length.

    Parameters
    ----------
    head : bytes

    Returns
    -------
    bool
    """
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"


def read_safetensors(path: str) -> Loaded:
    """Read a file of weights.

    Parameters
    ----------
    path : str

    Returns
    -------
    Loaded
        The integers and floats, native-endian and C-contiguous; bfloat16 as float32.

    Raises
    ------
    FormatError, CorruptError, LimitError
        All the problems found, with the tensors that they are in.
    """
    contents = unpack(path)
    stored = contents.metadata.get(METADATA_NAME)
    metadata = {} if stored is None else json_object(stored.encode(), f"metadata {METADATA_NAME!r}")
    return Loaded(contents.tensors, _FORMAT, metadata, contents.conversion)


def unpack(path: str) -> Contents:
    """Read a file with metadata of any kind.

    Parameters
    ----------
    path : str

    Returns
    -------
    Contents

    Raises
    ------
    FormatError, CorruptError, LimitError
        As `read_safetensors` raises them.
    """
    size = regular_file_size(path)
    with open(path, "rb") as file:
        header = _read_header(file, size)
        data_start = file.tell()
        metadata = _check_metadata(header.pop(_METADATA, {}))
        entries = _entries(header)
        _check_cover(entries, size - data_start)
        contents = Contents({}, metadata, Conversion())
        arena = Arena(size - data_start, len(entries))
        numeric = {name: entry for name, entry in entries.items() if entry.dtype in _NUMERIC}

        def read(name: str) -> np.ndarray:
            return _read_values(file.fileno(), data_start, name, numeric[name], arena)

        arrays = read_all(read, numeric, lambda name: numeric[name].stop - numeric[name].start)
        contents.tensors.update(zip(numeric, arrays, strict=True))
    for name, entry in entries.items():
        if entry.dtype in _SKIPPED:
            contents.conversion.left_out[name] = not_numeric(entry.dtype)
        elif entry.dtype == "BF16":
            contents.conversion.converted[name] = "bfloat16"
    return contents


def _read_header(file: BufferedReader, size: int) -> dict[str, Any]:
    """Read the header; the file's position is then where the tensors start."""
    if size < _LENGTH_BYTES:
        raise FormatError(f"the file has {size} bytes; the length of a safetensors header alone takes {_LENGTH_BYTES}.")
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > size - _LENGTH_BYTES:
        raise CorruptError(
            f"its first bytes give its header {length} bytes, but {size - _LENGTH_BYTES} follow: "
            "the file is cut off, or is not a safetensors file.",
            expected=length,
            found=size - _LENGTH_BYTES,
        )
    if length > _HEADER_MAX_BYTES:
        raise LimitError(f"its header takes {length} bytes; refnet reads up to {_HEADER_MAX_BYTES}.", found=length)
    content = file.read(length)
    if content[:1] != b"{":
        raise FormatError(f"its header starts with {content[:1]!r}, not with the brace of a JSON object.")
    header = json_object(content, "header")
    for name in header:
        _check_text(name)
    return header


def _check_text(text: str) -> None:
    # JSON can escape code points that UTF-8 cannot encode.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"its header has the text {text!r}, which is not Unicode.") from error


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"its {_METADATA!r} is not a JSON object of strings.")
    for text in (*metadata, *metadata.values()):
        _check_text(text)
    return metadata


def _entries(header: Mapping[str, Any]) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    problems: list[WeightsError] = []
    for name, value in header.items():
        try:
            entries[name] = _entry(value)
        except WeightsError as error:
            problems.append(in_context(f"tensor {name!r}", error, tensor=name))
    raise_problems(problems)
    return entries


def _entry(value: Any) -> _Entry:
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise FormatError(f"its entry in the header is not an object of {', '.join(sorted(_FIELDS))}.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not (dtype in _NUMERIC or dtype in _SKIPPED):
        raise FormatError(f"its dtype is {dtype!r}, which refnet does not know.", found=dtype)
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        # A bool passes for an int.
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise FormatError(f"its {what} is {numbers!r}; it is a list of whole numbers.", found=numbers)
    bits = 8 * np.dtype(_NUMERIC[dtype]).itemsize if dtype in _NUMERIC else _SKIPPED[dtype]
    check_shape(shape, -(-bits // 8))
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise FormatError(f"its data_offsets are {offsets}; they are its start and its end.", found=offsets)
    start, stop = offsets
    if math.prod(shape) * bits != (stop - start) * 8:
        raise FormatError(
            f"its shape {tuple(shape)} of {dtype} takes {math.prod(shape) * bits / 8:g} bytes, "
            f"but the header gives it {stop - start}.",
            expected=math.prod(shape) * bits // 8,
            found=stop - start,
        )
    return _Entry(dtype, tuple(shape), start, stop)


def _check_cover(entries: Mapping[str, _Entry], size: int) -> None:
    """Each byte after the header belongs to one tensor: no gap can hide anything, no byte counts twice."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            problem = "overlaps the tensor before it" if entry.start < end else "comes after a gap"
            raise FormatError(
                f"tensor {name!r}: it starts at byte {entry.start} instead of {end}: it {problem}.",
                tensor=name,
                expected=end,
                found=entry.start,
            )
        end = entry.stop
        if end > size:
            raise CorruptError(
                f"tensor {name!r}: it ends at byte {end}, but there are {size}: the file is cut off.",
                tensor=name,
                expected=end,
                found=size,
            )
    if end != size:
        raise FormatError(f"{size - end} bytes follow the last tensor.", expected=end, found=size)


def _read_values(file: int, data_start: int, name: str, entry: _Entry, arena: Arena) -> np.ndarray:
    array = arena.take(entry.stop - entry.start).view(_NUMERIC[entry.dtype]).reshape(entry.shape)
    # Not mapped: a file that is cut off while it is open must not kill the process.
    if read_at(file, data_start + entry.start, array.reshape(-1).view(np.uint8).data) != array.nbytes:
        raise CorruptError(f"tensor {name!r}: the file was cut off while it was read.", tensor=name)
    if entry.dtype == "BF16":
        return float32_of_bfloat16(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write weights, whole or not at all.

    The same tensors and metadata give the same bytes.

    Parameters
    ----------
    path : path-like
        It ends in ``.safetensors``. An existing file is replaced once the new one is complete and on the disk.
    tensors : mapping of str to ndarray
        Integers or floats, of any layout.
    metadata : mapping of str to Any
        What JSON can hold; stored under ``__refnet__`` in the format's own metadata.

    Raises
    ------
    ConfigError
        `path` does not end so or is a directory, a name cannot be written, or JSON cannot hold `metadata`.
    DtypeError
        A tensor does not hold integers or floats.
    """
    target = os.fsdecode(path)
    if not target.endswith(SUFFIX):
        raise ConfigError(f"the file to write is {target}; its name must end in {SUFFIX}.", found=target)
    arrays = {name: writable(name, tensor) for name, tensor in tensors.items()}
    pack(target, arrays, {METADATA_NAME: json_document(metadata).decode()})


def pack(path: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and strings, whole or not at all.

    Parameters
    ----------
    path : str
    tensors : mapping of str to ndarray
    metadata : mapping of str to str

    Raises
    ------
    ConfigError
        `path` is a directory, or a name cannot be written.
    """
    with making:
        from safetensors import SafetensorError
        from safetensors.numpy import save

    if os.path.isdir(path):
        raise ConfigError(f"{path} is a directory; give the path of a file to write.", found=path)
    if _METADATA in tensors:
        raise ConfigError(f"a tensor cannot be named {_METADATA!r} in a safetensors file.", tensor=_METADATA)
    try:
        content = save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, dict(metadata))
    except (SafetensorError, UnicodeError) as error:
        raise ConfigError(f"the tensors cannot be written as safetensors: {error}.") from error
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length > _HEADER_MAX_BYTES:
        raise ConfigError(
            f"the header of names, shapes and metadata would take {length} bytes; refnet reads {_HEADER_MAX_BYTES}.",
            expected=_HEADER_MAX_BYTES,
            found=length,
        )
    with written_whole(path) as file:
        file.write(content)


FORMAT = Format(
    "safetensors",
    lambda path, head: is_safetensors(head),
    read_safetensors,
    by_suffix(SUFFIX, write_safetensors),
    known_by_suffix=SUFFIX,
)
