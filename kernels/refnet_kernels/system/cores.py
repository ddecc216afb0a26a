"""How many cores this process may use."""

from __future__ import annotations

import os


def count_cores() -> int:
    """The cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of(items: int, share: int, shares: int) -> range:
    """One of ``shares`` nearly equal ranges of items; in a step, the items that a thread draws first."""
    return range(items * share // shares, items * (share + 1) // shares)
