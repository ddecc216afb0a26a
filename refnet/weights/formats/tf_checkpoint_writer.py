"""Writing TensorFlow checkpoints, V2: one shard of raw bytes, and a table with the place of each tensor.

Sources: TensorFlow's ``core/util/tensor_bundle/tensor_bundle.cc`` and ``core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.errors import ConfigError
from refnet.files import written_together
from refnet.weights.formats.format import Writer
from refnet.weights.formats.loaded import METADATA_NAME, json_document, writable
from refnet.weights.formats.protobuf import write_field, write_fixed32
from refnet.weights.formats.table import MAX_ENTRIES, masked_crc32c, write_table
from refnet.weights.formats.tf_checkpoint import NUMBERS
from refnet.weights.formats.tf_objects import is_object_based

_PREFIX = re.compile(r"\.ckpt(-[0-9]+)?\Z")
# BundleHeaderProto: num_shards 1, endianness LITTLE (0, so left out), version {producer: 1}.
_HEADER = write_field(1, 1) + write_field(3, write_field(1, 1))


def is_prefix(path: str) -> bool:
    """Whether a path is named as the prefix of a checkpoint to write: it ends in ``.ckpt`` or ``.ckpt-1234``.

    Parameters
    ----------
    path : str

    Returns
    -------
    bool
    """
    return _PREFIX.search(path) is not None


def files_of(prefix: str) -> list[str]:
    """The files of a checkpoint of one shard.

    Parameters
    ----------
    prefix : str

    Returns
    -------
    list of str
        In the order in which they are put in place.
    """
    return [f"{prefix}.data-00000-of-00001", f"{prefix}.index"]


def write_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write a V2 checkpoint that TensorFlow reads too, whole or not at all.

    The index is put in place last: until then there is no checkpoint, or an old index whose checksums do not match the
    new data. The same tensors and metadata give the same bytes.

    Parameters
    ----------
    path : path-like
        The prefix; it ends in ``.ckpt`` or ``.ckpt-1234``. Existing files are replaced once both new ones are complete
        and on the disk.
    tensors : mapping of str to ndarray
        Integers or floats, of any layout.
    metadata : mapping of str to Any
        What JSON can hold; stored as the uint8 tensor ``__refnet__``, which is left out if there are none.

    Raises
    ------
    ConfigError
        `path` does not end so or exists itself, a name cannot be written, or JSON cannot hold `metadata`.
    DtypeError
        A tensor does not hold integers or floats.
    """
    prefix = os.fsdecode(path)
    if not is_prefix(prefix):
        raise ConfigError(
            f"the checkpoint to write is {prefix}; its prefix must end in .ckpt or .ckpt-1234.", found=prefix
        )
    if os.path.lexists(prefix):
        raise ConfigError(
            f"{prefix} exists, and would hide a checkpoint of that prefix, which is not a file itself; "
            "give another name.",
            found=prefix,
        )
    checked = {name: writable(name, tensor) for name, tensor in tensors.items()}
    arrays = {_key(name): tensor for name, tensor in checked.items()}
    if metadata:
        arrays[METADATA_NAME.encode()] = np.frombuffer(json_document(metadata), np.uint8)
    if len(arrays) >= MAX_ENTRIES:
        raise ConfigError(f"there are {len(arrays)} tensors; a checkpoint can hold {MAX_ENTRIES - 1}.")
    with written_together(*files_of(prefix)) as (data, index):
        table, offset = {b"": _HEADER}, 0
        for key, array in sorted(arrays.items()):
            content = array.reshape(-1).view(np.uint8).data
            data.write(content)
            table[key] = _entry(array, offset, masked_crc32c(content))
            offset += array.nbytes
        index.write(write_table(table))


def _key(name: str) -> bytes:
    """The key of a tensor. It cannot be the header's, or be like the keys of slices, or of object-based checkpoints."""
    if not name or name.startswith("\0") or name == METADATA_NAME or is_object_based([name]):
        raise ConfigError(f"tensor {name!r}: a checkpoint cannot hold a tensor of this name.", tensor=name)
    return name.encode()


def _entry(array: np.ndarray, offset: int, crc: int) -> bytes:
    """The BundleEntryProto of a whole tensor in shard 0."""
    shape = b"".join(write_field(2, write_field(1, size)) for size in array.shape)
    return (
        write_field(1, NUMBERS[array.dtype.str])
        + write_field(2, shape)
        + write_field(4, offset)
        + write_field(5, array.nbytes)
        + write_fixed32(6, crc)
    )


WRITER = Writer(".ckpt", is_prefix, files_of, write_checkpoint)
