"""Linux's control groups, version 1 and 2, by which containers are limited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress


def groups_of(controller: str, root: str = "/") -> Iterator[tuple[int, str]]:
    """The groups of this process that limit what a controller governs, from its own up: each limits it.

    Parameters
    ----------
    controller : str
        "memory", "cpu".
    root : str
        The folder that holds ``proc`` and ``sys``.

    Yields
    ------
    version : int
        1 or 2: they have other files.
    folder : str
        It may not exist.
    """
    with suppress(OSError, ValueError):
        for line in text_of(f"{root}/proc/self/cgroup").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                version, folder = 2, f"{root}/sys/fs/cgroup"
            elif controller in controllers.split(","):
                version, folder = 1, f"{root}/sys/fs/cgroup/{controller}"
            else:
                continue
            # In a container that sees only its own group this path may lead nowhere, and the folder is the group.
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield version, "/".join([folder, *parts[:depth]])


def text_of(file: str) -> str:
    """What one of the system's files holds."""
    with open(file, encoding="utf-8") as opened:  # another codec would be imported
        return opened.read()
