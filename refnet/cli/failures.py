"""How the command line reports errors: a sentence or an object, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from refnet.cli.console import print_json, say
from refnet.errors import ConfigError, RefnetError


class FileError(RefnetError):
    """The system's error about a file, with the exit code for the kind of file."""

    def __init__(self, error: OSError, exit_code: int) -> None:
        where = f"{error.filename}: " if error.filename is not None else ""
        super().__init__(f"{where}{error.strerror or error}.")
        self.exit_code = exit_code
        self.kind = type(error).__name__


@contextmanager
def file_errors(kind: type[RefnetError]) -> Iterator[None]:
    """Give the system's errors about files the exit code of ``kind``."""
    try:
        yield
    except OSError as error:
        raise FileError(error, kind.exit_code) from error


def as_object(error: RefnetError) -> dict[str, Any]:
    """The error for ``--json``."""
    return {
        "type": error.kind if isinstance(error, FileError) else type(error).__name__,
        "message": error.message,
        "tensor": error.tensor,
        "expected": error.expected,
        "found": error.found,
    }


def report(error: RefnetError, as_json: bool) -> int:
    """Report an error to the user.

    Returns
    -------
    int
        The exit code.
    """
    if as_json:
        print_json({"error": as_object(error)})
    else:
        say(f"error: {error.message}")
        # For a person: a log has one line per error. A wrong command line has its --help.
        if sys.stderr.isatty() and not isinstance(error, ConfigError | FileError):
            say(f"more: refnet explain {type(error).__name__}")
    return error.exit_code
