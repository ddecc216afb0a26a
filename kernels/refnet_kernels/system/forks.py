"""What a fork must find: nothing half made, and no lock that nobody is left to release.

The child of a fork has one thread, and its memory is as the parent's was at that moment. A lock that another thread
held stays held, and what that thread was at stays as it was.
"""

from __future__ import annotations

# Numba's compiler logs, and a pool of threads packs weights. What is done before a fork is done in reverse order of
# registration: logging and the pool take their own locks there, and must do so after `making` is free, so they are
# imported before `making` is registered.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import TypeVar

_Made = TypeVar("_Made")

#: Held while a module is imported, a weight packed or a kernel compiled: what would be of no use half done, by code
#: (Numba's, LLVM's, Python's import) with locks of its own. A fork waits until it is free.
#:
#: So each import within a function is under it, and brings all that the library would import by itself later. The
#: statements of a module must not take it: they run with the module's lock held, for which a thread that has `making`
#: may wait. What the user's threads import by themselves is not refnet's, and theirs to keep from a fork.
making = threading.RLock()


def once(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """What a function without parameters returns, made under `making`; later calls wait for nobody."""

    @cache
    def made() -> _Made:
        with making:
            return make()

    return made


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
