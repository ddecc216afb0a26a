"""Fork safety: nothing half built, and no lock that is held by a thread that the child does not have.

The child of a fork has one thread, and its memory is as the parent's was at that moment. A lock that another thread
held stays locked, and work that the thread had not finished stays unfinished.
"""

from __future__ import annotations

# Numba's compiler logs. The hooks before a fork run in reverse order of registration. The hook of logging takes its own
# lock, which it must do after `making` is free; so it is imported before `making` is registered.
import logging  # noqa: F401
import os
import threading
import weakref

#: Held while a module is imported, a weight is packed or a kernel is compiled. Half done, these are useless, and their
#: code (Numba's, LLVM's, Python's import) has locks of its own. A fork waits until this lock is free.
making = threading.RLock()


class Lock:
    """A lock that is free in the child of a fork. It is for data that are whole, or rebuilt, whenever it is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def held(self) -> threading.Lock:
        """The lock itself, for a ``with`` statement."""
        return self._lock

    def renew(self) -> None:
        """Replace the lock by one that is free."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _in_child() -> None:
    for lock in _locks:
        lock.renew()
    making.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=making.acquire, after_in_parent=making.release, after_in_child=_in_child)
