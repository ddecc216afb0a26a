"""Files: written whole or not at all, read only if they are regular, and JSON with only one meaning."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

from refnet.errors import ConfigError, FormatError, LimitError
from refnet_kernels.system.left_over import hold, remove_left_over, waited_for

#: The unit of ``st_blocks``.
_BLOCK_BYTES = 512
# Weights compress a little. What expands more than this, and is not small anyway, is a bomb.
_MAX_EXPANSION, _SMALL_BYTES = 100, 64 << 20


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

    A file that replaces another has its owner and its permissions, and a link still leads to it. A process that is
    killed between the moves may leave some of the new files beside some of the old ones, or the old ones under another
    name, ``.old``. What a killed process leaves, the next write to the same place removes.

    Parameters
    ----------
    *paths : str
        The files to replace, in this order; after an exception they are unchanged.

    Yields
    ------
    sequence of binary file

    Raises
    ------
    ConfigError
        One is a device, or something else that cannot be replaced.
    """
    targets = [os.path.realpath(path) if os.path.islink(path) else path for path in paths]
    replaced = [_status_of(target) for target in targets]
    # These take room on the disk.
    _remove_left_over(targets, "tmp")
    temporaries: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(_temporary(target, temporaries, private=status is not None))
                for target, status in zip(targets, replaced, strict=True)
            ]
            yield files
            for file, status in zip(files, replaced, strict=True):
                file.flush()
                if status is not None:
                    _make_like(file.fileno(), status)
                os.fsync(file.fileno())
            # Each is open, and so locked, until it has its own name.
            with _alone(targets):
                _replace_all(list(zip(temporaries, targets, strict=True)))
    except BaseException as error:
        for temporary in temporaries:
            _remove(temporary)
        if isinstance(error, OSError):
            # The caller knows the file by its own name; of a full disk the system gives none.
            by_name = dict(zip(temporaries, paths, strict=False))
            error.filename = by_name.get(error.filename, error.filename or paths[0])
            if error.filename2 is not None:
                del error.filename2
        raise
    for directory in sorted({os.path.dirname(target) for target in targets}):
        _sync_directory(directory or ".")
    # Until now, these may have been all that was left of the old files.
    _remove_left_over(targets, "old")


def check_target(path: str, what: str) -> None:
    """Refuse, before any work, a file that could not be written.

    Parameters
    ----------
    path : str
    what : str
        What is to be written, for errors: "page".

    Raises
    ------
    ConfigError
        It is there and is not a file, or there is no such directory.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"The {what} cannot be written to {path}: it is there, and is not a file.", found=path)
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise ConfigError(f"The {what} cannot be written to {path}: there is no such directory.", found=path)


def _status_of(path: str) -> os.stat_result | None:
    """What is known of a file that is to be replaced; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is {_kind(status.st_mode)}; give the path of a file to write.", found=path)
    return status


def _open_private(path: str, flags: int) -> int:
    """Open a new file that only its owner may read: others may not have been allowed to read the one before it."""
    return os.open(path, flags, 0o600)


def _make_like(file: int, status: os.stat_result) -> None:
    """Give a file the owner and the permissions of another one, as far as the system allows it."""
    own = os.fstat(file)
    with contextlib.suppress(OSError):
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(file, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):
        os.fchmod(file, status.st_mode & 0o777)


@contextlib.contextmanager
def _temporary(path: str, temporaries: list[str], private: bool) -> Iterator[IO[bytes]]:
    """A file beside the one that it will replace, whose path becomes the last of the temporary ones."""
    temporaries.append(_beside(path, "tmp"))
    with open(temporaries[-1], "xb", opener=_open_private if private else None) as file:
        if hold(file.fileno()):
            yield file
            return
    # Another writer took it for one that was left over, before it was locked.
    temporaries.pop()
    with _temporary(path, temporaries, private) as file:
        yield file


def _remove_left_over(paths: Sequence[str], extension: str) -> None:
    for path in paths:
        directory, name = os.path.split(path)
        remove_left_over(directory or ".", rf"{re.escape(name)}\.[0-9a-f]{{16}}\.{extension}")


@contextlib.contextmanager
def _alone(paths: Sequence[str]) -> Iterator[None]:
    """Keep other writers of several files from moving theirs in between: the files that stay are of one writer."""
    with contextlib.ExitStack() as stack:
        # One file's move is whole by itself. In one order, so that no two writers wait for each other.
        for directory in sorted({os.path.dirname(path) for path in paths}) if len(paths) > 1 else []:
            descriptor = os.open(directory or ".", os.O_RDONLY)
            stack.callback(os.close, descriptor)
            stack.enter_context(waited_for(descriptor))
        yield


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep others from removing a file, by whatever name, if this process may read it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            hold(descriptor)
        yield


def _replace_all(moves: list[tuple[str, str]]) -> None:
    """Move each file, and if one cannot be moved, undo those before it."""
    if not moves:
        return
    (temporary, path), *others = moves
    if not others:
        os.replace(temporary, path)
        return
    kept = _beside(path, "old")
    is_there = os.path.lexists(path)
    with _locked(path):
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


def _beside(path: str, extension: str) -> str:
    return f"{path}.{secrets.token_hex(8)}.{extension}"


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


@contextlib.contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Have the system's errors name the file, which they do only while it is opened."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def regular_file_size(*paths: str) -> int:
    """The size of a regular file, or of several together, which the bytes on the disk justify.

    Parameters
    ----------
    *paths : str

    Returns
    -------
    int
        In bytes.

    Raises
    ------
    FormatError
        One is not a regular file; reading it could block, or never end.
    LimitError
        They consist of holes almost alone.
    """
    size = stored = 0
    for path in paths:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path} is {_kind(status.st_mode)}; it must be a regular file.")
        size += status.st_size
        stored += status.st_blocks * _BLOCK_BYTES
    # Some file systems count no blocks; those that have no holes either say that there is none.
    if expands_too_much(stored, size) and any(map(_has_hole, paths)):
        files = f"{paths[0]} has" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} other files have"
        raise LimitError(
            f"{files} {size} bytes, but only {stored} are on the disk: the rest are holes, which read as zeros.",
            expected=stored,
            found=size,
        )
    return size


def expands_too_much(stored: int, size: int) -> bool:
    """Whether bytes that expand to a size are more likely a bomb than weights, which expand a little.

    Parameters
    ----------
    stored, size : int

    Returns
    -------
    bool
    """
    return size > _SMALL_BYTES + _MAX_EXPANSION * stored


def _has_hole(path: str) -> bool:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size > 0 and os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size


def read_small(path: str, most: int) -> bytes:
    """The content of a regular file that is not large.

    Parameters
    ----------
    path : str
    most : int
        Bytes that it can have.

    Returns
    -------
    bytes

    Raises
    ------
    FormatError
        It is not a regular file.
    LimitError
        It is larger.
    """
    regular_file_size(path)
    with open(path, "rb") as file:
        content = file.read(most + 1)  # a system's own file can hold more than its size
    if len(content) > most:
        raise LimitError(f"{path} is larger than {most} bytes.", expected=most)
    return content


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
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_int=_whole_number,
            parse_float=_finite,
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


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a float")
    return value


def _whole_number(text: str) -> int:
    # Some readers make it a float, others the integer 0.
    if text == "-0":
        raise ValueError("-0 is not an integer")
    return int(text)
