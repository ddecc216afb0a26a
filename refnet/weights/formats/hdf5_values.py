"""Datasets of HDF5 files: their types and shapes, where their values lie, and how they are read."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refnet.errors import CorruptError, DtypeError, FormatError, LimitError
from refnet.resources import is_want
from refnet.weights.formats.hdf5_chunks import Chunks, Space, find_chunks
from refnet.weights.formats.hdf5_objects import (
    DATASPACE,
    DATATYPE,
    EXTERNAL_FILES,
    FILTERS,
    LAYOUT,
    Hdf5File,
    Object,
)
from refnet.weights.formats.hdf5_structures import (
    UNDEFINED,
    Extents,
    Fields,
    damaged,
)
from refnet.weights.formats.loaded import Arena, check_shape, float32_of_bfloat16

# Filters by their number: deflate and shuffle, which Keras writes.
_DEFLATE, _SHUFFLE = 1, 2
_OTHER_FILTERS = {3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DEFLATE_MAX_RATIO = 1032

_INTEGER, _FLOAT, _BIT_FIELD, _RECORD = 0, 1, 4, 6
_LEFT_OUT = {2: "a time", 3: "a text", 8: "a boolean or an enumeration", 11: "a complex number"}
_REFUSED = {5: "opaque bytes", 6: "records", 7: "references", 9: "values of varying length", 10: "arrays"}
_BFLOAT16 = "bfloat16"
# The properties of floats, after their size: from the place of the sign to the exponent's bias.
_FLOATS: dict[tuple[int, ...], str] = {
    (2, 15, 10, 5, 0, 10, 15): "f2",
    (4, 31, 23, 8, 0, 23, 127): "f4",
    (8, 63, 52, 11, 0, 52, 1023): "f8",
    (2, 15, 7, 8, 0, 7, 127): _BFLOAT16,
}
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)


class Filter(NamedTuple):
    """What values pass through.

    Attributes
    ----------
    code : int
    element_bytes : int
        For shuffle.
    """

    code: int
    element_bytes: int


class Dataset(NamedTuple):
    """Numbers of a file, checked against it.

    Attributes
    ----------
    shape, limits : tuple of int
        Its shape, and how large that may become.
    dtype : dtype
        As in the file; of bfloat16 that of its bits.
    is_bfloat16 : bool
    values : bytes, int or Chunks
        The values themselves, their place, or the places of their chunks.
    filters : sequence of Filter
        In the order in which they were applied.
    expanded : int
        The bytes that they take, those of whole chunks included.
    """

    shape: tuple[int, ...]
    limits: tuple[int, ...]
    dtype: np.dtype
    is_bfloat16: bool
    values: bytes | int | Chunks
    filters: Sequence[Filter]
    expanded: int

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def describe(file: Hdf5File, found: Object) -> Dataset | str:
    """What a dataset holds.

    Parameters
    ----------
    file : Hdf5File
    found : Object

    Returns
    -------
    Dataset or str
        The words for its type, if that is not a number.

    Raises
    ------
    FormatError, CorruptError, LimitError, DtypeError
    """
    datatype, dataspace, layout = (file.find(found, kind) or b"" for kind in (DATATYPE, DATASPACE, LAYOUT))
    fields = Fields(layout, "a dataset's layout")
    version, kind = fields.number(1), fields.number(1)
    if kind == _VIRTUAL or EXTERNAL_FILES in found.first:
        raise FormatError("its values are in other files, which refnet does not open.")
    if version not in (3, 4, 5) or kind > _VIRTUAL:
        raise FormatError(f"its layout has version {version}; refnet reads 3 to 5.", found=version)
    kind_of_values = _type(datatype)
    shape, limits = _shape(dataspace)
    is_bfloat16 = kind_of_values == _BFLOAT16
    if isinstance(kind_of_values, str) and not is_bfloat16:
        return kind_of_values
    dtype = np.dtype("<u2" if is_bfloat16 else kind_of_values)
    check_shape(shape, dtype.itemsize)
    dataset = Dataset(shape, limits, dtype, is_bfloat16, b"", _filters(file.find(found, FILTERS)), 0)
    return _PLACES[kind](file.extents, fields, version, dataset)


def _type(content: bytes) -> np.dtype | str:
    """The type of numbers; or words for another one, whose values are left out."""
    fields = Fields(content, "a datatype")
    kind, bits, size = fields.number(1) & 15, fields.number(3), fields.number(4)
    if kind in _REFUSED and not (kind == _RECORD and _is_complex(bits, fields)):
        words = _REFUSED[kind]
        raise DtypeError(f"its dtype is {words}: refnet reads numbers.", found=words)
    if kind in (_INTEGER, _FLOAT, _BIT_FIELD):
        return _number(kind, bits, size, fields)
    if kind == _RECORD:
        return "a complex number"
    if kind not in _LEFT_OUT:
        raise damaged(f"a datatype has the class {kind}")
    return _LEFT_OUT[kind]


def _number(kind: int, bits: int, size: int, fields: Fields) -> np.dtype | str:
    """The type of integers and floats; words for one that is too large."""
    order, offset, precision = ">" if bits & 1 else "<", fields.number(2), fields.number(2)
    words = f"{'a float' if kind == _FLOAT else 'an integer'} of {size} bytes"
    if kind == _FLOAT:
        properties = size, bits >> 8 & 255, *fields.take(4), fields.number(4)
        # The highest bit of the mantissa is implied; and another bit stands for a third order of bytes.
        name = _FLOATS.get(properties) if bits & 0x70 == 0x20 else None
    else:
        name = f"{'i' if kind == _INTEGER and bits & 8 else 'u'}{size}" if size in (1, 2, 4, 8) else None
    if size > 8 and precision > 64:
        return words
    if name is None or (offset, precision) != (0, 8 * size) or (name == _BFLOAT16 and order == ">"):
        raise DtypeError(f"its dtype is {words} in a form that refnet does not read.", found=words)
    return name if name == _BFLOAT16 else np.dtype(order + name)


def _is_complex(bits: int, fields: Fields) -> bool:
    """Whether records are what h5py writes for complex numbers: two fields, r and i."""
    members = fields.take(fields.left)
    return bits & 0xFFFF == 2 and members.startswith(b"r\0") and b"i\0" in members[2:]


def _shape(content: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape, and how large it may become."""
    fields = Fields(content, "a dataspace")
    version, rank, flags = fields.number(1), fields.number(1), fields.number(1)
    if version not in (1, 2):
        raise damaged(f"a dataspace has version {version}")
    kind = fields.number(1)
    if version == 1:
        fields.take(4)
    elif kind == 2:
        raise FormatError("it has no shape.")
    shape = tuple(fields.number() for _ in range(rank))
    return shape, tuple(fields.number() for _ in range(rank)) if flags & 1 else shape


def _filters(content: bytes | None) -> Sequence[Filter]:
    if content is None:
        return []
    fields = Fields(content, "a list of filters")
    version, count = fields.number(1), fields.number(1)
    if version not in (1, 2):
        raise damaged(f"a list of filters has version {version}")
    if version == 1:
        fields.take(6)
    found = []
    for _ in range(count):
        code = fields.number(2)
        name_bytes = fields.number(2) if version == 1 or code >= 256 else 0
        fields.take(2)
        options = fields.number(2)
        fields.take(name_bytes if version == 2 else name_bytes + -name_bytes % 8)
        values = Fields(fields.take(4 * options), "a filter")
        if version == 1 and options % 2:
            fields.take(4)
        found.append(Filter(code, values.number(4) if options else 1))
    codes = [entry.code for entry in found]
    others = [code for code in codes if code not in (_DEFLATE, _SHUFFLE)]
    if others:
        words = ", ".join(_OTHER_FILTERS.get(code, "unknown") for code in others)
        message = f"it is stored through the filters {codes} ({words}); refnet reads only gzip and shuffle."
        raise FormatError(message, found=codes)
    if len(codes) != len(set(codes)):
        raise FormatError(f"it is stored through the filters {codes}, one of them twice.", found=codes)
    return found


def _compact(extents: Extents, fields: Fields, version: int, dataset: Dataset) -> Dataset:
    content = fields.take(fields.number(2))
    _check_stored(dataset, len(content), 1, extents)
    return dataset._replace(values=content[: dataset.nbytes], expanded=dataset.nbytes)


def _contiguous(extents: Extents, fields: Fields, version: int, dataset: Dataset) -> Dataset:
    start, stored = fields.number(), fields.number()
    _check_stored(dataset, 0 if start == UNDEFINED else stored, 1, extents)
    # HDF5 writes the size that the shape has: damage to either shows.
    if start != UNDEFINED and stored != dataset.nbytes:
        raise damaged(f"its shape {dataset.shape} takes {dataset.nbytes} bytes, and not the {stored} that it has")
    if dataset.nbytes:
        extents.claim(start, dataset.nbytes)
    return dataset._replace(values=start, expanded=dataset.nbytes)


def _chunked(extents: Extents, fields: Fields, version: int, dataset: Dataset) -> Dataset:
    space = Space(dataset.shape, dataset.limits, dataset.dtype.itemsize, bool(dataset.filters))
    chunks = find_chunks(extents, fields, version, space)
    stored = sum(chunks.sizes.tolist())
    _check_stored(dataset, stored, _DEFLATE_MAX_RATIO if dataset.filters else 1, extents)
    count, nbytes = math.prod(chunks.grid), math.prod(chunks.shape) * dataset.dtype.itemsize
    if len(chunks.numbers) != count or len(np.unique(chunks.numbers)) != count:
        raise FormatError(
            f"{len(chunks.numbers)} of its {count} chunks are there.", expected=count, found=len(chunks.numbers)
        )
    size = np.uint64(extents.size)
    if (chunks.sizes > size).any() or (chunks.starts > size - chunks.sizes).any():
        raise damaged("it is cut off: a chunk lies beyond its end")
    extents.count(stored)
    return dataset._replace(values=chunks, expanded=max(dataset.nbytes, count * nbytes))


_PLACES = {_COMPACT: _compact, _CONTIGUOUS: _contiguous, _CHUNKED: _chunked}


def _check_stored(dataset: Dataset, stored: int, ratio: int, extents: Extents) -> None:
    if stored > extents.size:
        raise CorruptError(f"it takes {stored} bytes, but the file has {extents.size}: the file is cut off.")
    if dataset.nbytes > stored * ratio:
        raise LimitError(
            f"its shape {dataset.shape} takes {dataset.nbytes} bytes, but the file holds {stored} for it.",
            expected=dataset.nbytes,
            found=stored,
        )


def read_values(extents: Extents, dataset: Dataset, arena: Arena) -> np.ndarray:
    """The array, native-endian and C-contiguous; bfloat16 as float32.

    Parameters
    ----------
    extents : Extents
    dataset : Dataset
    arena : Arena

    Returns
    -------
    ndarray

    Raises
    ------
    CorruptError
        The values are compressed, and damaged.
    """
    content = arena.take(dataset.nbytes)
    array = content.view(dataset.dtype).reshape(dataset.shape)
    if isinstance(dataset.values, Chunks):
        _read_chunks(extents, dataset, dataset.values, array)
    elif isinstance(dataset.values, bytes):
        content[:] = np.frombuffer(dataset.values, np.uint8)
    elif dataset.nbytes:
        extents.fill(dataset.values, content.data)
    if dataset.is_bfloat16:
        return float32_of_bfloat16(array)
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _read_chunks(extents: Extents, dataset: Dataset, chunks: Chunks, array: np.ndarray) -> None:
    nbytes = math.prod(chunks.shape) * dataset.dtype.itemsize
    corners = np.stack(np.unravel_index(chunks.numbers, chunks.grid), axis=1) * np.array(chunks.shape)
    for number, corner in enumerate(corners):
        content = bytearray(int(chunks.sizes[number]))
        extents.fill(int(chunks.starts[number]), memoryview(content))
        values = _undo(content, int(chunks.masks[number]), dataset.filters, nbytes)
        chunk = np.frombuffer(values, dataset.dtype).reshape(chunks.shape)
        # Those at the edges may be larger than what is left of the dataset.
        part = array[tuple(map(slice, corner, corner + chunks.shape))]
        part[...] = chunk if part.shape == chunks.shape else chunk[tuple(map(slice, part.shape))]


def _undo(content: bytes | bytearray, mask: int, filters: Sequence[Filter], nbytes: int) -> bytes | bytearray:
    """The values of a chunk, from what the filters made of them."""
    for number, applied in reversed(list(enumerate(filters))):
        if mask >> number & 1:
            continue
        content = _inflate(content, nbytes) if applied.code == _DEFLATE else _unshuffle(content, applied.element_bytes)
    if len(content) != nbytes:
        raise damaged(f"a chunk has {len(content)} bytes in place of {nbytes}")
    return content


def _inflate(content: bytes | bytearray, nbytes: int) -> bytes:
    """What deflate compressed, if it is no more than expected."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(content, nbytes + 1)
    except zlib.error as error:
        if is_want(error):
            raise
        raise damaged(f"a chunk cannot be decompressed: {error}") from error
    if not inflater.eof:
        raise damaged(f"a compressed chunk is cut off, or has more than its {nbytes} bytes")
    return found


def _unshuffle(content: bytes | bytearray, element_bytes: int) -> bytes:
    """Elements, from all their first bytes, then all their second ones, and so on; and what is no whole element."""
    if element_bytes < 2:
        return bytes(content)
    whole = len(content) // element_bytes * element_bytes
    rows = np.frombuffer(content, np.uint8, whole).reshape(element_bytes, -1)
    return rows.T.tobytes() + bytes(content[whole:])
