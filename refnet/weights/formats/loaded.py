"""What every reader of a format returns, and what the readers share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from refnet.checks import listed, shown
from refnet.errors import ConfigError, DtypeError, FormatError, LimitError, RefnetError, WeightsError
from refnet.resources import for_weights
from refnet.weights.conversion import Conversion
from refnet_kernels.system import pages
from refnet_kernels.system.cores import count_cores
from refnet_kernels.system.forks import Lock
from refnet_kernels.system.threads import Helpers

# NumPy 1 stops here (NumPy 2 at 64), and no tensor of a network comes near.
MAX_RANK = 32

#: The name under which each format holds what refnet stores beside the tensors.
METADATA_NAME = "__refnet__"

METADATA_MAX_BYTES = 1 << 20

# A zip archive has two bytes for the length of a name.
_NAME_MAX_BYTES = 1 << 15

# The most kinds of problems that one error lists.
_LISTED = 50

_LINE_BYTES = 64

# A browser lacks it.
_HAS_PREADV = hasattr(os, "preadv")

# Tensors that share memory are copied. Networks share a few, and some have one small tensor under many names.
_MAX_SHARING, _SMALL_BYTES = 4, 1 << 20

#: From this size on, it pays to read an array in another thread.
_LARGE_BYTES = 1 << 19

_Entry = TypeVar("_Entry")

_Result = TypeVar("_Result")

_Error = TypeVar("_Error", bound=RefnetError)


class Loaded(NamedTuple):
    """The contents of a weights file.

    Attributes
    ----------
    tensors : dict of str to ndarray
        Every numeric tensor, native-endian and C-contiguous, in the file's own dtype (bfloat16 as float32).
    format : str
        ``"TF checkpoint V2"``, ``"TF checkpoint V1"``, ``"npz"``, ``"safetensors"``, ``"PyTorch"``,
        ``"PyTorch, legacy"``, ``"Keras .h5"``, ``"Keras .weights.h5"``, ``"Keras .keras"`` or ``"ONNX"``.
    metadata : dict of str to Any
        What refnet stored beside the tensors, or the options that an ONNX graph shows; else empty.
    conversion : Conversion
        What was left out, and why, and what was converted.
    averaged : bool
        Whether the tensors are averages, which the format keeps apart from the weights themselves.
    by_graph : bool
        Whether a graph in the file says what the network is, whatever the tensors' home.
    """

    tensors: dict[str, np.ndarray]
    format: str
    metadata: dict[str, Any]
    conversion: Conversion
    averaged: bool = False
    by_graph: bool = False


class Arena:
    """One piece of memory for all the arrays of a file, in large pages, which the system provides several times faster.

    Kernels can be packed in place there.

    Parameters
    ----------
    size : int
        Bytes of all the arrays, at most.
    count : int
        How many arrays there are, at most.

    Raises
    ------
    MemoryError
        The system does not have so much memory.
    """

    def __init__(self, size: int, count: int) -> None:
        memory = pages.zeros(size + (count + 1) * _LINE_BYTES)
        self._rest = memory[-memory.ctypes.data % _LINE_BYTES :]
        self._lock = Lock()

    def take(self, nbytes: int) -> np.ndarray:
        """Take bytes that start on a cache line.

        Parameters
        ----------
        nbytes : int

        Returns
        -------
        uint8 array
            All zero.
        """
        with self._lock.held():
            taken = self._rest[:nbytes]
            self._rest = self._rest[nbytes + -nbytes % _LINE_BYTES :]
            return taken


def read_all(
    read: Callable[[_Entry], _Result], entries: Iterable[_Entry], nbytes: Callable[[_Entry], int]
) -> list[_Result]:
    """Read all entries, the large ones in threads.

    The slow parts (fresh memory, the file, its checksum) do not hold the interpreter's lock.

    Parameters
    ----------
    read : function
        From an entry to its content.
    entries : iterable
    nbytes : function
        From an entry to the approximate number of its bytes in the file.

    Returns
    -------
    list
        ``read(entry)`` for each entry, in order.

    Raises
    ------
    WeightsError
        All the problems together.
    """
    every = list(entries)
    outcomes: list[_Result | WeightsError | None] = [None] * len(every)

    def keep(number: int) -> None:
        try:
            outcomes[number] = read(every[number])
        except WeightsError as error:
            outcomes[number] = error

    large = [number for number, entry in enumerate(every) if nbytes(entry) >= _LARGE_BYTES]
    with Helpers(keep, large, count_cores() - 1) as helpers:
        for number in sorted(set(range(len(every))) - set(large)):
            keep(number)
        helpers.take_part()
    problems = [outcome for outcome in outcomes if isinstance(outcome, WeightsError)]
    raise_problems(problems)
    return cast(list[_Result], outcomes)


def read_at(file: int, start: int, content: memoryview) -> int:
    """Fill ``content`` with a file's bytes from ``start`` on. Several threads can read one file at once.

    Parameters
    ----------
    file : int
        Its descriptor.
    start : int
    content : memoryview

    Returns
    -------
    int
        How many bytes were read; fewer than asked for if the file ends.
    """
    done = 0
    while done < len(content) and (count := _read_some(file, start + done, content[done:])):
        done += count
    return done


def _read_some(file: int, start: int, content: memoryview) -> int:
    if _HAS_PREADV:
        return os.preadv(file, [content], start)
    part = os.pread(file, len(content), start)
    content[: len(part)] = part
    return len(part)


def check_shape(shape: Sequence[int], itemsize: int) -> None:
    """Refuse a shape that no array can have, even one without elements.

    Parameters
    ----------
    shape : sequence of int
    itemsize : int

    Raises
    ------
    FormatError
        It has too many dimensions, or a negative one.
    LimitError
        It takes more bytes than can be addressed.
    """
    if len(shape) > MAX_RANK:
        raise FormatError(f"it has {len(shape)} dimensions; refnet reads up to {MAX_RANK}.")
    nbytes = itemsize
    for size in shape:
        if size < 0:
            raise FormatError(f"its shape {tuple(shape)} has a negative dimension.", found=tuple(shape))
        # NumPy refuses (0, 2**62) too, so zeros count as ones.
        nbytes *= max(size, 1)
        if nbytes >= 2**63:
            raise LimitError(
                f"its shape {tuple(shape)} takes more bytes than a computer can address.", found=tuple(shape)
            )


def check_sharing(taken: int, held: int) -> None:
    """Refuse tensors that share memory so often that their copies are more likely a bomb than a network.

    Parameters
    ----------
    taken : int
        Bytes of the copies.
    held : int
        Bytes that the file holds for them.

    Raises
    ------
    LimitError
    """
    if taken > _SMALL_BYTES + _MAX_SHARING * held:
        raise LimitError(
            f"its tensors take {taken} bytes, and share the {held} that the file holds for them.",
            expected=held,
            found=taken,
        )


def float32_of_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16, the upper half of a binary32.

    Parameters
    ----------
    bits : uint16 array

    Returns
    -------
    float32 array
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def json_document(metadata: Mapping[str, Any]) -> bytes:
    """The metadata as JSON.

    Parameters
    ----------
    metadata : mapping of str to Any

    Returns
    -------
    bytes

    Raises
    ------
    ConfigError
        JSON cannot hold them, or they are too large.
    """
    try:
        document = json.dumps(dict(metadata), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the metadata cannot be written as JSON: {error}.") from error
    if len(document) > METADATA_MAX_BYTES:
        raise ConfigError(
            f"labels, recipe and options take {len(document)} bytes; a file can hold {METADATA_MAX_BYTES}.",
            expected=METADATA_MAX_BYTES,
            found=len(document),
        )
    return document


def writable(name: str, tensor: np.ndarray) -> np.ndarray:
    """The tensor as files hold it, C-contiguous and little-endian on every machine.

    Parameters
    ----------
    name : str
        Its name in an error.
    tensor : ndarray

    Returns
    -------
    ndarray

    Raises
    ------
    DtypeError
        It does not hold integers or floats of up to 64 bits.
    ConfigError
        Its name is not Unicode or too long, or its shape is none that refnet reads.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        message = f"tensor {name!r}: its name cannot be written, as it is not Unicode."
        raise ConfigError(message, tensor=name) from error
    if length > _NAME_MAX_BYTES:
        raise ConfigError(f"tensor {shown(name)}: its name has {length} bytes; it can have {_NAME_MAX_BYTES}.")
    array = np.asarray(tensor, order="C")
    try:
        check_shape(array.shape, array.itemsize)
    except WeightsError as error:
        raise ConfigError(f"tensor {name!r}: {error.message}", tensor=name) from error
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise DtypeError(f"tensor {name!r} has dtype {array.dtype}; refnet writes integers and floats.", tensor=name)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def not_numeric(dtype: object) -> str:
    """The reason why a tensor of this dtype is left out.

    Parameters
    ----------
    dtype : object

    Returns
    -------
    str
    """
    return f"{dtype} is not a numeric type that refnet reads"


def raise_problems(problems: Sequence[WeightsError]) -> None:
    """Raise all problems as one error; do nothing if there are none.

    Parameters
    ----------
    problems : sequence of WeightsError

    Raises
    ------
    WeightsError
        Of the problems' common type; FormatError if they have several.
    """
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        raise first
    kind = type(first) if all(type(problem) is type(first) for problem in problems) else FormatError
    alike: dict[str, list[WeightsError]] = {}
    for problem in problems:
        alike.setdefault(_reason(problem), []).append(problem)
    lines = [f"\n  - {_together(reason, group)}" for reason, group in alike.items()]
    text = "".join(lines[:_LISTED]) + (f"\n  - and {len(lines) - _LISTED} more" if len(lines) > _LISTED else "")
    raise kind(
        f"{len(problems)} problems were found:{text}", tensor=first.tensor, expected=first.expected, found=first.found
    ) from first


def _reason(problem: WeightsError) -> str:
    """The message without the tensor that it is about."""
    cause = problem.__cause__
    return cause.message if isinstance(cause, WeightsError) else problem.message


def _together(reason: str, problems: Sequence[WeightsError]) -> str:
    """One sentence for the same problem of many tensors."""
    if len(problems) == 1:
        return problems[0].message
    contexts = [problem.message.removesuffix(f": {reason}") for problem in problems]
    return f"{reason} ({len(problems)} of them: {listed(contexts)})"


def in_context(context: str, error: _Error, *, tensor: str | None = None) -> _Error:
    """The same error with its context put before the message.

    Parameters
    ----------
    context : str
        A file, or a tensor.
    error : RefnetError
    tensor : str, optional
        The name of the tensor that the error is about.

    Returns
    -------
    RefnetError
        Of the same class.
    """
    found = type(error)(
        f"{context}: {error.message}", tensor=tensor or error.tensor, expected=error.expected, found=error.found
    )
    found.__cause__ = error
    return found


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Name the file in every error that its content leads to.

    Parameters
    ----------
    file : str

    Raises
    ------
    RefnetError
    """
    try:
        with for_weights:
            yield
    except RefnetError as error:
        raise in_context(file, error) from error
