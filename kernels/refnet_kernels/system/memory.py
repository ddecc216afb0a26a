"""How much more memory this process can have: what the machine has free, within the limits that are set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from refnet_kernels.system.groups import groups_of, text_of

# Neither Windows nor a browser has it.
_HAS_LIMITS = sys.platform not in ("win32", "emscripten")
if _HAS_LIMITS:
    import resource


#: Version 1 of the control groups writes a number near 2**63 for no limit.
_NO_LIMIT = 2**62


class Room(NamedTuple):
    """Memory that can still be had.

    Attributes
    ----------
    nbytes : int
        Never negative.
    limit : str
        What sets this limit, in words.
    """

    nbytes: int
    limit: str


def room_for_more(root: str = "/") -> Room | None:
    """The least of what the machine and each limit leave; None if the system tells nothing.

    Looked at are the machine's available memory and swap, the limits of the process (``ulimit -v``, ``ulimit -d``) and
    of its control groups (version 1 and 2), whose cache of files counts as free.

    Parameters
    ----------
    root : str
        The folder that holds ``proc`` and ``sys``.
    """
    rooms = [*_limits(root), *_machine(root), *_groups(root)]
    least = min(rooms, default=None)
    return None if least is None else least._replace(nbytes=max(0, least.nbytes))


def _limits(root: str) -> Iterator[Room]:
    """What the limits of the process leave."""
    if not _HAS_LIMITS:
        return
    for which, field, name in ((resource.RLIMIT_AS, 0, "address space"), (resource.RLIMIT_DATA, 5, "data")):
        most, _ = resource.getrlimit(which)
        if most != resource.RLIM_INFINITY:
            with suppress(OSError, ValueError, IndexError):
                pages = int(text_of(f"{root}/proc/self/statm").split()[field])
                yield Room(most - pages * resource.getpagesize(), f"the process's limit of {name}")


def _machine(root: str) -> Iterator[Room]:
    """What the machine has free."""
    fields = _fields(f"{root}/proc/meminfo")
    if "MemAvailable" in fields:
        free = fields["MemAvailable"] + fields.get("SwapFree", 0)
        yield Room(free * 1024, "the machine's free memory")
        if _number(f"{root}/proc/sys/vm/overcommit_memory") == 2 and "CommitLimit" in fields:
            left = fields["CommitLimit"] - fields.get("Committed_AS", 0)
            yield Room(left * 1024, "the memory that the machine promises")
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield Room(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "the machine's memory")


def _groups(root: str) -> Iterator[Room]:
    """What the limits of the control groups leave, from the process's own up."""
    for version, folder in groups_of("memory", root):
        yield from _room(folder, _VERSION_1 if version == 1 else _VERSION_2)


class _Names(NamedTuple):
    """The files of a control group, and the field of the last one that counts the cache of files."""

    most: str
    used: str
    swap: str
    swapped: str
    stat: str
    cached: str


_VERSION_2 = _Names(
    "memory.max", "memory.current", "memory.swap.max", "memory.swap.current", "memory.stat", "inactive_file"
)
_VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "", "", "memory.stat", "total_inactive_file")


def _room(group: str, names: _Names) -> Iterator[Room]:
    """What the limit of one group leaves, if it has one."""
    most = _number(f"{group}/{names.most}")
    used = None if most is None else _number(f"{group}/{names.used}")
    if most is None or used is None:
        return
    cached = _fields(f"{group}/{names.stat}").get(names.cached, 0)
    swap, swapped = (_number(f"{group}/{name}") if name else None for name in (names.swap, names.swapped))
    left = 0 if swap is None or swapped is None else max(0, swap - swapped)
    yield Room(most - used + cached + left, "the memory limit of its control group")


def _number(file: str) -> int | None:
    """The number in a file; None if there is none, or it stands for no limit."""
    with suppress(OSError, ValueError):
        number = int(text_of(file))
        return number if number < _NO_LIMIT else None
    return None


def _fields(file: str) -> dict[str, int]:
    """The numbers in a file of lines, by the words before them."""
    fields: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in text_of(file).splitlines():
            name, _, rest = line.replace(":", " ", 1).partition(" ")
            fields[name] = int(rest.split()[0])
    return fields
