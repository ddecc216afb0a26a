"""Files that must be refused: what each format's tests know of them, and what holds for all.

Each format has a table of them, ``BAD``, in its test module; ``tools/bad_inputs.py`` prints them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from refnet.errors import RefnetError
from refnet.weights.formats import read
from tests.support.limits import within_limits


class BadFile(NamedTuple):
    """What writes it into a folder and tells the path to read; the error that it gives, and words of its message.

    ``read`` is what finds the error: by default the reader of the formats.
    """

    write: Callable[[Path], Path]
    error: type[RefnetError]
    message: str
    read: Callable[[Path], Any] = read


def content(data: bytes, error: type[RefnetError], message: str, name: str = "a") -> BadFile:
    """A file of these bytes."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return BadFile(write, error, message)


def check_refused(bad: BadFile, folder: Path, watch: Any) -> RefnetError:
    """The error, which names the file, and comes after little work without a look at another file."""
    path = bad.write(folder)
    with pytest.raises(bad.error, match=bad.message):
        bad.read(path)  # what Python imports for it, it has now
    prefix = str(path).removesuffix(".index")
    # An index of shards leads to the files beside it.
    own = [str(file) for file in folder.rglob("*") if str(file).startswith(prefix) or path.name.endswith(".index.json")]
    # Where a bound on the work is missing it is minutes, or all memory.
    with within_limits(), watch(*own), pytest.raises(bad.error) as caught:
        bad.read(path)
    assert type(caught.value) is bad.error
    assert re.search(bad.message, caught.value.message)
    assert prefix in caught.value.message
    return caught.value


def read_or_refuse(path: Path) -> Any:
    """What was loaded, or None where it is refused with an error that names the file."""
    refusal = str(path)
    try:
        return read(path)
    except RefnetError as error:
        refusal = error.message
    finally:
        assert str(path) in refusal
    return None


def flip(content: bytes, flips: Sequence[tuple[float, int]]) -> bytes:
    """Bytes, each at a part of the whole, combined with another byte."""
    damaged = bytearray(content)
    for where, change in flips if content else ():
        damaged[int(where * len(content))] ^= change
    return bytes(damaged)
