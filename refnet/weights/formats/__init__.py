"""Weights files: their formats and their tensors; one module and one row per format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from refnet.errors import ConfigError, FormatError
from refnet.files import regular_file_size
from refnet.weights.formats import shards, tf_checkpoint, tf_checkpoint_writer
from refnet.weights.formats.format import HEAD_BYTES, Format, Writer
from refnet.weights.formats.later import later
from refnet.weights.formats.loaded import Loaded, naming
from refnet_kernels.system.forks import making

__all__ = [
    "FORMATS",
    "Loaded",
    "config_directory",
    "files_written",
    "is_checkpoint",
    "naming",
    "read",
    "write",
]


def _later(module: str, *starts: bytes, at: int = 0, name: str = "FORMAT") -> Format:
    """The row of a module that is imported when a file can be of its format: one of these bytes is where it starts."""
    return later(Format, f"{__name__}.{module}", lambda path, head: head.startswith(starts, at), name)


_ZIP = b"PK"
#: The first that fits a file reads it.
FORMATS: tuple[Format, ...] = (
    tf_checkpoint.FORMAT._replace(writer=tf_checkpoint_writer.WRITER),
    _later("pytorch", _ZIP, b"\x80"),
    _later("hdf5", b"\x89HDF"),
    _later("hdf5", _ZIP, name="ARCHIVE_FORMAT"),
    _later("npz", _ZIP),
    _later("safetensors", b"{", at=8),
    _later("onnx", b"\x08"),
)


def read(path: str | os.PathLike[str], averages: bool = False) -> Loaded:
    """Read a weights file. The format is detected by the content, not by the name.

    Parameters
    ----------
    path : path-like
        A safetensors file, an ``.npz``, PyTorch's ``.pth``, ``.pt`` or ``.bin``, an ``.onnx``, Keras' ``.h5``,
        ``.weights.h5`` or ``.keras``, a V1 checkpoint, or a V2 checkpoint by its prefix or any of its files
        (``.index``, ``.meta``, ``.data-SSSSS-of-NNNNN``); or a directory with a ``checkpoint`` file or exactly one
        checkpoint, or as Hugging Face's and Keras' hubs have them; an index of shards (``.index.json``), or the
        ``checkpoint`` file itself.
    averages : bool
        Whether to take averages of the weights from a format that keeps them apart: see `Loaded.averaged`.

    Returns
    -------
    Loaded
        The numeric tensors in the file's own dtypes.

    Raises
    ------
    FormatError
        The file has a format that refnet does not read, or is malformed.
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
    file = _file(name)
    if shards.is_index(file, _head(file)):
        with naming(file):
            return shards.read_shards(file, partial(read, averages=averages))
    found = _format(file)
    if found is None and tf_checkpoint.is_companion(file):
        file = tf_checkpoint.find(file)
        found = _format(file)
    if found is None:
        raise _unknown(file)
    with naming(file):
        if averages and found.read_averages is not None:
            return found.read_averages(file)._replace(averaged=True)
        return found.read(file)


def _file(path: str) -> str:
    """The file that a path means: itself, or one in a directory, or that of a checkpoint."""
    if os.path.isdir(path):
        return shards.find(path) or tf_checkpoint.find(path)
    if tf_checkpoint.is_state(path):
        return tf_checkpoint.find(os.path.dirname(path) or ".")
    return path if os.path.exists(path) else tf_checkpoint.find(path)


def config_directory(path: str) -> str | None:
    """The directory in which files of configuration can describe the weights in a file.

    Parameters
    ----------
    path : str
        As for `read`.

    Returns
    -------
    str or None
        None: the file does not have one of the names that Hugging Face and timm give to weights in a directory.
    """
    file = (shards.find(path) or "") if os.path.isdir(path) else path
    return (os.path.dirname(file) or ".") if os.path.basename(file) in shards.CONFIGURED else None


#: How the names of TensorFlow's formats start.
TF_CHECKPOINT = tf_checkpoint.FORMAT_START


def is_checkpoint(path: str) -> bool:
    """Whether `write` writes a TensorFlow checkpoint for this path.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    return tf_checkpoint_writer.WRITER.fits(path)


def files_written(path: str) -> list[str]:
    """The files that `write` writes for this path.

    Parameters
    ----------
    path : str

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        The name does not end as the files that refnet writes do.
    """
    return _writer(path).files(path)


def _writer(path: str) -> Writer:
    writers = [entry.writer for entry in FORMATS if entry.writer is not None]
    found = next((writer for writer in writers if writer.fits(path)), None)
    if found is None:
        suffixes = _enumerated([writer.suffix for writer in writers], "or")
        raise ConfigError(f"The file to write is {path}; its name can end in {suffixes}.", found=path)
    return found


def _enumerated(names: list[str], word: str) -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write weights in the format given by the end of the name, whole or not at all.

    Parameters
    ----------
    path : path-like
        It ends in ``.npz``, in ``.safetensors``, or as the prefix of a TensorFlow checkpoint (V2) in ``.ckpt`` or
        ``.ckpt-1234``.
    tensors : mapping of str to ndarray
    metadata : mapping of str to Any
        What is stored beside the tensors; JSON must be able to hold it.

    Raises
    ------
    ConfigError
        The name does not end so or is a directory's, or a tensor's name or the metadata cannot be written.
    DtypeError
        A tensor does not hold integers or floats.
    """
    target = os.fsdecode(path)
    writer = _writer(target)
    for file in writer.files(target):
        if os.path.isdir(file):
            raise ConfigError(f"{file} is a directory; give the path of a file to write.", found=file)
    writer.write(target, tensors, metadata)


def _format(path: str) -> Format | None:
    """The format of a file, by its content."""
    head = _head(path)
    found = next((entry for entry in FORMATS if entry.fits(path, head)), None)
    if found is None and head and _foreign(path, head) is None:
        return next((f for f in FORMATS if f.known_by_suffix and path.endswith(f.known_by_suffix)), None)
    return found


def _foreign(path: str, head: bytes) -> str | None:
    """What a file is that refnet does not read, and what to do."""
    with making:
        from refnet.weights.formats.foreign import foreign

    return foreign(path, head)


def _head(path: str) -> bytes:
    regular_file_size(path)
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


def _unknown(path: str) -> FormatError:
    head = _head(path)
    if not head:
        return FormatError(f"{path}: the file is empty.")
    guess = _foreign(path, head) or "of an unknown format"
    return FormatError(
        f"{path}: the file is cut off, or it is {guess}. "
        f"refnet reads {_enumerated([entry.title for entry in FORMATS], 'and')}."
    )
