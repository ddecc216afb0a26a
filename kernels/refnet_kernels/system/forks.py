"""What a fork must find: nothing half made, and no lock that nobody is left to release.

The child of a fork has one thread, and its memory is as the parent's was at that moment. A lock that another thread
held stays held, and what that thread was at stays as it was.
"""

from __future__ import annotations

# Numba's compiler logs. What is done before a fork is done in reverse order of registration: logging takes its own lock
# there, and must do so after `making` is free, so it is imported before `making` is registered.
import logging  # noqa: F401
import os
import threading
import weakref

#: Held while a module is imported, a weight packed or a kernel compiled: what would be of no use half done, by code
#: (Numba's, LLVM's, Python's import) with locks of its own. A fork waits until it is free.
making = threading.RLock()


class Lock:
    """A lock that the child of a fork finds free, for what is whole, or made anew, whenever the lock is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def held(self) -> threading.Lock:
        """What holds the lock in a ``with`` statement."""
        return self._lock

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _in_child() -> None:
    for lock in _locks:
        lock.renew()
    making.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=making.acquire, after_in_parent=making.release, after_in_child=_in_child)
