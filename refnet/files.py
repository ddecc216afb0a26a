"""Files: written whole or not at all, read only if they are regular, and JSON with only one meaning."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

from refnet.errors import FormatError


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces another once it is complete and on the disk.

    Parameters
    ----------
    path : str
        The file to replace; after an exception it is unchanged.

    Yields
    ------
    binary file
    """
    with written_together(path) as (file,):
        yield file


@contextlib.contextmanager
def written_together(*paths: str) -> Iterator[Sequence[IO[bytes]]]:
    """Files to write to, which replace others once all are complete and on the disk.

    A process that is killed between the moves may leave some of the new files beside some of the old ones, or the old
    ones under a temporary name.

    Parameters
    ----------
    *paths : str
        The files to replace, in this order, all in one directory; after an exception they are unchanged.

    Yields
    ------
    sequence of binary file
    """
    temporaries = [_beside(path) for path in paths]
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(temporary, "xb")) for temporary in temporaries]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        _replace_all(list(zip(temporaries, paths, strict=True)))
    except BaseException as error:
        for temporary in temporaries:
            _remove(temporary)
        if isinstance(error, OSError):
            # The caller knows the file by its own name; of a full disk the system gives none.
            by_name = dict(zip(temporaries, paths, strict=True))
            error.filename, error.filename2 = by_name.get(error.filename, error.filename or paths[0]), None
        raise
    _sync_directory(os.path.dirname(paths[0]) or ".")


def _replace_all(moves: list[tuple[str, str]]) -> None:
    """Move each file, and if one cannot be moved, undo those before it."""
    if not moves:
        return
    (temporary, path), *others = moves
    if not others:
        os.replace(temporary, path)
        return
    kept = _beside(path)
    is_there = os.path.lexists(path)
    if is_there:
        os.replace(path, kept)
    try:
        os.replace(temporary, path)
        _replace_all(others)
    except BaseException:
        if is_there:
            os.replace(kept, path)
        else:
            _remove(path)
        raise
    _remove(kept)


def _beside(path: str) -> str:
    return f"{path}.{secrets.token_hex(8)}.tmp"


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _sync_directory(directory: str) -> None:
    """Make the renaming last."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def regular_file_size(path: str) -> int:
    """The size of a regular file.

    Parameters
    ----------
    path : str

    Returns
    -------
    int
        In bytes.

    Raises
    ------
    FormatError
        It is not a regular file; reading it could block, or never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is {_kind(status.st_mode)}; it must be a regular file.")
    return status.st_size


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")


def json_object(content: bytes, what: str) -> dict[str, Any]:
    """The JSON object in a document. A key cannot occur twice, as readers differ in which value they take.

    Parameters
    ----------
    content : bytes
    what : str
        The name of the document in an error.

    Returns
    -------
    dict of str to Any

    Raises
    ------
    FormatError
        It is not a JSON object.
    """
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_whole_number
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its {what} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise FormatError(f"its {what} is not a JSON object but a {type(value).__name__}.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice")
    return result


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _whole_number(text: str) -> int:
    # Some readers make it a float, others the integer 0.
    if text == "-0":
        raise ValueError("-0 is not an integer")
    return int(text)
