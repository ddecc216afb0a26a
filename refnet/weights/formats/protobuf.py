"""The wire format of Protocol Buffers, as far as TensorFlow's checkpoints and ONNX use it, with every bound checked.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refnet.errors import FormatError, LimitError

# 64 bits in groups of seven.
_MAX_VARINT_BYTES = 10

# A field can take two bytes of a file and two hundred as an object. The largest honest message is the list of a
# checkpoint's variables.
_MAX_FIELDS = 1 << 17

Fields = dict[int, list["int | memoryview"]]


def read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """Read an unsigned varint.

    Parameters
    ----------
    buffer : memoryview
    position : int

    Returns
    -------
    value : int
    position : int
        The one after the varint.

    Raises
    ------
    FormatError
        It is cut off, or has more than 64 bits.
    """
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position >= len(buffer):
            raise FormatError("a varint is cut off.")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 2**64:
                raise FormatError("a varint does not fit in 64 bits.")
            return value, position
    raise FormatError(f"a varint is longer than {_MAX_VARINT_BYTES} bytes.")


def read_packed_varints(buffer: memoryview) -> np.ndarray:
    """Read all the varints of a packed field.

    Parameters
    ----------
    buffer : memoryview

    Returns
    -------
    uint64 array

    Raises
    ------
    FormatError
        One is cut off, or too long.
    """
    data = np.frombuffer(buffer, np.uint8)
    if data.size == 0:
        return np.zeros(0, np.uint64)
    stops = np.flatnonzero(data < 0x80) + 1
    if stops.size == 0 or stops[-1] != data.size:
        raise FormatError("a packed varint is cut off.")
    starts = np.concatenate(([0], stops[:-1]))
    lengths = stops - starts
    if lengths.max() > _MAX_VARINT_BYTES:
        raise FormatError(f"a varint is longer than {_MAX_VARINT_BYTES} bytes.")
    values = np.zeros(stops.size, np.uint64)
    for group in range(lengths.max()):
        longer = np.flatnonzero(lengths > group)
        values[longer] |= (data[starts[longer] + group] & 0x7F).astype(np.uint64) << np.uint64(7 * group)
    return values


def signed(value: int) -> int:
    """The int64 that an unsigned varint stands for.

    Parameters
    ----------
    value : int

    Returns
    -------
    int
    """
    return value - 2**64 if value >= 2**63 else value


def parse(buffer: memoryview) -> Fields:
    """Parse a message.

    Parameters
    ----------
    buffer : memoryview

    Returns
    -------
    dict of int to list
        The values of each field by its number: an int for varints and fixed-width fields, a memoryview for the rest.

    Raises
    ------
    FormatError
        The message is malformed.
    LimitError
        It has too many fields.
    """
    fields: Fields = {}
    for count, (number, value) in enumerate(_fields(buffer)):
        if count >= _MAX_FIELDS:
            raise LimitError(f"a protobuf message has more than {_MAX_FIELDS} fields.")
        fields.setdefault(number, []).append(value)
    return fields


def _fields(buffer: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(buffer):
        key, position = read_varint(buffer, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = read_varint(buffer, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = read_varint(buffer, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise FormatError(f"a protobuf field has the wire type {wire_type}, which refnet does not read.")
        if size > len(buffer) - position:
            raise FormatError("a protobuf field runs past the end of its message.")
        content = buffer[position : position + size]
        position += size
        yield number, content if wire_type == 2 else int.from_bytes(content, "little")


def integer(fields: Fields, number: int, default: int = 0) -> int:
    """The last value of an integer field.

    Parameters
    ----------
    fields : dict of int to list
    number : int
    default : int
        The value if the field is absent.

    Returns
    -------
    int

    Raises
    ------
    FormatError
        The field is not an integer.
    """
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise FormatError(f"protobuf field {number} is not the integer that it should be.")
    return value


def messages(fields: Fields, number: int) -> list[memoryview]:
    """All the values of a field of bytes, strings, messages or packed numbers.

    Parameters
    ----------
    fields : dict of int to list
    number : int

    Returns
    -------
    list of memoryview

    Raises
    ------
    FormatError
        The field is an integer.
    """
    return [_bytes(value, number) for value in fields.get(number, [])]


def write_varint(value: int) -> bytes:
    """Encode a varint.

    Parameters
    ----------
    value : int
        Of 64 bits, without a sign.

    Returns
    -------
    bytes
    """
    groups = bytearray()
    while value >= 0x80:
        groups.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*groups, value])


def write_field(number: int, value: int | bytes) -> bytes:
    """Encode a field.

    Parameters
    ----------
    number : int
    value : int or bytes
        A varint, or a string or message, which gets its length.

    Returns
    -------
    bytes
    """
    if isinstance(value, int):
        return write_varint(number << 3) + write_varint(value)
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def write_fixed32(number: int, value: int) -> bytes:
    """Encode a field of four bytes.

    Parameters
    ----------
    number, value : int

    Returns
    -------
    bytes
    """
    return write_varint(number << 3 | 5) + value.to_bytes(4, "little")


def _bytes(value: int | memoryview, number: int) -> memoryview:
    if isinstance(value, int):
        raise FormatError(f"protobuf field {number} is not the byte string that it should be.")
    return value
