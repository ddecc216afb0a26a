"""Mutations that know a format's structure, so that what they change is read, and not refused at the first checksum."""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from refnet.weights.formats.hdf5_objects import Hdf5File
from refnet.weights.formats.hdf5_structures import Extents, checksum
from refnet.weights.formats.hdf5_values import describe
from refnet.weights.formats.table import read_table
from tests.refnet.formats.tables import Tables

Files = dict[str, bytes]

#: Numbers at which readers go wrong.
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63)
LETTERS = (
    "",
    "a",
    "\0",
    "../../x",
    "/x",
    "\u00b2",
    "\ud7ff",
    "x" * 300,
    "__refnet__",
    "__metadata__",
    "9" * 5000,
    "NaN",
)


def number(draw: Random, old: int = 0) -> int:
    """Another number: near the old one, or one of those that matter."""
    return draw.choice([old + draw.choice((-1, 1)), -old, 2 * old, draw.choice(NUMBERS), -draw.choice(NUMBERS)])


def bytes_of(content: bytes, draw: Random) -> bytes:
    """Other bytes: some flipped, some fields overwritten, a part moved, cut off, repeated or added."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, kind = draw.randrange(len(changed) + 1), draw.randrange(7)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            width = draw.choice((1, 2, 4, 8))
            order = draw.choice(("little", "big"))
            changed[at : at + width] = (draw.choice(NUMBERS) % 256**width).to_bytes(width, order)
        elif kind == 2:
            source, length = draw.randrange(len(changed) + 1), draw.choice((1, 4, 8, 40))
            changed[at : at + length] = changed[source : source + length]
        elif kind == 3:
            del changed[at : at + draw.choice((1, 2, 8, 100))]
        elif kind == 4:
            changed[at:at] = draw.randbytes(draw.choice((1, 4, 60)))
        elif kind == 5:
            changed[at : at + 8] = bytes(8)
        elif draw.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, item in inner for place in places(item, (*path, key))]


def value(draw: Random, old: Any) -> Any:
    if isinstance(old, bool) or old is None or draw.random() < 0.3:
        return draw.choice([None, True, False, 1.5, -0.0, 1e400, "x", [], {}, [[]], [1], {"a": 1}, 10**400])
    if isinstance(old, int):
        return number(draw, old)
    if isinstance(old, float):
        return draw.choice([-old, 0.0, 1e308, 1e-320, float("nan"), 2])
    if isinstance(old, str):
        return draw.choice([old[:-1], old + "x", old.upper(), *LETTERS])
    if isinstance(old, list):
        return draw.choice([old[:-1], old + old, old[::-1], [old], [*old, 1]])
    return draw.choice([list(old), {**old, "x": 1}, dict(list(old.items())[:-1])])


def document(content: Any, draw: Random) -> str:
    """The text of another JSON document."""
    copy = json.loads(json.dumps(content))
    for _ in range(draw.choice((1, 1, 2, 3))):
        path = draw.choice(places(copy))
        if not path:
            if draw.random() < 0.05:
                copy = value(draw, copy)
            continue
        parent = copy
        for key in path[:-1]:
            parent = parent[key]
        kind = draw.randrange(5)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, dict):
            new = draw.choice([*LETTERS, str(path[-1])[:-1], f"{path[-1]}x", *parent])
            parent[new] = parent.pop(path[-1])
        elif kind == 2:
            others = places(copy)
            other = copy
            for key in draw.choice(others):
                other = other[key]
            parent[path[-1]] = json.loads(json.dumps(other))
        else:
            parent[path[-1]] = value(draw, parent[path[-1]])
    text = json.dumps(copy)
    if draw.random() < 0.1 and isinstance(copy, dict) and copy:
        key = draw.choice(list(copy))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(copy[key])}}}"
    if draw.random() < 0.05:
        text = draw.choice(["[" * 5000, "\ufeff" + text, text + " ", text + "}", text.replace("0", "00", 1)])
    return text


def safetensors(files: Files, draw: Random) -> Files:
    """Another header, or other bytes."""
    ((name, content),) = files.items()
    if draw.random() < 0.2:
        return {name: bytes_of(content, draw)}
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    text = document(header, draw).encode("utf-8", "surrogatepass")
    if draw.random() < 0.1:
        data = bytes_of(data, draw)
    size = len(text) if draw.random() < 0.95 else number(draw, len(text))
    return {name: (size % 2**64).to_bytes(8, "little") + text + data}


def metadata(key: str, hashed: str | None = None) -> Callable[[Files, Random], Files]:
    """Another document in a key of safetensors' metadata, with its hash right."""

    def mutate(files: Files, draw: Random) -> Files:
        from hashlib import sha256

        ((name, content),) = files.items()
        if draw.random() < 0.15:
            return safetensors(files, draw)
        length = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        text = document(json.loads(header["__metadata__"][key]), draw)
        header["__metadata__"][key] = text
        if hashed is not None:
            header["__metadata__"][hashed] = sha256(text.encode("utf-8", "replace")).hexdigest()
        encoded = json.dumps(header).encode()
        return {name: len(encoded).to_bytes(8, "little") + encoded + data}

    return mutate


def _npy(content: bytes, draw: Random) -> bytes:
    """Another header of an array: a literal of Python."""
    if content[:6] != b"\x93NUMPY" or draw.random() < 0.1:
        return bytes_of(content, draw)
    length = int.from_bytes(content[8:10], "little")
    text, data = content[10 : 10 + length].decode("latin1"), content[10 + length :]
    old, new = draw.choice(
        [
            (
                "'<f4'",
                draw.choice(["'>f4'", "'<f8'", "'|O'", "'<f2'", "[('a', '<f4')]", "'<U9'", "'|V4'", "'<c8'", "1"]),
            ),
            ("False", draw.choice(["True", "None", "0", "1"])),
            ("(", f"({number(draw)}, "),
            (",)", draw.choice([")", ",,)", f", {number(draw)})"])),
            ("2", str(number(draw, 2))),
            ("3", str(number(draw, 3))),
            ("'shape'", draw.choice(["'shap'", "'descr'", "b'shape'"])),
            ("{", draw.choice(["{'x': 1, ", "[", "(" * 300, "{" * 3])),
            ("}", draw.choice([", 'shape': (1,)}", "}}", "} # ", ""])),
        ]
    )
    text = text.replace(old, new, 1)
    if draw.random() < 0.2:
        data = draw.choice([data[:-1], data + b"\0", b"", data * 2])
    size = len(text) if draw.random() < 0.9 else number(draw, len(text)) % 65536
    version = b"\1\0" if draw.random() < 0.9 else draw.choice([b"\2\0", b"\3\0", b"\0\0", b"\xff\xff"])
    return content[:6] + version + size.to_bytes(2, "little") + text.encode("latin1") + data


def archive(inner: Callable[[bytes, Random], bytes]) -> Callable[[Files, Random], Files]:
    """Another zip archive: other members, names and methods, with what is in them, or in its directory, changed."""

    def mutate(files: Files, draw: Random) -> Files:
        ((name, content),) = files.items()
        if draw.random() < 0.2:
            return {name: bytes_of(content, draw)}
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            members = [(member, source.read(member)) for member in source.namelist()]
        for _ in range(draw.choice((1, 1, 2))):
            at, kind = draw.randrange(len(members)), draw.randrange(8)
            if kind == 0 and len(members) > 1:
                del members[at]
            elif kind == 1:
                members.append(members[at])
            elif kind == 2:
                members[at] = (
                    draw.choice(["../x.npy", "/x.npy", "x", members[at][0][:-1], "\u00b2.npy", "a\0.npy"]),
                    members[at][1],
                )
            elif kind == 3:
                members.append((members[at][0], draw.choice(members)[1]))
            else:
                members[at] = members[at][0], inner(members[at][1], draw)
        out = io.BytesIO()
        with zipfile.ZipFile(
            out, "w", draw.choice([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
        ) as target:
            for member, data in members:
                target.writestr(zipfile.ZipInfo(member), data, target.compression)
        written = bytearray(out.getvalue())
        if draw.random() < 0.15:
            # Somewhere in the directory, or in a member's own header.
            at = draw.choice(
                [found for magic in (b"PK\1\2", b"PK\5\6", b"PK\3\4") if (found := written.rfind(magic)) >= 0]
            )
            where, width = at + draw.randrange(4, 46), draw.choice((1, 2, 4))
            written[where : where + width] = (draw.choice(NUMBERS) % 256**width).to_bytes(width, "little")
        return {name: bytes(written)}

    return mutate


npz = archive(_npy)
plain_archive = archive(bytes_of)


def fields(content: bytes) -> list[tuple[int, int, int | bytes]] | None:
    """The fields of a message of protobuf: number, kind, value. None if it is not one."""
    found: list[tuple[int, int, int | bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        result = shift = 0
        while True:
            result |= (content[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if content[at - 1] < 0x80 or shift > 63:
                return result

    try:
        while at < len(content):
            tag = varint()
            kind = tag & 7
            if kind == 0:
                found.append((tag >> 3, kind, varint()))
                continue
            length = {1: 8, 5: 4}[kind] if kind != 2 else varint()
            if at + length > len(content):
                return None
            found.append((tag >> 3, kind, content[at : at + length]))
            at += length
    except (IndexError, KeyError):
        return None
    return found


def encode(content: list[tuple[int, int, int | bytes]]) -> bytes:
    out = b""
    for tag, kind, field in content:
        out += Tables.varint(tag << 3 | kind)
        if isinstance(field, int):
            out += Tables.varint(field)
        else:
            out += (Tables.varint(len(field)) if kind == 2 else b"") + field
    return out


def message(content: bytes, draw: Random) -> bytes:
    """Another message: a field changed, however deep, left out, repeated or moved."""
    found = fields(content)
    if not found or draw.random() < 0.1:
        return bytes_of(content, draw)
    at = draw.randrange(len(found))
    tag, kind, field = found[at]
    what = draw.randrange(8)
    if what == 0:
        del found[at]
    elif what == 1:
        found.insert(draw.randrange(len(found) + 1), found[at])
    elif what == 2:
        found[at] = draw.choice((1, 2, 3, 4, 5, 6, 7, 99)), kind, field
    elif isinstance(field, int):
        found[at] = tag, kind, number(draw, field)
    else:
        found[at] = tag, kind, message(field, draw) if kind == 2 else draw.randbytes(len(field))
    return encode(found)


def table(index: str) -> Callable[[Files, Random], Files]:
    """Another table with right checksums, in plain or compressed blocks; or other bytes in any file."""

    def mutate(files: Files, draw: Random) -> Files:
        if draw.random() < 0.2:
            name = draw.choice(sorted(files))
            return {**files, name: bytes_of(files[name], draw)}
        entries = {key: bytes(entry) for key, entry in read_table(files[index]).items()}
        for _ in range(draw.choice((1, 1, 2))):
            key = draw.choice(list(entries))
            what = draw.randrange(7)
            if what == 0:
                del entries[key]
                entries = entries or {b"": b""}
            elif what == 1:
                entries[bytes_of(key, draw)] = entries[key]
            elif what == 2:
                entries[key] = draw.choice(list(entries.values()))
            else:
                entries[key] = message(entries[key], draw)
        ordered = dict(sorted(entries.items())) if draw.random() < 0.9 else entries
        made = Tables.table(ordered, snappy=draw.random() < 0.3, block_entries=draw.choice((1, 3, 50)))
        return {**files, index: made if draw.random() < 0.95 else bytes_of(made, draw)}

    return mutate


def any_bytes(files: Files, draw: Random) -> Files:
    name = draw.choice(sorted(files))
    return {**files, name: bytes_of(files[name], draw)}


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png(files: Files, draw: Random) -> Files:
    """Other chunks, with right checksums; compressed data may be changed before they are compressed."""
    ((name, content),) = files.items()
    if draw.random() < 0.2:
        return {name: bytes_of(content, draw)}
    chunks = _chunks(content)
    for _ in range(draw.choice((1, 1, 2))):
        at, what = draw.randrange(len(chunks)), draw.randrange(7)
        kind, data = chunks[at]
        if what == 0 and len(chunks) > 1:
            del chunks[at]
        elif what == 1:
            chunks.insert(draw.randrange(len(chunks) + 1), chunks[at])
        elif what == 2:
            extra = draw.choice(
                [b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"iCCP", b"acTL", b"fdAT", b"sBIT", b"IDAT", b"IEND"]
            )
            chunks.insert(at, (extra, draw.randbytes(draw.choice((0, 1, 3, 6, 26, 768)))))
        elif what == 3 and kind == b"IHDR":
            fieldwise = list(struct.unpack(">IIBBBBB", data)) if len(data) == 13 else [1, 1, 8, 2, 0, 0, 0]
            fieldwise[draw.randrange(7)] = draw.choice((0, 1, 2, 3, 4, 6, 8, 16, 300))
            data = struct.pack(">II5B", *fieldwise[:2], *(field % 256 for field in fieldwise[2:]))
            chunks[at] = kind, data
        elif kind == b"IDAT":
            try:
                chunks[at] = kind, zlib.compress(bytes_of(zlib.decompress(data), draw))
            except zlib.error:
                chunks[at] = kind, bytes_of(data, draw)
        else:
            chunks[at] = kind, bytes_of(data, draw)
    out = content[:8]
    for kind, data in chunks:
        out += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return {name: out}


def jpeg(files: Files, draw: Random) -> Files:
    """Other segments: left out, repeated, moved, or with other contents."""
    ((name, content),) = files.items()
    if draw.random() < 0.3:
        return {name: bytes_of(content, draw)}
    segments, at = [], 2
    while content[at + 1] != 0xDA:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append((content[at : at + 2], content[at + 4 : at + 2 + length]))
        at += 2 + length
    which, what = draw.randrange(len(segments)), draw.randrange(5)
    marker, data = segments[which]
    if what == 0:
        del segments[which]
    elif what == 1:
        segments.insert(draw.randrange(len(segments) + 1), segments[which])
    elif what == 2:
        segments[which] = bytes([255, draw.choice((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE1, 0xEE, 0xFE))]), data
    else:
        segments[which] = marker, bytes_of(data, draw)
    head = b"".join(marker + (len(data) + 2).to_bytes(2, "big") + data for marker, data in segments)
    scan = content[at:]
    return {name: content[:2] + head + (bytes_of(scan, draw) if draw.random() < 0.3 else scan)}


class _Noted(Extents):
    """A file that notes where its structures lie: one that is read in parts is one."""

    def __init__(self, content: bytes) -> None:
        def read(start: int, part: memoryview) -> int:
            part[:] = content[start : start + len(part)]
            return len(part)

        super().__init__(read, len(content))
        self._content = content
        self.found: list[tuple[int, int]] = []

    def take(self, start: int, nbytes: int) -> bytes:
        first, stop = self.found[-1] if self.found else (0, -1)
        if stop == start and _sum_at(self._content[first:stop]) is None:
            self.found[-1] = first, start + nbytes
        else:
            self.found.append((start, start + nbytes))
        return super().take(start, nbytes)


@functools.cache
def _structures(content: bytes) -> list[tuple[int, int, int | None]]:
    """The structures of a sound HDF5 file: start, end, and the place of the checksum, if there is one."""
    noted = _Noted(content)
    file = Hdf5File(noted)
    pending = [file.root]
    while pending:
        found = file.object(pending.pop())
        file.text_attribute(found, "name")
        if found.is_group:
            pending += [address for address in file.members(found).values() if address is not None]
        elif found.is_dataset:
            describe(file, found)
    return [(start, stop, _sum_at(content[start:stop])) for start, stop in noted.found]


def _sum_at(structure: bytes) -> int | None:
    """At the end, or in a block of a fractal heap after its head."""
    places = (len(structure) - 4,) if structure[:4] != b"FHDB" else range(13, 25)
    return next((place for place in places if structure[place : place + 4] == _sum_of(structure, place)), None)


def _sum_of(structure: bytes, place: int) -> bytes:
    summed = structure[:place]
    if place + 4 < len(structure):
        summed += bytes(4) + structure[place + 4 :]
    return checksum(summed).to_bytes(4, "little")


def hdf5(files: Files, draw: Random) -> Files:
    """Other numbers in HDF5's structures: addresses, lengths, counts, versions; mostly with the right checksums."""
    ((name, content),) = files.items()
    if draw.random() < 0.15:
        return {name: bytes_of(content, draw)}
    changed, structures = bytearray(content), _structures(content)
    touched = [draw.choice(structures) for _ in range(draw.choice((1, 1, 2, 3)))]
    for start, stop, _ in touched:
        width = draw.choice((1, 2, 4, 8))
        # The head of a structure says most; and numbers are aligned, or nearly.
        most = min(stop - start, draw.choice((16, 64, 1 << 12)))
        at = start + min(draw.randrange(most), stop - start - 1)
        if draw.random() < 0.7:
            at -= (at - start) % width
        old = int.from_bytes(changed[at : at + width], "little")
        new = number(draw, old)
        if width == 8 and draw.random() < 0.5:
            new = draw.choice(structures)[0] + draw.choice((0, 0, 0, 8, -8, 1))
        elif draw.random() < 0.2:
            source = draw.choice(structures)[0]
            new = int.from_bytes(content[source : source + width], "little")
        changed[at : at + width] = (new % 256**width).to_bytes(width, "little")
    if draw.random() < 0.95:
        for start, stop, place in touched:
            if place is not None:
                changed[start + place : start + place + 4] = _sum_of(bytes(changed[start:stop]), place)
    if draw.random() < 0.1:
        changed = changed[: draw.randrange(len(changed))] if draw.random() < 0.5 else changed + bytes(8)
    return {name: bytes(changed)}
