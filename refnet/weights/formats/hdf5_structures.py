"""The bytes of an HDF5 file, read once each and within bounds, and what its structures have in common.

Source for this module and those beside it: the HDF5 File Format Specification, version 3.0; for checksums Bob Jenkins'
hash "lookup3".
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from refnet.errors import CorruptError, LimitError

#: The address of what is not there.
UNDEFINED = 2**64 - 1

#: All the structures of a file together, without values. As Python objects they are some ten times larger.
STRUCTURES_MAX_BYTES = 8 << 20

#: All the chunks of a file's datasets together. Each takes some microseconds.
MAX_CHUNKS = 1 << 16

_CHECKSUM_BYTES = 4
_MIXED, _FINAL = (4, 6, 8, 16, 19, 4), (14, 11, 25, 16, 4, 14, 24)
_WORD = 2**32 - 1


def damaged(reason: str) -> CorruptError:
    """The error for a file that HDF5 does not write.

    Parameters
    ----------
    reason : str
        Without a full stop.

    Returns
    -------
    CorruptError
    """
    return CorruptError(f"the HDF5 file is damaged: {reason}.")


class Extents:
    """The bytes of a file. What a sound file holds does not overlap: no more bytes are given out than there are.

    So there is an end to structures that lead back to themselves, and to values that are there many times.

    Parameters
    ----------
    read : function
        Fills a buffer from a position on, and returns how many bytes there were.
    size : int
        Of the file.
    """

    def __init__(self, read: Callable[[int, memoryview], int], size: int) -> None:
        self._read = read
        self.size = size
        self._left = size
        self._structures_left = STRUCTURES_MAX_BYTES
        self._chunks_left = MAX_CHUNKS

    def claim(self, start: int, nbytes: int) -> None:
        """Count bytes that will be read as values.

        Parameters
        ----------
        start, nbytes : int

        Raises
        ------
        CorruptError
            They lie outside the file, or there are fewer bytes in it that were not counted before.
        """
        if start + nbytes > self.size:
            raise damaged(f"it is cut off: bytes {start} to {start + nbytes} are needed, but it has {self.size}")
        self.count(nbytes)

    def count(self, nbytes: int) -> None:
        """Count bytes whose places were checked.

        Parameters
        ----------
        nbytes : int

        Raises
        ------
        CorruptError
            There are fewer bytes in the file that were not counted before.
        """
        self._left -= nbytes
        if self._left < 0:
            raise damaged("its parts overlap, or lead back to themselves")

    def count_chunks(self, chunks: int) -> None:
        """Count chunks, before the places of all of them are worked out.

        Parameters
        ----------
        chunks : int

        Raises
        ------
        LimitError
            The chunks of the file are too many.
        """
        self._chunks_left -= chunks
        if self._chunks_left < 0:
            raise LimitError(f"the datasets of the HDF5 file have more than {MAX_CHUNKS} chunks.")

    def fill(self, start: int, content: memoryview) -> None:
        """Read claimed bytes; several threads may do so at once.

        Parameters
        ----------
        start : int
        content : memoryview
            Where to.

        Raises
        ------
        CorruptError
            The file has become shorter.
        """
        if self._read(start, content) != len(content):
            raise damaged(f"it is cut off within bytes {start} to {start + len(content)}")

    def take(self, start: int, nbytes: int) -> bytes:
        """Read bytes of a structure.

        Parameters
        ----------
        start, nbytes : int

        Returns
        -------
        bytes

        Raises
        ------
        CorruptError
            As `claim` and `fill` raise it.
        LimitError
            The structures of the file are too many.
        """
        self.claim(start, nbytes)
        self._structures_left -= nbytes
        if self._structures_left < 0:
            raise LimitError(f"the structures of the HDF5 file take more than {STRUCTURES_MAX_BYTES} bytes.")
        content = bytearray(nbytes)
        self.fill(start, memoryview(content))
        return bytes(content)


class Fields:
    """The fields of a structure, in the order in which they are read.

    Parameters
    ----------
    content : bytes
    what : str
        The structure, for errors.
    """

    def __init__(self, content: bytes, what: str) -> None:
        self._content = content
        self._place = 0
        self._what = what

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return len(self._content) - self._place

    def take(self, nbytes: int) -> bytes:
        """The next bytes.

        Parameters
        ----------
        nbytes : int

        Returns
        -------
        bytes

        Raises
        ------
        CorruptError
            Fewer follow.
        """
        found = self._content[self._place : self._place + nbytes]
        if len(found) != nbytes:
            raise damaged(f"{self._what} is cut off")
        self._place += nbytes
        return found

    def number(self, nbytes: int = 8) -> int:
        """The next number without a sign.

        Parameters
        ----------
        nbytes : int

        Returns
        -------
        int
        """
        return int.from_bytes(self.take(nbytes), "little")

    def expect(self, start: bytes) -> None:
        """Take bytes that must be these.

        Parameters
        ----------
        start : bytes
            A signature, or a version.

        Raises
        ------
        CorruptError
            Others follow.
        """
        found = self.take(len(start))
        if found != start:
            raise damaged(f"{self._what} starts with {found!r}, not with {start!r}")


def take_checked(extents: Extents, start: int, nbytes: int, what: str, head: bytes = b"") -> bytes:
    """Read a structure that ends in its checksum.

    Parameters
    ----------
    extents : Extents
    start, nbytes : int
        The checksum included.
    what : str
        The structure, for errors.
    head : bytes
        What was read of it before; ``start`` and ``nbytes`` do not include it.

    Returns
    -------
    bytes
        Without the checksum.

    Raises
    ------
    CorruptError
        The checksum differs.
    """
    fields = Fields(head + extents.take(start, nbytes), what)
    content = fields.take(max(fields.left - _CHECKSUM_BYTES, 0))
    if fields.number(_CHECKSUM_BYTES) != checksum(content):
        raise damaged(f"the checksum of {what} differs")
    return content


def checksum(content: bytes) -> int:
    """Jenkins' hash: the checksum of structures, and the order of names in some trees.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    int
        Of 32 bits.
    """
    a = b = c = 0xDEADBEEF + len(content) & _WORD
    if not content:
        return c
    padded = content + bytes(-len(content) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for place in range(0, len(words), 3):
        a, b, c = a + words[place] & _WORD, b + words[place + 1] & _WORD, c + words[place + 2] & _WORD
        if place == len(words) - 3:
            break
        for bits in _MIXED:
            a = (a - c & _WORD) ^ (c << bits & _WORD | c >> 32 - bits)
            a, b, c = b, c + b & _WORD, a
    for bits in _FINAL:
        c = (c ^ b) - (b << bits & _WORD | b >> 32 - bits) & _WORD
        a, b, c = b, c, a
    return b


def columns(content: bytes, *widths: int) -> list[np.ndarray]:
    """The columns of a table of numbers without a sign.

    Parameters
    ----------
    content : bytes
        Rows, one after the other.
    *widths : int
        Bytes of each column, up to 8.

    Returns
    -------
    list of uint64 array
    """
    rows = np.frombuffer(content, np.uint8).reshape(-1, sum(widths))
    found, place = [], 0
    for width in widths:
        wide = np.zeros((len(rows), 8), np.uint8)
        wide[:, :width] = rows[:, place : place + width]
        found.append(wide.view("<u8").reshape(-1).astype(np.uint64, copy=False))
        place += width
    return found
