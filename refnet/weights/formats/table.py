"""The sorted table of TensorFlow's checkpoints: a V2 ``.index`` file, or a whole V1 file.

Source: ``tensorflow/core/lib/io/table_format.txt``; the blocks are LevelDB's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

from refnet.errors import CorruptError, FormatError, LimitError
from refnet.weights.formats.protobuf import read_varint, write_varint
from refnet_kernels.system.forks import once

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")

_FOOTER_BYTES = 48
# Compression type and checksum after each block.
_TRAILER_BYTES = 5
_RAW, _SNAPPY = 0, 1
# TensorFlow writes a whole key every 16 entries. Between them a key can be as long as all the keys before it,
# so honest keys together are at most 16 times as long as their block.
_RESTART_INTERVAL = 16
#: Entries of a table: one can take four bytes of a file and hundreds as objects, and no network has so many variables.
MAX_ENTRIES = 1 << 17
# The densest element of snappy copies 64 bytes and takes three.
_SNAPPY_COPY_BYTES, _SNAPPY_ELEMENT_BYTES = 64, 3


class _Handle(NamedTuple):
    offset: int
    size: int


@once
def _crc32c() -> ModuleType:
    import crc32c  # takes as long to import as all of refnet

    return crc32c


@once
def _cramjam() -> ModuleType:
    import cramjam  # only a TF1-era checkpoint needs it

    return cramjam


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum that TensorFlow stores: CRC-32C, rotated right by 15 bits, plus a constant.

    Parameters
    ----------
    data : bytes or memoryview

    Returns
    -------
    int
        Of 32 bits.
    """
    crc: int = _crc32c().crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> dict[bytes, memoryview]:
    """All the entries of a table, in order.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    dict of bytes to memoryview
        The keys are strictly increasing; a value is a view of `data`, or of the decompressed block.

    Raises
    ------
    FormatError, CorruptError, LimitError
        The file breaks the format, fails a checksum, or expands beyond what its size justifies.
    """
    if len(data) < _FOOTER_BYTES or not data.endswith(MAGIC):
        raise FormatError("the footer of a TensorFlow table is missing: the file is cut off, or of another format.")
    view = memoryview(data)
    footer = view[-_FOOTER_BYTES:]
    _metaindex, position = _read_handle(footer, 0)
    index, _ = _read_handle(footer, position)
    table: dict[bytes, memoryview] = {}
    last_key, end = b"", 0
    for _, value in _entries(_block(view, index)):
        handle, _ = _read_handle(value, 0)
        if handle.offset < end:
            raise FormatError("blocks of the table overlap.")
        end = handle.offset + handle.size + _TRAILER_BYTES
        for key, entry in _entries(_block(view, handle)):
            if table and key <= last_key:
                raise FormatError(f"the keys of the table are not in increasing order at {key!r}.")
            if len(table) >= MAX_ENTRIES:
                raise LimitError(f"the table has more than {MAX_ENTRIES} entries.")
            table[key] = entry
            last_key = key
    return table


def write_table(entries: Mapping[bytes, bytes]) -> bytes:
    """Encode a table, sorted by its keys, as one block that is not compressed.

    Parameters
    ----------
    entries : mapping of bytes to bytes

    Returns
    -------
    bytes
    """
    pairs = sorted(entries.items())
    content, handles = b"", []
    index_key = pairs[-1][0] if pairs else b""
    for block in (_write_block(pairs), _write_block([])):
        handles.append(write_varint(len(content)) + write_varint(len(block)))
        content += _seal(block)
    data, metaindex = handles
    index = _write_block([(index_key, data)])
    footer = metaindex + write_varint(len(content)) + write_varint(len(index))
    return content + _seal(index) + footer.ljust(_FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


def _write_block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block that has every key in full, so a search can start at any of them."""
    content, restarts = bytearray(), []
    for key, value in pairs:
        restarts.append(len(content))
        content += write_varint(0) + write_varint(len(key)) + write_varint(len(value)) + key + value
    # The format needs one even if there are no entries.
    restarts = restarts or [0]
    return bytes(content) + b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))


def _seal(block: bytes) -> bytes:
    """The block with its compression type and checksum."""
    content = block + bytes([_RAW])
    return content + masked_crc32c(content).to_bytes(4, "little")


def _read_handle(buffer: memoryview, position: int) -> tuple[_Handle, int]:
    offset, position = read_varint(buffer, position)
    size, position = read_varint(buffer, position)
    return _Handle(offset, size), position


def _block(data: memoryview, handle: _Handle) -> memoryview:
    """The checked and decompressed contents of a block."""
    stop = handle.offset + handle.size
    if stop + _TRAILER_BYTES > len(data) - _FOOTER_BYTES:
        raise CorruptError(
            f"a block takes {handle.size} bytes at {handle.offset}, beyond the end of the table: it is damaged."
        )
    stored = int.from_bytes(data[stop + 1 : stop + _TRAILER_BYTES], "little")
    found = masked_crc32c(data[handle.offset : stop + 1])
    if found != stored:
        raise CorruptError(
            f"the block at byte {handle.offset} of the table has the checksum {found:#010x} instead of the stored "
            f"{stored:#010x}: the file is damaged.",
            expected=stored,
            found=found,
        )
    content = data[handle.offset : stop]
    if data[stop] == _RAW:
        return content
    if data[stop] == _SNAPPY:
        return _decompress(content)
    raise FormatError(f"a block of the table has the unknown compression type {data[stop]}.")


def _decompress(content: memoryview) -> memoryview:
    declared, _ = read_varint(content, 0)
    if declared * _SNAPPY_ELEMENT_BYTES > len(content) * _SNAPPY_COPY_BYTES:
        raise LimitError(f"a block of {len(content)} bytes claims to expand to {declared}, more than snappy can.")
    try:
        return memoryview(bytes(_cramjam().snappy.decompress_raw(content)))
    except _cramjam().DecompressionError as error:
        raise CorruptError(f"a block cannot be decompressed: {error}.") from error


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The (key, value) pairs of a block; a key shares a prefix with the one before it."""
    restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 * (restarts + 1)
    if stop < 0:
        raise FormatError("a block of the table is shorter than its list of restart points.")
    key, position, key_bytes = b"", 0, 0
    while position < stop:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        size, position = read_varint(block, position)
        if shared > len(key) or position + unshared + size > stop:
            raise FormatError("an entry of the table runs past the end of its block.")
        key_bytes += shared + unshared
        if key_bytes > _RESTART_INTERVAL * len(block):
            raise LimitError("the keys of a block expand beyond what TensorFlow writes.")
        key = key[:shared] + bytes(block[position : position + unshared])
        position += unshared
        yield key, block[position : position + size]
        position += size
