"""What a format of weights files is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.weights.formats.loaded import Loaded


class Writer(NamedTuple):
    """How a format is written.

    Attributes
    ----------
    suffix : str
        How the names of such files end, for sentences.
    fits : callable
        Whether a path names a file of this format.
    files : callable
        The files that are made of a path.
    write : callable
        Writes tensors and metadata to a path, whole or not at all.
    """

    suffix: str
    fits: Callable[[str], bool]
    files: Callable[[str], list[str]]
    write: Callable[[str, Mapping[str, np.ndarray], Mapping[str, Any]], None]


class Format(NamedTuple):
    """A row of `refnet.weights.formats.FORMATS`.

    Attributes
    ----------
    title : str
        For sentences.
    fits : callable
        Whether a file is of this format, by its path and its first bytes.
    read : callable
        Reads a file.
    writer : Writer, optional
        None: refnet does not write it.
    known_by_suffix : str, optional
        Of a format without a magic number: where a file's content speaks for no other format, this end of its name
        counts too, so that an error can tell what is damaged.
    """

    title: str
    fits: Callable[[str, bytes], bool]
    read: Callable[[str], Loaded]
    writer: Writer | None = None
    known_by_suffix: str | None = None


def by_suffix(suffix: str, write: Callable[[str, Mapping[str, np.ndarray], Mapping[str, Any]], None]) -> Writer:
    """The writer of a format that is one file whose name ends so."""
    return Writer(suffix, lambda path: path.endswith(suffix), lambda path: [path], write)
