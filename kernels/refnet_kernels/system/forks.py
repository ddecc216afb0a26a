"""Fork safety: nothing half built, and no lock that is held by a thread that the child does not have.

The child of a fork has one thread, and its memory is as the parent's was at that moment. A lock that another thread
held stays locked, and work that the thread had not finished stays unfinished.
"""

from __future__ import annotations

# Numba's compiler logs. The hooks before a fork run in reverse order of registration, and that of logging takes a lock,
# which it must do after `making` is free; so it is imported before `making` is registered.
import atexit
import logging  # noqa: F401
import os
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import TypeVar

_Made = TypeVar("_Made")

#: Held while a module is imported, a weight is packed or a kernel is compiled. Half done, these are useless, and their
#: code (Numba's, LLVM's, Python's import) has locks of its own. A fork waits until this lock is free.
#:
#: So each import within a function is under it, and brings all that the library would later import by itself. The
#: statements of a module must not take it: they run with the module's lock held, for which a thread that has `making`
#: may wait. Imports by the user's own threads are not refnet's, and it is up to the user to keep them from a fork.
making = threading.RLock()


def once(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """What a function without parameters returns, made under `making`; later calls wait for nobody."""

    @cache
    def made() -> _Made:
        with making:
            return make()

    return made


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


#: Seconds that the end of the process waits for a kernel that a thread still compiles.
_LAST_KERNEL = 60


@atexit.register
def _at_exit() -> None:
    """Let nobody compile while the process ends: LLVM would find its own data gone, and abort."""
    making.acquire(timeout=_LAST_KERNEL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=making.acquire, after_in_parent=making.release, after_in_child=_in_child)
