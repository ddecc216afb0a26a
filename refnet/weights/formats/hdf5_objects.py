"""Groups, datasets and attributes of an HDF5 file, as the messages in their headers describe them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from refnet.errors import FormatError, LimitError
from refnet.weights.formats.hdf5_heaps import FractalHeap, GlobalHeap, LocalHeap, Tree, old_tree
from refnet.weights.formats.hdf5_structures import UNDEFINED, Extents, Fields, checksum, damaged, take_checked

MAGIC = b"\x89HDF\r\n\x1a\n"

#: The kinds of messages.
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL_FILES, LAYOUT = 0x1, 0x2, 0x3, 0x6, 0x7, 0x8
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0xB, 0xC, 0x10, 0x11, 0x15
_KNOWN = 0x18

#: Keras' have some tens.
_NAME_MAX_BYTES = 1024

_SHARED, _REFUSED_IF_UNKNOWN = 0x2, 0x80
_SOFT_LINK = 2
_LINK_RECORDS, _ATTRIBUTE_RECORDS = 5, 8
_VARYING, _STRING = 9, 1


class Message(NamedTuple):
    """A part of an object's header.

    Attributes
    ----------
    kind : int
    flags : int
    content : bytes
    """

    kind: int
    flags: int
    content: bytes


class Object:
    """The header of a group, a dataset or a type.

    Parameters
    ----------
    messages : sequence of Message

    Attributes
    ----------
    messages : sequence of Message
    first : dict of int to Message
        The first message of each kind.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.first = {message.kind: message for message in reversed(messages)}

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        return SYMBOL_TABLE in self.first or LINK_INFO in self.first

    @property
    def is_dataset(self) -> bool:
        """Whether it is a dataset; one that is damaged may lack a part."""
        return DATASPACE in self.first or LAYOUT in self.first

    @property
    def is_type(self) -> bool:
        """Whether it is a type that has a name."""
        return DATATYPE in self.first and not self.is_dataset


class Hdf5File:
    """The objects of a file.

    Parameters
    ----------
    extents : Extents

    Attributes
    ----------
    root : int
        The address of the outermost group.

    Raises
    ------
    CorruptError
        The file does not begin as one of HDF5, or is shorter than it says.
    """

    def __init__(self, extents: Extents) -> None:
        self.extents = extents
        self.root = self._read_superblock()
        self._objects: dict[int, Object] = {}
        self._global_heap = GlobalHeap(extents)

    def _read_superblock(self) -> int:
        head = self.extents.take(0, min(9, self.extents.size))
        version = head[8] if len(head) == 9 and head.startswith(MAGIC) else -1
        if version in (0, 1):
            fields = Fields(self.extents.take(9, 63 if version == 0 else 67), "its beginning")
            fields.take(4)
            widths = fields.take(2)
            fields.take(9 if version == 0 else 13)
            base, _, end, _, _, root = (fields.number() for _ in range(6))
        elif version in (2, 3):
            fields = Fields(take_checked(self.extents, 9, 39, "its beginning", head), "its beginning")
            fields.take(9)
            widths = fields.take(2)
            fields.take(1)
            base, _, end, root = (fields.number() for _ in range(4))
        else:
            raise damaged("it does not begin as Keras' files do")
        if widths != b"\x08\x08" or base != 0:
            raise damaged("it does not begin as Keras' files do: it has other addresses")
        if end > self.extents.size:
            raise damaged(f"it is cut off: it has {self.extents.size} of its {end} bytes")
        return root

    def object(self, address: int) -> Object:
        """The header of a group or dataset.

        Parameters
        ----------
        address : int

        Returns
        -------
        Object

        Raises
        ------
        CorruptError, FormatError
        """
        if address not in self._objects:
            start = self.extents.take(address, 4)
            messages = list(self._messages_v2(address) if start == b"OHDR" else self._messages_v1(address, start))
            unknown = [kind for kind, flags, _ in messages if kind >= _KNOWN and flags & _REFUSED_IF_UNKNOWN]
            if unknown:
                raise FormatError(f"the HDF5 file has a message {unknown[0]}, which only later versions of HDF5 know.")
            found = Object(messages)
            if not (found.is_group or found.is_dataset or found.is_type):
                raise damaged("an object is neither a group nor a dataset")
            self._objects[address] = found
        return self._objects[address]

    def _messages_v1(self, address: int, start: bytes) -> Iterator[Message]:
        what = "an object's header"
        head = Fields(start + self.extents.take(address + 4, 12), what)
        head.expect(b"\1")
        head.take(7)
        pending = [(address + 16, head.number(4))]
        for place, nbytes in pending:
            fields = Fields(self.extents.take(place, nbytes), what)
            while fields.left >= 8:
                kind, length, flags = struct.unpack("<HHB3x", fields.take(8))
                if length % 8:
                    raise damaged(f"{what} has a message of {length} bytes")
                content = fields.take(length)
                if kind == CONTINUATION:
                    pending.append(_continuation(content))
                else:
                    yield Message(kind, flags, content)

    def _messages_v2(self, address: int) -> Iterator[Message]:
        what = "an object's header"
        head = self.extents.take(address + 4, 2)
        flags = head[1]
        sizes = (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        size_bytes = 1 << (flags & 3)
        head = b"OHDR" + head + self.extents.take(address + 6, sizes + size_bytes)
        nbytes = int.from_bytes(head[-size_bytes:], "little") + 4
        content = take_checked(self.extents, address + len(head), nbytes, what, head)
        fields = Fields(content, what)
        fields.expect(b"OHDR\2")
        fields.take(len(head) - 5)
        head_bytes = 6 if flags & 4 else 4
        pending: list[tuple[int, int]] = []
        yield from self._list_v2(fields, head_bytes, pending)
        for place, size in pending:
            fields = Fields(take_checked(self.extents, place, size, what), what)
            fields.expect(b"OCHK")
            yield from self._list_v2(fields, head_bytes, pending)

    def _list_v2(self, fields: Fields, head_bytes: int, pending: list[tuple[int, int]]) -> Iterator[Message]:
        # What is left at the end may be too short for a message.
        while fields.left >= head_bytes:
            kind, length, flags = struct.unpack("<BHB", fields.take(4))
            fields.take(head_bytes - 4)
            content = fields.take(length)
            if kind == CONTINUATION:
                pending.append(_continuation(content))
            else:
                yield Message(kind, flags, content)

    def find(self, found: Object, kind: int) -> bytes | None:
        """The content of an object's first message of a kind; a type may be that of another object.

        Parameters
        ----------
        found : Object
        kind : int

        Returns
        -------
        bytes or None

        Raises
        ------
        FormatError, CorruptError
            It is elsewhere, and not a type that has a name.
        """
        message = found.first.get(kind)
        if message is None or not message.flags & _SHARED:
            return message and message.content
        fields = Fields(message.content, "a shared message")
        version, place = fields.number(1), fields.number(1)
        if version == 1:
            fields.take(6)
        if kind != DATATYPE or version > 3 or (version == 3 and place == 1):
            raise FormatError("the HDF5 file keeps messages in a table that all objects share, as Keras' never do.")
        message = self.object(fields.number()).first.get(kind)
        if message is None or message.flags & _SHARED:
            raise damaged("a shared message is not there")
        return message.content

    def members(self, group: Object) -> dict[str, int | None]:
        """The names in a group, sorted.

        Parameters
        ----------
        group : Object

        Returns
        -------
        dict of str to int or None
            Addresses of objects; None for a link that is not hard.

        Raises
        ------
        CorruptError, FormatError, LimitError
        """
        if not group.is_group:
            raise damaged("its outermost object is not a group")
        table = self.find(group, SYMBOL_TABLE)
        if table is not None:
            fields = Fields(table, "an old group")
            names = list(self._symbols(fields.number(), fields.number()))
        else:
            names = [_link(content) for content in self._links(group)]
        found: dict[str, int | None] = {}
        for name, address in sorted(names, key=lambda entry: entry[0]):
            if len(name) > _NAME_MAX_BYTES:
                raise LimitError(f"a name has {len(name)} bytes; refnet reads up to {_NAME_MAX_BYTES}.")
            text = _text(name)
            # A path tells them apart by these.
            if text in found or text in ("", ".") or "/" in text or "\0" in text:
                raise damaged(f"a group has the name {text!r} twice, or it cannot be one")
            found[text] = address
        return found

    def _symbols(self, tree: int, heap: int) -> Iterator[tuple[bytes, int | None]]:
        names = LocalHeap(self.extents, heap)
        for rows in old_tree(self.extents, tree, 0, 16, "an old group"):
            for _, child in struct.iter_unpack("<QQ", rows):
                yield from self._symbols_of_node(child, names)

    def _symbols_of_node(self, address: int, names: LocalHeap) -> Iterator[tuple[bytes, int | None]]:
        fields = Fields(self.extents.take(address, 8), "an old group")
        fields.expect(b"SNOD\1")
        fields.take(1)
        entries = self.extents.take(address + 8, 40 * fields.number(2))
        for place, child, cached in struct.iter_unpack("<QQI20x", entries):
            if cached > _SOFT_LINK:
                raise damaged(f"a group has an entry of kind {cached}")
            yield names.get(place), None if cached == _SOFT_LINK else child

    def _links(self, group: Object) -> Iterator[bytes]:
        yield from (message.content for message in group.messages if message.kind == LINK)
        for _, content in self._in_heap(self.find(group, LINK_INFO), "a group", _LINK_RECORDS):
            yield content

    def _in_heap(
        self, info: bytes | None, what: str, kind: int, wanted: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """The links or attributes in a heap, with their flags; only those whose names have the wanted hash."""
        if info is None:
            return
        fields = Fields(info, what)
        fields.expect(b"\0")
        if fields.number(1) & 1:
            # The greatest order of creation.
            fields.take(8 if kind == _LINK_RECORDS else 2)
        heap, tree = fields.number(), fields.number()
        if heap == UNDEFINED:
            return
        stored, index = FractalHeap(self.extents, heap), Tree(self.extents, tree, kind)
        head = "<I" if kind == _LINK_RECORDS else f"<{stored.id_bytes}xB4xI"
        if index.record_bytes != stored.id_bytes + (4 if kind == _LINK_RECORDS else 9):
            raise damaged("a tree of names has records of another size")
        for records in index.records():
            for place in range(0, len(records), index.record_bytes):
                record = records[place : place + index.record_bytes]
                *flags, hashed = struct.unpack_from(head, record)
                if wanted is None or hashed == wanted:
                    identifier = record[4:] if kind == _LINK_RECORDS else record[: stored.id_bytes]
                    yield (flags[0] if flags else 0), stored.get(identifier)

    def text_attribute(self, found: Object, name: str) -> str | None:
        """An attribute that is one text of varying length, as h5py writes a str.

        Parameters
        ----------
        found : Object
            It may have it.
        name : str

        Returns
        -------
        str or None
            None: it has no such attribute, or one of another type.
        """
        wanted = name.encode()
        for flags, content in self._attributes(found, wanted):
            attribute = _attribute(flags, content)
            if attribute is None or attribute.name != wanted:
                continue
            is_text = attribute.datatype[0] & 15 == _VARYING and attribute.datatype[1] & 15 == _STRING
            return self._text_of(attribute.data) if is_text and _is_scalar(attribute.dataspace) else None
        return None

    def has_attribute(self, found: Object, name: str) -> bool:
        """Whether there is an attribute of this name, of whatever type.

        Parameters
        ----------
        found : Object
        name : str

        Returns
        -------
        bool
        """
        wanted = name.encode()
        attributes = (_attribute(flags, content) for flags, content in self._attributes(found, wanted))
        return any(attribute is not None and attribute.name == wanted for attribute in attributes)

    def _attributes(self, found: Object, name: bytes) -> Iterator[tuple[int, bytes]]:
        yield from ((message.flags, message.content) for message in found.messages if message.kind == ATTRIBUTE)
        info = self.find(found, ATTRIBUTE_INFO)
        yield from self._in_heap(info, "an object's attributes", _ATTRIBUTE_RECORDS, checksum(name))

    def _text_of(self, data: bytes) -> str:
        fields = Fields(data, "an attribute")
        length, address, number = fields.number(4), fields.number(), fields.number(4)
        if address in (0, UNDEFINED):
            return ""
        content = self._global_heap.get(address, number)[:length]
        return _text(content.partition(b"\0")[0])


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(f"the name {content[:100]!r} is not text") from error


def _continuation(content: bytes) -> tuple[int, int]:
    fields = Fields(content, "an object's header")
    return fields.number(), fields.number()


def _link(content: bytes) -> tuple[bytes, int | None]:
    """The name of a link, and the address that it leads to; None if that is a path or another file."""
    fields = Fields(content, "a link")
    fields.expect(b"\1")
    flags = fields.number(1)
    kind = fields.number(1) if flags & 8 else 0
    fields.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = fields.take(fields.number(1 << (flags & 3)))
    return name, fields.number() if kind == 0 else None


class _Attribute(NamedTuple):
    name: bytes
    datatype: bytes
    dataspace: bytes
    data: bytes


def _attribute(flags: int, content: bytes) -> _Attribute | None:
    """An attribute; None if it shares its type or shape, or itself, with others, as h5py's texts do not."""
    fields = Fields(content, "an attribute")
    version, shared = fields.number(1), fields.number(1)
    if version not in (1, 2, 3) or flags & _SHARED:
        return None
    sizes = [fields.number(2) for _ in range(3)]
    if version == 3:
        fields.take(1)
    parts = []
    for size in sizes:
        parts.append(fields.take(size))
        if version == 1:
            fields.take(-size % 8)
    if version > 1 and shared & 3:
        return None
    name, datatype, dataspace = parts
    if len(datatype) < 2 or not dataspace:
        raise damaged("an attribute is cut off")
    return _Attribute(name.partition(b"\0")[0], datatype, dataspace, fields.take(fields.left))


def _is_scalar(dataspace: bytes) -> bool:
    """Whether a dataspace has one element and no dimensions."""
    return dataspace[1:2] == b"\0" and (dataspace[0] == 1 or dataspace[3:4] == b"\0")
