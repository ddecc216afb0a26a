"""How many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from refnet_kernels.system.groups import groups_of, text_of


def count_cores() -> int:
    """The cores that the system lets this process use: the least of what each of these says.

    - the cores that it may run on (its affinity);
    - the processor time that its control groups grant it, as those of a container do: in whole cores, rounded up;
    - from Python 3.13 on, ``PYTHON_CPU_COUNT`` and ``-X cpu_count``.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Python's own count is the affinity, unless the user tells it another one.
    told = os.process_cpu_count() if hasattr(os, "process_cpu_count") else None
    return min(affinity, told or affinity, _granted() or affinity)


@cache  # the files take longer to read than a small network to run; the child of a fork has its parent's groups
def _granted() -> int | None:
    return granted()


def granted(root: str = "/") -> int | None:
    """The cores that the control groups of this process grant it; None if they grant all.

    Parameters
    ----------
    root : str
        The folder that holds ``proc`` and ``sys``.
    """
    return min(_quotas(root), default=None)


def _quotas(root: str) -> Iterator[int]:
    """What each group grants: its quota of time by the period in which it is granted."""
    for version, folder in groups_of("cpu", root):
        with suppress(OSError, ValueError):
            if version == 1:
                files = f"{folder}/cpu.cfs_quota_us", f"{folder}/cpu.cfs_period_us"
                quota, period = (int(text_of(file)) for file in files)
            else:
                quota, period = map(int, text_of(f"{folder}/cpu.max").split())
            # Version 1 writes -1 for no limit, and version 2 "max", which is not a number.
            if quota > 0 and period > 0:
                yield -(-quota // period)


def share_of(items: int, share: int, shares: int) -> range:
    """One of ``shares`` nearly equal ranges of items; in a step, the items that a thread draws first."""
    return range(items * share // shares, items * (share + 1) // shares)
