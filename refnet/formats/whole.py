"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import IO


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[IO[bytes]]:
    """A file to write to, that takes the place of ``path`` once it is complete and on the disk.

    After an exception ``path`` is what it was.
    """
    with written_together(path) as (file,):
        yield file


@contextlib.contextmanager
def written_together(*paths: str) -> Iterator[Sequence[IO[bytes]]]:
    """Files to write to, that take the places of ``paths``, in that order, once all are complete and on the disk.

    After an exception all of ``paths`` are what they were. A process that is killed between the moves may leave some
    of the new files beside some of the old ones, or those under a temporary name. They are in one directory.
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
    except BaseException:
        for temporary in temporaries:
            _remove(temporary)
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
