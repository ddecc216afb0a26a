"""A format of weights files, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.weights.formats.loaded import Loaded

#: So many of a file's first bytes are looked at: enough for all magic numbers, that of a tar archive too.
HEAD_BYTES = 512


class Writer(NamedTuple):
    """How a format is written.

    Attributes
    ----------
    suffix : str
        The end of such files' names, in messages.
    fits : callable
        Tells whether a path names a file of this format.
    files : callable
        Gives the files that are written for a path.
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
        Its name in messages.
    fits : callable
        Tells from a file's path and its first bytes whether it has this format.
    read : callable
        Reads a file.
    writer : Writer, optional
        None: refnet does not write it.
    read_averages : callable, optional
        Reads a file's averages of the weights. None: this format keeps them beside the weights, by names of their own.
    known_by_suffix : str, optional
        For a format without a magic number: a file whose content fits no format counts as this one if its name ends
        so, and the error can then name the damage.
    """

    title: str
    fits: Callable[[str, bytes], bool]
    read: Callable[[str], Loaded]
    writer: Writer | None = None
    read_averages: Callable[[str], Loaded] | None = None
    known_by_suffix: str | None = None


def by_suffix(suffix: str, write: Callable[[str, Mapping[str, np.ndarray], Mapping[str, Any]], None]) -> Writer:
    """The writer of a format that is one file, known by the end of its name.

    Parameters
    ----------
    suffix : str
    write : callable
        See `Writer`.

    Returns
    -------
    Writer
    """
    return Writer(suffix, lambda path: path.endswith(suffix), lambda path: [path], write)
