"""A network in a directory as Hugging Face's and Keras' hubs have it, in one file or in several with an index.

Only files beside the index, which it names without a directory, are opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from refnet.checks import listed
from refnet.errors import CorruptError, FormatError, LimitError
from refnet.files import json_object, regular_file_size
from refnet.weights.formats.loaded import METADATA_MAX_BYTES, Loaded, naming

SUFFIX = ".index.json"
_MAP = "weight_map"
# The index of the largest network takes some hundred KB.
_MAX_BYTES = 16 * METADATA_MAX_BYTES
_MAX_SHARDS = 1024

#: The weights in Hugging Face's directories, which files of configuration may describe.
CONFIGURED = (
    "model.safetensors",
    "model.safetensors" + SUFFIX,
    "pytorch_model.bin",
    "pytorch_model.bin" + SUFFIX,
    "model.onnx",
)
#: What holds the weights in a directory; the first that is there is taken.
NAMES = (
    *CONFIGURED,
    "task.weights.h5",
    "model.weights.h5",
)


def find(directory: str) -> str | None:
    """The file that holds the weights of a directory, or the index of such files.

    Parameters
    ----------
    directory : str

    Returns
    -------
    str or None
    """
    paths = (os.path.join(directory, name) for name in NAMES)
    return next(filter(os.path.isfile, paths), None)


def is_index(path: str, head: bytes) -> bool:
    """Whether a file is the index of shards.

    Parameters
    ----------
    path : str
    head : bytes

    Returns
    -------
    bool
    """
    return path.endswith(SUFFIX) and head.lstrip().startswith(b"{")


def read_shards(path: str, read: Callable[[str], Loaded]) -> Loaded:
    """Read the files that an index names.

    Parameters
    ----------
    path : str
    read : callable
        Reads one of them.

    Returns
    -------
    Loaded
        The tensors of all, each from the file that the index names for it.

    Raises
    ------
    FormatError, CorruptError, LimitError
        The index is damaged or names files elsewhere; or as ``read`` raises them.
    FileNotFoundError
        Shards are missing; the message lists them.
    """
    size = regular_file_size(path)
    if size > _MAX_BYTES:
        raise LimitError(f"the index has {size} bytes; at most {_MAX_BYTES} are read.", found=size)
    with open(path, "rb") as file:
        places = json_object(file.read(_MAX_BYTES), "index").get(_MAP)
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise FormatError(f"the index has no {_MAP!r} from names of tensors to names of files.")
    shards = sorted(set(places.values()))
    elsewhere = [shard for shard in shards if os.path.basename(shard) != shard or not shard.strip(".") or "\0" in shard]
    if elsewhere:
        raise FormatError(f"the index names {elsewhere[0]!r}; refnet opens only files that stand beside the index.")
    if len(shards) > _MAX_SHARDS:
        raise LimitError(f"the index names {len(shards)} files; at most {_MAX_SHARDS} are read.", found=len(shards))
    directory = os.path.dirname(path)
    absent = [shard for shard in shards if not os.path.exists(os.path.join(directory, shard))]
    if absent:
        count = f"{len(absent)} of the {len(shards)} files that {path} names are missing"
        raise FileNotFoundError(2, f"{count}: {listed(absent)}; put them beside it", os.path.join(directory, absent[0]))
    result: Loaded | None = None
    for shard in shards:
        place = os.path.join(directory, shard)
        if shard.endswith(SUFFIX):
            raise FormatError(f"the index names another index, {shard!r}.")
        loaded = read(place)
        mapped = {name: tensor for name, tensor in loaded.tensors.items() if places.get(name) == shard}
        others = loaded.tensors.keys() - mapped.keys()
        with naming(place):
            if others:
                raise FormatError(f"it holds tensors that the index does not place there: {listed(sorted(others))}.")
        before = loaded if result is None else result
        result = before._replace(
            tensors=(result.tensors if result else {}) | mapped,
            conversion=replace(before.conversion, left_out=before.conversion.left_out | loaded.conversion.left_out),
        )
    if result is None:
        raise FormatError("the index names no file.")
    missing = sorted(places.keys() - result.tensors.keys() - result.conversion.left_out.keys())
    if missing:
        raise CorruptError(f"tensors are missing in the files that the index names for them: {listed(missing)}.")
    return result
