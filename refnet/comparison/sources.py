"""Where the arrays of a run come from: files, directories of files, goldens, and what is in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import listed, path_of, shown
from refnet.errors import GoldenError, InputError, RefnetError, WeightsError
from refnet.evidence.golden_file import Golden, read_golden
from refnet.files import naming_file, regular_file_size
from refnet.network.names import natural
from refnet.run.inputs import as_array
from refnet.weights.formats.loaded import Loaded, naming
from refnet.weights.formats.npz import MAGICS, NPY_MAGIC, read_npy, read_npz
from refnet.weights.formats.safetensors import is_safetensors, unpack

#: The name of an array that comes alone.
ALONE = "array"
_HEAD_BYTES = 16
#: The most files of a directory.
_MOST_FILES = 20_000
_SUFFIX = ".npy"
#: The key of a golden's document in the metadata of its file.
_GOLDEN = "refnet"


class Arrays(NamedTuple):
    """The arrays of a run.

    Attributes
    ----------
    title : str
        Where they come from.
    arrays : dict of str to float array
        In the order in which they were given.
    left_out : dict of str to str
        Why an array is not among them.
    roundings : dict of str to int or None
        How many roundings lie behind each, where a golden says it.
    """

    title: str
    arrays: dict[str, np.ndarray]
    left_out: dict[str, str]
    roundings: dict[str, int] | None = None


def arrays_of(source: Any, what: str) -> Arrays:
    """The arrays of a run.

    Parameters
    ----------
    source : path, Golden, mapping of str to array, or array
    what : str
        Its name in messages.

    Returns
    -------
    Arrays

    Raises
    ------
    InputError
        It cannot be used.
    FileNotFoundError, PermissionError
        As the system raises them.
    """
    if isinstance(source, Golden):
        found = _of_golden(source, "a golden")
    elif isinstance(source, str | os.PathLike):
        found = _read(path_of(source, InputError))
    elif isinstance(source, Mapping):
        found = _of_mapping(source, what)
    else:
        found = _of_mapping({ALONE: source}, what)
    if not found.arrays:
        reasons = [f"{name}: {reason}" for name, reason in found.left_out.items()]
        more = f" ({listed(reasons)})" if reasons else ""
        raise InputError(f"There are no arrays of floats to compare in {found.title}{more}.", found=reasons)
    return found


def _of_mapping(arrays: Mapping[Any, Any], what: str) -> Arrays:
    found = Arrays(what, {}, {})
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise InputError(f"The names of arrays are strings; in {what} {shown(name)} is {type(name).__name__}.")
        _put(found, name, as_array(on_host(value), f"The values of {name}"))
    return found


def on_host(value: Any) -> Any:
    """A tensor of PyTorch without its gradient, and with a dtype that NumPy has; anything else as it is."""
    if not type(value).__module__.startswith("torch"):
        return value
    value = value.detach()
    return value.float() if str(value.dtype) == "torch.bfloat16" else value


def _put(found: Arrays, name: str, array: np.ndarray) -> None:
    """Keep an array of floats, native-endian; or note why not."""
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        found.left_out[name] = f"its dtype is {array.dtype}; activations are floats of 16, 32 or 64 bits"
    elif not array.ndim:
        found.left_out[name] = "it is a number, not an array"
    elif not array.size:
        found.left_out[name] = f"its shape is {array.shape}, which has no elements"
    else:
        found.arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)


def _of_golden(golden: Golden, title: str) -> Arrays:
    if not golden.values:
        raise InputError(f"{title} holds hashes alone: record it with values, without --hashes-only.")
    roundings = {name: golden.end_points[name].roundings for name in golden.values}
    ordered = {name: golden.values[name] for name in golden.end_points if name in golden.values}
    return Arrays(title, ordered, {}, roundings)


def _read(path: str) -> Arrays:
    try:
        with naming_file(path):
            return _read_directory(path) if os.path.isdir(path) else _read_file(path)
    except (WeightsError, GoldenError) as error:
        raise _as_input_error(error) from error


def _as_input_error(error: RefnetError) -> InputError:
    return InputError(error.message, tensor=error.tensor, expected=error.expected, found=error.found)


def _read_file(path: str) -> Arrays:
    regular_file_size(path)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    with naming(path):
        if not is_safetensors(head):
            loaded = _loaded(head, path)
            return _of_tensors(path, loaded.tensors, loaded.conversion.left_out)
        contents = unpack(path)
    if _GOLDEN in contents.metadata:
        return _of_golden(read_golden(path), path)
    return _of_tensors(path, contents.tensors, contents.conversion.left_out)


def _loaded(head: bytes, path: str) -> Loaded:
    if not head:
        raise InputError("the file is empty.")
    if head.startswith(NPY_MAGIC):
        return read_npy(path)
    if head.startswith(MAGICS):
        return read_npz(path)
    raise InputError(
        "these are not activations that refnet reads: an .npz or .npy of NumPy, safetensors, a golden, or a directory "
        "of .npy files. For weights, pass --weights and --image (weights, and images= in Python)."
    )


def _of_tensors(title: str, tensors: Mapping[str, np.ndarray], left_out: Mapping[str, str]) -> Arrays:
    found = Arrays(title, {}, dict(left_out))
    for name, array in tensors.items():
        _put(found, name, array)
    return found


def pixels_in(path: str) -> np.ndarray:
    """The array of an .npy file, as images.

    Parameters
    ----------
    path : str

    Returns
    -------
    array
        Of floats, or of uint8: raw pixels.

    Raises
    ------
    InputError
        It holds something else, or is damaged.
    """
    try:
        with naming_file(path), naming(path):
            loaded = read_npy(path)
    except WeightsError as error:
        raise _as_input_error(error) from error
    for reason in loaded.conversion.left_out.values():
        raise InputError(f"{path} does not hold images: {reason}.")
    return next(iter(loaded.tensors.values()))


def _read_directory(path: str) -> Arrays:
    """The .npy files of a directory, in the order of their names and numbers."""
    names = [name for name in os.listdir(path) if name.endswith(_SUFFIX)]
    if not names:
        raise InputError(f"{path}: the directory holds no .npy files.")
    if len(names) > _MOST_FILES:
        raise InputError(f"{path}: the directory holds {len(names):,} .npy files; {_MOST_FILES:,} can be compared.")
    found = Arrays(path, {}, {})
    for name in sorted(names, key=natural):
        file = os.path.join(path, name)
        with naming(file):
            loaded = read_npy(file)
        found.left_out.update(loaded.conversion.left_out)
        for own, array in loaded.tensors.items():
            _put(found, own, array)
    return found
