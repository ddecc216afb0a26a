"""Where the chunks of an HDF5 dataset lie: the kinds of index that lead to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from refnet.errors import FormatError
from refnet.weights.formats.hdf5_heaps import Tree, old_tree
from refnet.weights.formats.hdf5_structures import (
    MAX_CHUNKS,
    UNDEFINED,
    Extents,
    Fields,
    columns,
    damaged,
    take_checked,
)
from refnet.weights.formats.loaded import check_shape

#: The size of a dimension without a limit.
UNLIMITED = 2**64 - 1

_SINGLE, _IMPLICIT, _FIXED_ARRAY, _EXTENSIBLE_ARRAY, _TREE = range(1, 6)
_PLAIN_RECORDS, _FILTERED_RECORDS = 10, 11
_ADDRESS_BYTES, _MASK_BYTES, _CHECKSUM_BYTES = 8, 4, 4


# Entries of an array of chunks, and the number of the first.
_Part = tuple[int, bytes]


class Chunks(NamedTuple):
    """Where the chunks of a dataset lie.

    Attributes
    ----------
    shape : tuple of int
        Of a chunk.
    grid : tuple of int
        How many there are in each dimension.
    numbers : int array
        Their numbers in the grid, in the order of C.
    starts, sizes, masks : uint64 array
        Their places in the file, and the filters that they did not pass through.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    numbers: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    masks: np.ndarray


class Space(NamedTuple):
    """What is known of a dataset before its chunks are looked for.

    Attributes
    ----------
    shape, limits : tuple of int
        Its shape, and how large that may become.
    itemsize : int
    is_filtered : bool
    """

    shape: tuple[int, ...]
    limits: tuple[int, ...]
    itemsize: int
    is_filtered: bool


def find_chunks(extents: Extents, fields: Fields, version: int, space: Space) -> Chunks:
    """All the chunks that an index lists, within the dataset's shape; their places are not checked.

    Parameters
    ----------
    extents : Extents
    fields : Fields
        The layout, from the first field that is particular to chunks on.
    version : int
        Of the layout.
    space : Space

    Returns
    -------
    Chunks

    Raises
    ------
    FormatError, CorruptError, LimitError
    """
    flags = fields.number(1) if version > 3 else 0
    rank = fields.number(1)
    start = fields.number() if version == 3 else UNDEFINED
    width = 4 if version == 3 else fields.number(1)
    # The last dimension is the element's bytes.
    *shape, itemsize = [fields.number(width) for _ in range(rank)] or [0]
    if not shape or len(shape) != len(space.shape) or 0 in shape or itemsize != space.itemsize:
        raise damaged(f"its chunks have the shape {tuple(shape)} and {itemsize} bytes per element")
    check_shape(shape, itemsize)
    index = _Index(extents, space, tuple(shape))
    if version == 3:
        return index.none() if start == UNDEFINED else index.old_tree(start)
    if flags & 1:
        raise FormatError("its chunks at the edges are stored in another way than the others.")
    kind = fields.number(1)
    if kind == _SINGLE:
        size, mask = (fields.number(), fields.number(_MASK_BYTES)) if flags & 2 else (index.chunk_bytes, 0)
        return index.single(fields.number(), size, mask)
    readers = {
        _IMPLICIT: (0, index.implicit),
        _FIXED_ARRAY: (1, index.fixed_array),
        _EXTENSIBLE_ARRAY: (5, index.extensible_array),
        _TREE: (6, index.new_tree),
    }
    if kind not in readers:
        raise damaged(f"its chunks are found by an index of kind {kind}")
    # The index repeats these in its own head.
    options, read = readers[kind]
    fields.take(options)
    address = fields.number()
    return index.none() if address == UNDEFINED else read(address)


class _Index:
    def __init__(self, extents: Extents, space: Space, shape: tuple[int, ...]) -> None:
        self._extents = extents
        self._shape = shape
        self._is_filtered = space.is_filtered
        self.chunk_bytes = math.prod(shape) * space.itemsize
        self._grid = tuple(-(-size // chunk) for size, chunk in zip(space.shape, shape, strict=True))
        self._limits = tuple(-(-size // chunk) for size, chunk in zip(space.limits, shape, strict=True))
        # Arrays are in the order of C, but the dimension without a limit comes first.
        first = space.limits.index(UNLIMITED) if UNLIMITED in space.limits else 0
        self._order = [first, *(dimension for dimension in range(len(shape)) if dimension != first)]

    def single(self, start: int, size: int, mask: int) -> Chunks:
        row = start.to_bytes(8, "little") + size.to_bytes(8, "little") + mask.to_bytes(4, "little")
        starts, sizes, masks = columns(row if start != UNDEFINED else b"", _ADDRESS_BYTES, 8, _MASK_BYTES)
        return Chunks(self._shape, self._grid, np.arange(len(starts)), starts, sizes, masks)

    def old_tree(self, start: int) -> Chunks:
        """A B-tree of version 1, whose keys are the chunks' first elements."""
        rank = len(self._shape)
        # A size, a mask, the first element's place in each dimension and in itself; and the address.
        row_bytes = 4 + _MASK_BYTES + 8 * (rank + 1) + _ADDRESS_BYTES
        leaves = list(old_tree(self._extents, start, 1, row_bytes, "a tree of chunks"))
        self._extents.count_chunks(sum(map(len, leaves)) // row_bytes)
        sizes, masks, *firsts, element, starts = columns(b"".join(leaves), 4, _MASK_BYTES, *[8] * (rank + 2))
        steps = [np.uint64(chunk) for chunk in self._shape]
        if element.any() or any((first % step).any() for first, step in zip(firsts, steps, strict=True)):
            raise damaged("a chunk starts within another one")
        places = [first // step for first, step in zip(firsts, steps, strict=True)]
        return self._placed(places, starts, sizes, masks)

    def new_tree(self, start: int) -> Chunks:
        """A B-tree of version 2, with the chunks' places in the grid."""
        rank = len(self._shape)
        tree = Tree(self._extents, start, _FILTERED_RECORDS if self._is_filtered else _PLAIN_RECORDS)
        widths = self._widths(tree.record_bytes - 8 * rank)
        records = b"".join(tree.records())
        self._extents.count_chunks(len(records) // tree.record_bytes)
        found = columns(records, *widths, *[8] * rank)
        starts, sizes, masks = self._described(found[: len(widths)])
        return self._placed(found[len(widths) :], starts, sizes, masks)

    def implicit(self, start: int) -> Chunks:
        """Chunks that follow each other, without an index."""
        count = math.prod(self._limits)
        if start + count * self.chunk_bytes > self._extents.size or count > MAX_CHUNKS:
            return self.none()
        starts = start + self.chunk_bytes * np.arange(count, dtype=np.uint64)
        return self._listed([(0, starts.astype("<u8").tobytes())], _ADDRESS_BYTES)

    def fixed_array(self, start: int) -> Chunks:
        """An array with a place for every chunk that there can be."""
        what = "an array of chunks"
        fields = Fields(take_checked(self._extents, start, 28, what), what)
        fields.expect(b"FAHD\0" + bytes([self._is_filtered]))
        entry_bytes, page_bits, count, address = (fields.number(nbytes) for nbytes in (1, 1, 8, 8))
        if count != math.prod(self._limits):
            raise damaged(f"{what} has {count} places")
        if address == UNDEFINED:
            return self.none()
        head = b"FADB\0" + bytes([self._is_filtered]) + start.to_bytes(8, "little")
        page = 1 << page_bits
        if count <= page:
            return self._listed([(0, self._block(address, head, count * entry_bytes))], entry_bytes)
        bitmap = self._block(address, head, (-(-count // page) + 7) // 8)
        place = address + len(head) + len(bitmap) + _CHECKSUM_BYTES
        entries = b"".join(self._read_pages(place, count, page, bitmap, entry_bytes))
        return self._listed([(0, entries)], entry_bytes)

    def extensible_array(self, start: int) -> Chunks:
        """An array that grows by blocks, each larger than those before it."""
        what = "an array of chunks"
        fields = Fields(take_checked(self._extents, start, 72, what), what)
        fields.expect(b"EAHD\0" + bytes([self._is_filtered]))
        entry_bytes, bits, first, least, pointers, page_bits = (fields.number(1) for _ in range(6))
        fields.take(4 * 8)
        used, _, address = (fields.number() for _ in range(3))
        for number in (least, pointers):
            if number == 0 or number & (number - 1) or bits > 60:
                raise damaged(f"{what} has {number} where a power of two belongs")
        if address == UNDEFINED:
            return self.none()
        array = _Array(start, self._is_filtered, entry_bytes, -(-bits // 8), page_bits, first, least)
        # The first blocks' addresses lie in the index; those of the others in blocks of addresses, of which level n has
        # 2**(n // 2) blocks.
        levels = list(range(bits - least.bit_length() + 2))
        direct = 2 * (pointers.bit_length() - 1)
        block_levels = [level for level in levels[:direct] for _ in range(1 << level // 2)]
        addresses_bytes = _ADDRESS_BYTES * (len(block_levels) + len(levels[direct:]))
        index = self._block(address, array.head(b"EAIB"), first * entry_bytes + addresses_bytes)
        (addresses,) = columns(index[first * entry_bytes :], _ADDRESS_BYTES)
        parts = [(0, index[: first * entry_bytes])]
        parts += self._grown(array, addresses.tolist(), block_levels, levels[direct:])
        # Blocks are longer than what is used of them.
        parts = [(place, content[: max(used - place, 0) * entry_bytes]) for place, content in parts]
        return self._listed(parts, entry_bytes)

    def _grown(
        self, array: _Array, addresses: Sequence[int], block_levels: Sequence[int], others: Sequence[int]
    ) -> Iterator[_Part]:
        """The entries of an array's blocks."""
        place = array.first
        for address, level in zip(addresses, block_levels, strict=False):
            entries = array.entries(level)
            if address != UNDEFINED:
                yield place, self._block(address, array.head(b"EADB"), entries * array.entry_bytes, array.place_bytes)
            place += entries
        for address, level in zip(addresses[len(block_levels) :], others, strict=True):
            if address != UNDEFINED:
                yield from self._in_level(array, address, level, place)
            place += array.entries(level) << level // 2

    def _in_level(self, array: _Array, address: int, level: int, place: int) -> Iterator[_Part]:
        blocks, entries = 1 << level // 2, array.entries(level)
        if entries > 1 << array.page_bits:
            raise FormatError("its list of chunks has pages, as it has for very many of them.")
        nbytes = blocks * _ADDRESS_BYTES
        (inner,) = columns(self._block(address, array.head(b"EASB"), nbytes, array.place_bytes), _ADDRESS_BYTES)
        for block in inner.tolist():
            if block != UNDEFINED:
                yield place, self._block(block, array.head(b"EADB"), entries * array.entry_bytes, array.place_bytes)
            place += entries

    def _block(self, address: int, head: bytes, nbytes: int, passed_over: int = 0) -> bytes:
        """What follows a head, and a place that nobody needs, in a structure with a checksum."""
        what = "an array of chunks"
        size = len(head) + passed_over + nbytes + _CHECKSUM_BYTES
        fields = Fields(take_checked(self._extents, address, size, what), what)
        fields.expect(head)
        fields.take(passed_over)
        return fields.take(nbytes)

    def _read_pages(self, place: int, count: int, page: int, bitmap: bytes, entry_bytes: int) -> Iterator[bytes]:
        """So many entries, in pages with a checksum each; those of a page that was never written have no address."""
        for number, start in enumerate(range(0, count, page)):
            nbytes = min(page, count - start) * entry_bytes
            if bitmap[number // 8] << number % 8 & 0x80:
                yield take_checked(self._extents, place, nbytes + _CHECKSUM_BYTES, "an array of chunks")
            else:
                self._extents.take(place, nbytes + _CHECKSUM_BYTES)
                yield b"\xff" * nbytes
            place += nbytes + _CHECKSUM_BYTES

    def _widths(self, entry_bytes: int) -> list[int]:
        """The columns of an entry: the address, and if filtered the size and the mask."""
        size_bytes = entry_bytes - _ADDRESS_BYTES - _MASK_BYTES
        if not self._is_filtered and entry_bytes == _ADDRESS_BYTES:
            return [_ADDRESS_BYTES]
        if not self._is_filtered or not 1 <= size_bytes <= 8:
            raise damaged(f"a list of chunks has entries of {entry_bytes} bytes")
        return [_ADDRESS_BYTES, size_bytes, _MASK_BYTES]

    def _described(self, entries: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._is_filtered:
            starts, sizes, masks = entries
            return starts, sizes, masks
        return entries[0], np.full_like(entries[0], self.chunk_bytes), np.zeros_like(entries[0])

    def none(self) -> Chunks:
        """No chunk was ever written."""
        return self._placed([np.zeros(0, np.uint64)] * len(self._shape), *[np.zeros(0, np.uint64)] * 3)

    def _listed(self, parts: Sequence[_Part], entry_bytes: int) -> Chunks:
        """The chunks of an array, in which every chunk that there can be has a place."""
        entries = b"".join(content for _, content in parts)
        self._extents.count_chunks(len(entries) // entry_bytes if entry_bytes else 0)
        starts, sizes, masks = self._described(columns(entries, *self._widths(entry_bytes)))
        firsts = [np.arange(len(content) // entry_bytes, dtype=np.uint64) + first for first, content in parts]
        rest = np.concatenate(firsts)
        inside = starts != np.uint64(UNDEFINED)
        places = [rest] * len(self._shape)
        for dimension in reversed(self._order[1:]):
            rest, places[dimension] = np.divmod(rest, np.uint64(max(self._limits[dimension], 1)))
        places[self._order[0]] = rest
        for place, size in zip(places, self._grid, strict=True):
            inside &= place < np.uint64(size)
        return self._placed([place[inside] for place in places], starts[inside], sizes[inside], masks[inside])

    def _placed(self, places: Sequence[np.ndarray], starts: np.ndarray, sizes: np.ndarray, masks: np.ndarray) -> Chunks:
        """Chunks by their places in the grid."""
        if any((place >= np.uint64(size)).any() for place, size in zip(places, self._grid, strict=True)):
            raise damaged("a chunk lies outside its dataset")
        numbers = np.zeros(len(starts), np.int64)
        for place, size in zip(places, self._grid, strict=True):
            numbers = numbers * size + place.astype(np.int64)
        return Chunks(self._shape, self._grid, numbers, starts, sizes, masks)


class _Array(NamedTuple):
    """What the blocks of an extensible array have in common."""

    address: int
    is_filtered: bool
    entry_bytes: int
    place_bytes: int
    page_bits: int
    first: int
    least: int

    def head(self, signature: bytes) -> bytes:
        return signature + b"\0" + bytes([self.is_filtered]) + self.address.to_bytes(8, "little")

    def entries(self, level: int) -> int:
        """How many entries each block of a level has."""
        return self.least << (level + 1) // 2
