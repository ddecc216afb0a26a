"""Weights files: which format a file is, and its tensors; one module a format."""

from __future__ import annotations

import os

from refnet.errors import FormatError, WeightsError
from refnet.formats import npz, tf_checkpoint
from refnet.formats.loaded import Loaded, in_context, regular_file_size
from refnet.formats.npz import write_npz

__all__ = ["Loaded", "read", "write_npz"]

# What people are likely to have in hand instead.
_FOREIGN = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x80\x02": "a pickle, which refnet never loads",
    b"\x93NUMPY": "a single NumPy array: weights are many, saved by numpy.savez",
}


def read(path: str | os.PathLike[str]) -> Loaded:
    """Read a weights file, whatever its name says: the format is known by the content.

    Parameters
    ----------
    path : path-like
        An ``.npz``, a V1 checkpoint, or a V2 checkpoint by its prefix or any of its files (``.index``, ``.meta``,
        ``.data-SSSSS-of-NNNNN``); or a directory with a ``checkpoint`` file or exactly one checkpoint.

    Returns
    -------
    Loaded
        The numeric tensors in the file's own dtypes.

    Raises
    ------
    FormatError
        No format that refnet reads, or malformed.
    CorruptError
        A checksum differs, or a part is missing.
    LimitError
        The file claims more memory than its size justifies.
    DtypeError
        An ``.npz`` holds Python objects or records.
    FileNotFoundError, PermissionError
        As the system raises them.
    """
    name = os.fsdecode(path)
    is_file = os.path.exists(name) and not os.path.isdir(name)
    file = name if is_file else tf_checkpoint.find(name)
    if not _is_known(file) and tf_checkpoint.is_companion(file):
        file = tf_checkpoint.find(file)
    try:
        if tf_checkpoint.is_table(file):
            return tf_checkpoint.read_checkpoint(file)
        if _head(file) in npz.MAGICS:
            return npz.read_npz(file)
    except WeightsError as error:
        raise in_context(file, error) from error
    raise _unknown(file)


def _is_known(path: str) -> bool:
    return regular_file_size(path) > 0 and (_head(path) in npz.MAGICS or tf_checkpoint.is_table(path))


def _head(path: str) -> bytes:
    regular_file_size(path)
    with open(path, "rb") as file:
        return file.read(4)


def _unknown(path: str) -> FormatError:
    head = _head(path)
    if not head:
        return FormatError(f"{path}: the file is empty.")
    guess = next((text for magic, text in _FOREIGN.items() if head.startswith(magic[:4])), "of an unknown format")
    return FormatError(
        f"{path}: the file is {guess}, or it is cut off. refnet reads TensorFlow checkpoints (V1 and V2) and .npz."
    )
