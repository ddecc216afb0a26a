"""What comes of one input: a row, its canonical bytes, and one hash for all rows of a job.

The canonical bytes of a row, all numbers little-endian::

    text(t)  = the length of t in UTF-8 as an unsigned integer of 8 bytes, then t in UTF-8
    numbers  = text(name) text(dtype) rank shape[0] .. shape[rank - 1] values     sizes in 8 bytes, values in C order
    texts    = text(name) text("text") count text(values[0]) ..
    result   = text(id) text("result") field ..                                   the fields in the order of the job
    error    = text(id) text("error") text(type)

``dtype`` is "int32", "float32" or "float64". The digest of a row is the SHA-256 of its bytes, and the hash of a job is
the SHA-256 of the digests of its rows, 32 bytes each, ordered by the ids' UTF-8. An error's message is not part of it:
it says where the input was, and what the decoder had to say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import listed, shown
from refnet.errors import InputError

#: The columns that every row has, whatever is wanted.
COLUMNS = ("id", "digest", "error", "message")
TEXT = "text"
_DTYPES = {"int32": "<i4", "float32": "<f4", "float64": "<f8"}


class Field(NamedTuple):
    """A field of the rows.

    Attributes
    ----------
    name : str
    dtype : {"int32", "float32", "float64", "text"}
    has_shape : bool
        Whether the values have several axes, so that a column with their shape stands beside them.
    """

    name: str
    dtype: str
    has_shape: bool = False

    @property
    def shape_name(self) -> str:
        """The column of the shape."""
        return f"{self.name}_shape"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return (self.name, self.shape_name) if self.has_shape else (self.name,)


class Failure(NamedTuple):
    """Why an input gave no result.

    Attributes
    ----------
    type : str
        The name of the exception's class.
    message : str
    """

    type: str
    message: str


class Row(NamedTuple):
    """What came of one input.

    Attributes
    ----------
    id : str
    digest : str
        64 hexadecimal digits.
    values : sequence or None
        For each field an array, or a sequence of strings; None after a failure.
    failure : Failure or None
    """

    id: str
    digest: str
    values: Sequence[Any] | None
    failure: Failure | None

    def as_dict(self, fields: Sequence[Field]) -> dict[str, Any]:
        """The columns by name, with lists for arrays; None for the fields of a failure."""
        type, message = self.failure or (None, None)
        found: dict[str, Any] = {"id": self.id, "digest": self.digest, "error": type, "message": message}
        for field, value in zip(fields, self.values or [None] * len(fields), strict=True):
            is_array = isinstance(value, np.ndarray)
            found[field.name] = value.reshape(-1).tolist() if is_array else value
            if field.has_shape:
                found[field.shape_name] = list(value.shape) if is_array else None
        return found


def id_of_path(path: str) -> str:
    """The path as an id. One that is not UTF-8 begins with two slashes, which no other one does, and has escapes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "//" + os.fsencode(path).decode("utf-8", "backslashreplace")
    return path


def check_ids(ids: Iterable[str]) -> None:
    """Refuse ids that no row can have.

    Raises
    ------
    InputError
    """
    for id in ids:
        try:
            id.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"The id {shown(id)} is not Unicode.", found=id) from error
        if "\0" in id:
            raise InputError(f"The id {shown(id)} has the character NUL, which ids cannot have.", found=id)


def make_row(id: str, fields: Sequence[Field], outcome: Sequence[Any] | Failure) -> Row:
    """The row of an input, with its digest."""
    if isinstance(outcome, Failure):
        # A path in a message need not be UTF-8.
        message = outcome.message.encode("utf-8", "backslashreplace").decode()
        return Row(id, _digest([_text(id), _text("error"), _text(outcome.type)]), None, Failure(outcome.type, message))
    parts = [_text(id), _text("result")]
    for field, value in zip(fields, outcome, strict=True):
        parts.append(_text(field.name) + _text(field.dtype))
        if field.dtype == TEXT:
            parts += [_number(len(value)), *map(_text, value)]
        else:
            array = np.ascontiguousarray(value, _DTYPES[field.dtype])
            parts += [_number(np.ndim(value)), *map(_number, np.shape(value)), array.tobytes()]
    return Row(id, _digest(parts), outcome, None)


def entries_of(ids: Iterable[str], digests: Iterable[str]) -> list[bytes]:
    """What the hash of a job needs of rows: about a hundred bytes for each."""
    # No id has the character NUL, so that these are in the order of the ids.
    return [id.encode() + b"\0" + bytes.fromhex(digest) for id, digest in zip(ids, digests, strict=True)]


def hash_of_rows(entries: list[bytes]) -> str:
    """The hash of a job.

    Parameters
    ----------
    entries : list of bytes
        Of all rows, in any order; they are sorted.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InputError
        Two rows have one id.
    """
    entries.sort()
    twice = [a[:-33].decode() for a, b in pairwise(entries) if a[:-32] == b[:-32]]
    if twice:
        raise InputError(f"These ids have more than one row: {listed(dict.fromkeys(twice))}.", found=twice[:8])
    sha = hashlib.sha256()
    for entry in entries:
        sha.update(entry[-32:])
    return sha.hexdigest()


def _digest(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _number(len(encoded)) + encoded
