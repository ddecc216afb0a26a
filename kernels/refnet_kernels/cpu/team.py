"""Threads that walk a program of steps together.

A program is a table of int64, one row per step: the kernel's address, its number of items, then the kernel's arguments.
All threads walk the whole table in compiled code. A step's items are cut into as many shares as there are threads, in
order. Each thread draws items from its own share's atomic counter, so that from step to step it finds what it wrote in
its own core's caches; then it helps with the other shares. It goes on when all the items are *finished*: a thread that
comes late, or never, delays no other, and the result does not depend on which thread did which item.

The caller walks the table with helpers: threads that wait in compiled code, each at a mailbox, and never return to
Python. So no thread waits for the GIL, which costs 0.1 ms if two threads want it at once, and a run costs one call.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet_kernels.jit import function_address
from refnet_kernels.system import pages
from refnet_kernels.system.forks import Lock
from refnet_kernels.system.threads import NoThreadError, start

#: int64 per row of a program: the kernel, its number of items, and its arguments.
ROW = 64

HEADER = 2

ROW_BYTES = ROW * 8

#: Bytes between a step's counters (the items drawn of each share, then the items finished): no two share a cache line.
APART_BYTES = 128

#: Loads of the counter, some nanoseconds each, before a waiting thread yields its core to others.
SPINS = 2000

#: The caller returns to Python this often, to handle Ctrl-C.
SLICE_SECONDS = 0.05

#: Between two looks whether a helper is there; most come in less.
ARRIVAL_SECONDS = 2e-5

#: Items (of a millisecond or less) between two readings of the clock.
ITEMS_PER_LOOK = 16

# The int64 of a run: addresses (of the table of steps, the counters, the threads' scratch memory, the helpers'
# mailboxes); the numbers of steps and threads; a clock of the system, and a deadline by it in nanoseconds; whether the
# helpers have been asked, and whether everything is done.
TABLE, COUNTERS, SCRATCHES, MAILBOXES, STEPS, THREADS, CLOCK, DEADLINE, BEGUN, DONE = range(10)

# Apart from those: a word that stops all threads, the time when the clock was last read, and one word per thread, which
# is not 0 once the thread has left.
STOP, NOW, LEFT = (APART_BYTES // 8 * i for i in (1, 2, 3))

# A helper's mailbox: its state, the run that it works for, its number in that run; and the mutex and the condition
# variable that it waits on.
STATE, WHOSE, NUMBER = range(3)

ABSENT, FREE, ASKED, WALKING = range(4)

MUTEX, CONDITION, MAILBOX_BYTES = (APART_BYTES * i for i in (1, 2, 3))


class Launch(NamedTuple):
    """One step, ready to run.

    Attributes
    ----------
    kernel : int
        Address of the kernel.
    items : int
        Number of items.
    row : tuple of int
        The kernel's arguments.
    scratch : int
        Bytes of scratch memory per thread.
    kept : tuple of array
        Arrays that live as long as the step.
    """

    kernel: int
    items: int
    row: tuple[int, ...]
    scratch: int
    kept: tuple[np.ndarray, ...] = ()


def aligned_zeros(count: int, dtype: DTypeLike) -> np.ndarray:
    """``count`` zeros that start on a cache line, which NumPy does not guarantee."""
    size = np.dtype(dtype).itemsize
    raw = pages.zeros(count * size + 64)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * size].view(dtype)


class Program:
    """Steps to be run in order, any number of times, by one caller at a time.

    Parameters
    ----------
    launches : list of Launch
    threads : int
        Number of threads that share each step.
    """

    def __init__(self, launches: list[Launch], threads: int) -> None:
        self._launches = launches
        self._threads = threads
        self._table = aligned_zeros(len(launches) * ROW, np.int64).reshape(len(launches), ROW)
        for row, launch in zip(self._table, launches, strict=True):
            row[: HEADER + len(launch.row)] = [launch.kernel, launch.items, *launch.row]
        self._counters = aligned_zeros(len(launches) * (threads + 1) * APART_BYTES // 8, np.int64)
        size = max((launch.scratch for launch in launches), default=0)
        self._scratch = [aligned_zeros(size + 64, np.uint8) for _ in range(threads)]
        self._scratches = np.array([scratch.ctypes.data for scratch in self._scratch])
        self._run = aligned_zeros(LEFT + threads, np.int64)
        for which, array in ((TABLE, self._table), (COUNTERS, self._counters), (SCRATCHES, self._scratches)):
            self._run[which] = array.ctypes.data
        self._run[STEPS], self._run[THREADS], self._run[CLOCK] = len(launches), threads, time.CLOCK_MONOTONIC
        self._address = self._run.ctypes.data
        self._walk = _walk()

    def set_operand(self, step: int, which: int, address: int) -> None:
        """Set an address that a step reads: number ``which`` of its arguments."""
        self._table[step, HEADER + which] = address

    def run(self) -> None:
        """Run every step. Ctrl-C stops it after the items in progress."""
        run = self._run
        self._counters[:] = 0
        run[BEGUN:] = 0
        try:
            run[MAILBOXES] = _mailboxes(self._threads)
            while not run[DONE]:
                run[DEADLINE] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(SLICE_SECONDS * 1e9)
                self._walk(self._address, 0)
        except BaseException:
            run[STOP] = 1
            # Not even a second Ctrl-C, or want of memory, may leave helpers at work.
            while run[BEGUN] and not run[DONE]:
                with suppress(BaseException):
                    self._walk(self._address, 0)
            raise


@cache
def _walk() -> Callable[[int, int], None]:
    """`refnet_kernels.cpu.team_kernel.walk`. ctypes releases the GIL while it runs."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    return kind(function_address("refnet_kernels.cpu.team_kernel", "walk"))


@dataclass(frozen=True, eq=False)
class _Helper:
    """A thread that waits at its mailbox.

    Attributes
    ----------
    core : int or None
        The core that it is pinned to, if it is for runs with one thread per core.
    mailbox : int64 array
    is_there : callable
        Returns None if the thread has ended.
    """

    core: int | None
    mailbox: np.ndarray
    is_there: Callable[[], object]


#: All helpers. A run takes as many of them as it needs, in this order.
_team: list[_Helper] = []

_team_lock = Lock()

#: Addresses of lists of the others' mailboxes, by a run's number of threads and the caller's core.
_others: dict[tuple[int, int | None], int] = {}

#: Mailboxes, at which threads wait as long as the process runs, and lists of mailboxes.
_kept: list[np.ndarray] = []


def _mailboxes(threads: int) -> int:
    """The address of a list of mailboxes: of ``threads - 1`` helpers, none of them on the caller's core.

    Raises
    ------
    NoThreadError, MemoryError
        There is no further thread, or no memory for it. The helpers that there are remain.
    """
    here = _this_core()
    address = _others.get((threads, here))
    if address is None:
        with _team_lock.held():
            helpers = _helpers(threads, here)
            mailboxes = np.array([helper.mailbox.ctypes.data for helper in helpers], np.int64)
            _kept.append(mailboxes)
            address = _others[threads, here] = mailboxes.ctypes.data
    return address


def _helpers(threads: int, here: int | None) -> list[_Helper]:
    """The helpers of a run, each at its mailbox. Those that are missing join the team."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    is_pinned = 1 < threads == len(cores)
    team = [helper for helper in _team if is_pinned == (helper.core is not None)]
    there = {helper.core for helper in team}
    missing = [core for core in cores if core not in there] if is_pinned else [None] * (threads - 1 - len(team))
    for core in missing:
        try:
            team.append(_new_helper(core))
        except NoThreadError as error:
            raise NoThreadError(f"{threads} threads are wanted and {len(team) + 1} are there: {error}") from error
    helpers = [helper for helper in team if not is_pinned or helper.core != here][: threads - 1]
    for helper in helpers:
        _wait_for(helper)
    return helpers


def _new_helper(core: int | None) -> _Helper:
    mailbox = aligned_zeros(MAILBOX_BYTES // 8, np.int64)
    address = mailbox.ctypes.data
    _system.pthread_mutex_init(ctypes.c_void_p(address + MUTEX), None)
    _system.pthread_cond_init(ctypes.c_void_p(address + CONDITION), None)
    _kept.append(mailbox)
    try:
        helper = _Helper(core, mailbox, start(_help, core, address))
    except NoThreadError:
        _kept.pop()
        raise
    _team.append(helper)
    return helper


def _wait_for(helper: _Helper) -> None:
    """Wait until a helper is at its mailbox."""
    while helper.mailbox[STATE] == ABSENT:
        if helper.is_there() is None:
            _team.remove(helper)
            raise MemoryError("A thread ended before it began to work, as there is no memory left for it.")
        time.sleep(ARRIVAL_SECONDS)


def _help(core: int | None, mailbox: int) -> None:
    _stay(core)
    _walk()(0, mailbox)


def _this_core() -> int | None:
    """The core on which this thread runs; None if the system does not tell."""
    return int(_sched_getcpu()) if _sched_getcpu else None


_system: Any = ctypes.CDLL(None) if os.name == "posix" else None

_sched_getcpu = getattr(_system, "sched_getcpu", None)


def _stay(core: int | None) -> None:
    """Pin this thread to a core, unless that is None.

    With one thread per core of the process, Linux sometimes wakes two of them on the same core and
    leaves them there for a whole forward, which then takes twice as long.
    """
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(threading.get_native_id(), {core})


if hasattr(os, "register_at_fork"):
    # In the child of a fork the parent's threads do not exist.
    os.register_at_fork(after_in_child=_team.clear)
    os.register_at_fork(after_in_child=_others.clear)


def run_once(launch: Launch) -> None:
    """Run a single step on one thread."""
    Program([launch], threads=1).run()
