"""An encoder of TensorFlow's tables, and of protobuf, for what TensorFlow never writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cramjam
import crc32c

MAGIC = bytes.fromhex("57fb808b247547db")


class Tables:
    """An encoder of the table format and of protobuf, in which a test can say anything, with valid checksums."""

    @staticmethod
    def varint(value: int) -> bytes:
        value %= 1 << 64
        groups = bytearray()
        while value >= 0x80:
            groups.append(0x80 | value & 0x7F)
            value >>= 7
        return bytes([*groups, value])

    @classmethod
    def field(cls, number: int, value: int | bytes) -> bytes:
        if isinstance(value, int):
            return cls.varint(number << 3) + cls.varint(value)
        return cls.varint(number << 3 | 2) + cls.varint(len(value)) + value

    @classmethod
    def shape(cls, *dimensions: int) -> bytes:
        return b"".join(cls.field(2, cls.field(1, size)) for size in dimensions)

    @classmethod
    def entry(cls, data: bytes, dtype: int = 1, shape: tuple[int, ...] = (), **changes: int) -> bytes:
        """A BundleEntryProto for `data` at byte 0 of shard 0, or as `changes` say."""
        numbers = {"shard": 0, "offset": 0, "size": len(data), "crc": cls.masked_crc(data)} | changes
        body = cls.field(1, dtype) + cls.field(2, cls.shape(*shape))
        body += b"".join(cls.field(3 + i, numbers[name]) for i, name in enumerate(("shard", "offset", "size")))
        return body + cls.varint(6 << 3 | 5) + numbers["crc"].to_bytes(4, "little")

    @staticmethod
    def masked_crc(data: bytes) -> int:
        crc = crc32c.crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)

    @classmethod
    def block(cls, entries: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A block in which each key stands whole."""
        body = b"".join(b"\0" + cls.varint(len(k)) + cls.varint(len(v)) + k + v for k, v in entries)
        return body + bytes(4) + (1).to_bytes(4, "little")

    @classmethod
    def seal(cls, content: bytes, kind: int = 0) -> bytes:
        """The block with its compression type and checksum."""
        return content + bytes([kind]) + cls.masked_crc(content + bytes([kind])).to_bytes(4, "little")

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[bytes, bytes, int]], index_kind: int = 0) -> bytes:
        """A table of (last key, content, compression type) blocks."""
        body, index = b"", []
        for key, content, kind in blocks:
            index.append((key, cls.varint(len(body)) + cls.varint(len(content))))
            body += cls.seal(content, kind)
        tail = []
        for content, kind in ((cls.block([]), 0), (cls.block(index), index_kind)):
            stored = bytes(cramjam.snappy.compress_raw(content)) if kind else content
            tail.append(cls.varint(len(body)) + cls.varint(len(stored)))
            body += cls.seal(stored, kind)
        return body + b"".join(tail).ljust(40, b"\0") + MAGIC

    @classmethod
    def table(cls, entries: Mapping[bytes, bytes], *, snappy: bool = False, block_entries: int = 3) -> bytes:
        blocks = []
        pairs = list(entries.items())
        for start in range(0, len(pairs), block_entries):
            group = pairs[start : start + block_entries]
            content = cls.block(group)
            if snappy:
                content = bytes(cramjam.snappy.compress_raw(content))
            blocks.append((group[-1][0], content, int(snappy)))
        return cls.from_blocks(blocks, int(snappy))

    @classmethod
    def v2(cls, prefix: Path, entries: Mapping[str, bytes], data: bytes, *, shards: int = 1, endian: int = 0) -> str:
        """Write a V2 checkpoint of one shard."""
        header = cls.field(1, shards) + cls.field(2, endian)
        table = {b"": header} | {name.encode(): value for name, value in sorted(entries.items())}
        prefix.with_name(prefix.name + ".index").write_bytes(cls.table(table))
        prefix.with_name(prefix.name + f".data-00000-of-{shards:05d}").write_bytes(data)
        return str(prefix)
