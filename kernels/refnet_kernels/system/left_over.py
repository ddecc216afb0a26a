"""Temporary files that killed writers left behind.

A writer holds a lock on its temporary file, and the system frees the lock when the writer ends. So a file without a
lock has no writer any more, and the next one removes it. Where the system has no such locks nothing is removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# A browser calls itself POSIX, and does not have it.
with suppress(ImportError):
    import fcntl


def hold(descriptor: int) -> bool:
    """Lock an open temporary file until it is closed, or its process ends.

    Parameters
    ----------
    descriptor : int

    Returns
    -------
    bool
        False if another writer removes it just now, or has: make another one.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, NameError):
        pass  # there are no locks here
    return os.fstat(descriptor).st_nlink > 0


@contextmanager
def waited_for(descriptor: int) -> Iterator[None]:
    """Wait for the lock of an open file or directory, and keep it meanwhile.

    Parameters
    ----------
    descriptor : int
    """
    with suppress(OSError, NameError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing does not unlock it where a process forked meanwhile has it too.
        with suppress(OSError, NameError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def remove_left_over(directory: str, name: str) -> None:
    """Remove the files that killed writers left.

    Parameters
    ----------
    directory : str
    name : str
        Regular expression of such files' names.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for path in [entry.path for entry in entries if re.fullmatch(name, entry.name)]:
            _remove_if_left_over(path)


def _remove_if_left_over(path: str) -> None:
    with suppress(OSError, NameError):
        # Neither another file behind a link, nor a FIFO that would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)
