"""Heaps and trees of HDF5 files: where names, links and attributes lie."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from typing import NamedTuple

from refnet.errors import FormatError
from refnet.weights.formats.hdf5_structures import UNDEFINED, Extents, Fields, checksum, columns, damaged, take_checked

_COLLECTION_HEAD = 16
_OBJECT_HEAD = 16
_TREE_HEAD_BYTES, _NODE_HEAD_BYTES, _CHECKSUM_BYTES = 38, 6, 4
_HEAP_HEAD_BYTES = 146


class _Heap:
    """Objects do not overlap: no more bytes are given out than there are, however often one is asked for."""

    def __init__(self) -> None:
        self._left = 0

    def _count(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise damaged("the names in a heap overlap")


class LocalHeap(_Heap):
    """The names in an old group; each ends in a zero.

    Parameters
    ----------
    extents : Extents
    address : int
    """

    def __init__(self, extents: Extents, address: int) -> None:
        super().__init__()
        fields = Fields(extents.take(address, 32), "a local heap")
        fields.expect(b"HEAP\0")
        fields.take(3)
        size, _, place = (fields.number() for _ in range(3))
        self._content = extents.take(place, size)
        self._left = size

    def get(self, place: int) -> bytes:
        """A name.

        Parameters
        ----------
        place : int

        Returns
        -------
        bytes
            Without the zero.

        Raises
        ------
        CorruptError
            There is none.
        """
        end = self._content.find(b"\0", place) if place < len(self._content) else -1
        if end < 0:
            raise damaged("a name lies outside its group's heap")
        self._count(end - place)
        return self._content[place:end]


class GlobalHeap(_Heap):
    """Strings of varying length, by the collection and the number that a reference to one names.

    Parameters
    ----------
    extents : Extents
    """

    def __init__(self, extents: Extents) -> None:
        super().__init__()
        self._extents = extents
        self._collections: dict[int, dict[int, bytes]] = {}

    def get(self, address: int, number: int) -> bytes:
        """An object.

        Parameters
        ----------
        address : int
            Of its collection.
        number : int

        Returns
        -------
        bytes

        Raises
        ------
        CorruptError
            There is none.
        """
        if address not in self._collections:
            self._collections[address] = self._read(address)
        found = self._collections[address].get(number)
        if found is None:
            raise damaged(f"its global heap has no object {number}")
        self._count(len(found))
        return found

    def _read(self, address: int) -> dict[int, bytes]:
        what = "a collection of the global heap"
        head = Fields(self._extents.take(address, _COLLECTION_HEAD), what)
        head.expect(b"GCOL\1")
        head.take(3)
        size = head.number()
        if size < _COLLECTION_HEAD:
            raise damaged(f"{what} has {size} bytes")
        fields = Fields(self._extents.take(address + _COLLECTION_HEAD, size - _COLLECTION_HEAD), what)
        self._left += size
        found: dict[int, bytes] = {}
        # What is left at the end may be too short for an object.
        while fields.left >= _OBJECT_HEAD:
            number = fields.number(2)
            fields.take(6)
            length = fields.number()
            if number == 0:  # free space, whose size counts its head
                if length < _OBJECT_HEAD:
                    raise damaged(f"the free space of {what} has {length} bytes")
                fields.take(length - _OBJECT_HEAD)
            else:
                found[number] = fields.take(length)
                fields.take(min(-length % 8, fields.left))
        return found


class _Level(NamedTuple):
    """What the nodes of a tree's level hold, at most, and how the number of records below one is written."""

    records: int
    all_records: int
    count_bytes: int


def old_tree(extents: Extents, start: int, kind: int, row_bytes: int, what: str) -> Iterator[bytes]:
    """The leaves of a B-tree of version 1, in no order.

    Parameters
    ----------
    extents : Extents
    start : int
        Address of the root.
    kind : int
        0: a group's names; 1: a dataset's chunks.
    row_bytes : int
        Of a key and the child's address behind it.
    what : str
        The structure, for errors.

    Yields
    ------
    bytes
        A leaf's rows.

    Raises
    ------
    CorruptError, LimitError
    """
    pending: list[tuple[int, int | None]] = [(start, None)]
    while pending:
        address, expected = pending.pop()
        fields = Fields(extents.take(address, 24), what)
        fields.expect(b"TREE" + bytes([kind]))
        level, count = fields.number(1), fields.number(2)
        if expected is not None and level != expected:
            raise damaged(f"{what} has a node of level {level} where one of level {expected} belongs")
        rows = extents.take(address + 24, count * row_bytes)
        if not level:
            yield rows
            continue
        *_, children = columns(rows, *[1] * (row_bytes - 8), 8)
        pending.extend((child, level - 1) for child in children.tolist())


class Tree:
    """A B-tree of version 2.

    Parameters
    ----------
    extents : Extents
    address : int
    kind : int
        Of its records.
    """

    def __init__(self, extents: Extents, address: int, kind: int) -> None:
        self._extents = extents
        self._kind = kind
        fields = Fields(take_checked(extents, address, _TREE_HEAD_BYTES, "a B-tree"), "a B-tree")
        fields.expect(b"BTHD\0" + bytes([kind]))
        node_bytes, self.record_bytes, self._depth = fields.number(4), fields.number(2), fields.number(2)
        fields.take(2)
        self._root, self._root_records = fields.number(), fields.number(2)
        room = node_bytes - _NODE_HEAD_BYTES - _CHECKSUM_BYTES
        if not 0 < self.record_bytes <= room:
            raise damaged(f"a B-tree has records of {self.record_bytes} bytes in nodes of {node_bytes}")
        leaf = room // self.record_bytes
        self._levels = [_Level(leaf, leaf, 0)]
        # Nodes of a higher level hold, with each child's address, how many records it has, and all below it.
        self._child_bytes = _width(leaf)
        for _ in range(self._depth):
            below = self._levels[-1]
            pointer = 8 + self._child_bytes + below.count_bytes
            records = (room - pointer) // (self.record_bytes + pointer)
            everything = (records + 1) * below.all_records + records
            if records < 1 or everything >= 2**64:
                raise damaged(f"a B-tree is {self._depth} levels deep")
            self._levels.append(_Level(records, everything, _width(everything)))

    def records(self) -> Iterator[bytes]:
        """The records of each node, one after the other.

        Yields
        ------
        bytes
        """
        pending = [(self._root, self._root_records, self._depth)] if self._root_records else []
        while pending:
            address, count, depth = pending.pop()
            if count > self._levels[depth].records:
                raise damaged(f"a B-tree's node has {count} records")
            pointer = 8 + self._child_bytes + self._levels[depth - 1].count_bytes if depth else 0
            nbytes = _NODE_HEAD_BYTES + count * self.record_bytes + _CHECKSUM_BYTES
            nbytes += (count + 1) * pointer if depth else 0
            fields = Fields(take_checked(self._extents, address, nbytes, "a B-tree's node"), "a B-tree's node")
            fields.expect((b"BTIN\0" if depth else b"BTLF\0") + bytes([self._kind]))
            yield fields.take(count * self.record_bytes)
            for _ in range(count + 1 if depth else 0):
                pending.append((fields.number(), fields.number(self._child_bytes), depth - 1))
                fields.take(self._levels[depth - 1].count_bytes)


def _width(most: int) -> int:
    """How many bytes a number up to this takes."""
    return (most.bit_length() + 7) // 8


class FractalHeap(_Heap):
    """Links or attributes of objects that have many.

    Its addresses run through blocks of growing size, which the root lists, or blocks that it lists.

    Parameters
    ----------
    extents : Extents
    address : int
    """

    def __init__(self, extents: Extents, address: int) -> None:
        super().__init__()
        self._extents = extents
        self._address = address
        what = "a fractal heap"
        fields = Fields(take_checked(extents, address, _HEAP_HEAD_BYTES, what), what)
        fields.expect(b"FRHP\0")
        self.id_bytes, filters, flags = fields.number(2), fields.number(2), fields.number(1)
        if filters:
            raise FormatError("the HDF5 file keeps names in a compressed heap, which Keras' files never have.")
        self._has_checksums = bool(flags & 2)
        object_most = fields.number(4)
        fields.take(12 * 8)
        self._width, self._start_bytes = fields.number(2), fields.number()
        self._direct_most, bits = fields.number(), fields.number(2)
        fields.take(2)
        self._root, self._root_rows = fields.number(), fields.number(2)
        for number in (self._width, self._start_bytes, self._direct_most):
            if number == 0 or number & (number - 1):
                raise damaged(f"{what} has {number} where a power of two belongs")
        self._offset_bytes = -(-bits // 8)
        self._length_bytes = min(-(-(self._direct_most.bit_length() - 1) // 8), _width(object_most))
        self._head_bytes = 5 + 8 + self._offset_bytes + (_CHECKSUM_BYTES if self._has_checksums else 0)
        self._blocks = list(self._list_blocks())
        self._starts = [start for start, _, _ in self._blocks]
        self._read_block = functools.cache(self._read_block_once)

    def get(self, identifier: bytes) -> bytes:
        """An object.

        Parameters
        ----------
        identifier : bytes
            As a tree has it.

        Returns
        -------
        bytes

        Raises
        ------
        FormatError
            It lies outside the heap, as what is too large does.
        CorruptError
            There is none.
        """
        fields = Fields(identifier, "an entry of a fractal heap")
        if fields.number(1) != 0:
            raise FormatError("the HDF5 file has links or attributes of a kind or a size that Keras' files never have.")
        offset, length = fields.number(self._offset_bytes), fields.number(self._length_bytes)
        found = bisect.bisect_right(self._starts, offset) - 1
        if found < 0:
            raise damaged("a fractal heap has no such block")
        start, _, _ = self._blocks[found]
        content = self._read_block(found)[offset - start : offset - start + length]
        if offset - start < self._head_bytes or length > len(content):
            raise damaged("an entry of a fractal heap lies across its blocks")
        self._count(length)
        return content

    def _list_blocks(self) -> Iterator[tuple[int, int, int]]:
        """Every block with objects, in order: the start in the heap, the size, and the address in the file."""
        if self._root == UNDEFINED:
            return
        if self._root_rows:
            yield from self._list_below(0, self._root_rows, self._root)
        else:
            yield 0, self._start_bytes, self._root

    def _list_below(self, start: int, rows: int, address: int) -> Iterator[tuple[int, int, int]]:
        if self._start_bytes << rows >= 2**66:
            raise damaged(f"a fractal heap has {rows} rows")
        fields = self._indirect_block(start, rows, address)
        for row in range(rows):
            size = self._start_bytes << max(row - 1, 0)
            for _ in range(self._width):
                child = fields.number()
                if child == UNDEFINED:
                    pass
                elif size <= self._direct_most:
                    yield start, size, child
                else:
                    # With fewer rows than this one, so that there is an end.
                    below = (size // (self._start_bytes * self._width)).bit_length()
                    yield from self._list_below(start, min(below, row), child)
                start += size

    def _indirect_block(self, start: int, rows: int, address: int) -> Fields:
        what = "a fractal heap's list of blocks"
        nbytes = 5 + 8 + self._offset_bytes + rows * self._width * 8 + _CHECKSUM_BYTES
        fields = Fields(take_checked(self._extents, address, nbytes, what), what)
        fields.expect(b"FHIB\0" + self._address.to_bytes(8, "little"))
        if fields.number(self._offset_bytes) != start:
            raise damaged(f"{what} is that of another place")
        return fields

    def _read_block_once(self, number: int) -> bytes:
        start, size, address = self._blocks[number]
        what = "a fractal heap's block"
        content = self._extents.take(address, size)
        self._left += size
        fields = Fields(content, what)
        fields.expect(b"FHDB\0" + self._address.to_bytes(8, "little"))
        if fields.number(self._offset_bytes) != start:
            raise damaged(f"{what} is that of another place")
        if self._has_checksums:
            place = self._head_bytes - _CHECKSUM_BYTES
            blank = content[:place] + bytes(_CHECKSUM_BYTES) + content[place + _CHECKSUM_BYTES :]
            if fields.number(_CHECKSUM_BYTES) != checksum(blank):
                raise damaged(f"the checksum of {what} differs")
        return content
