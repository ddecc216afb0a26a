"""Threads that walk a program of steps together.

A program is a table of int64, a row a step: the kernel's address, its number of items, then what the kernel reads.
All threads walk the whole table in compiled code. A step's items are cut into as many shares as there are threads, in
order. Each thread draws items from its own share's atomic counter, so that from step to step it finds what it wrote in
its own core's caches; then it helps with the others' shares. It goes on when all the items are *finished*: a thread
that comes late, or never, holds nobody up, and which thread did which item leaves no trace in the result.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet_kernels import pages
from refnet_kernels.forks import Lock
from refnet_kernels.jit import function_address

#: int64 in a row of a program: the kernel, its items, and its own.
ROW = 64
HEADER = 2
ROW_BYTES = ROW * 8
#: A step's counters (of each share the items drawn, then the items finished) stand apart, on cache lines of their own.
APART_BYTES = 128
#: Loads of the counter, some nanoseconds each, before a waiting thread offers its core to others.
SPINS = 2000
#: Where the last run took less, the caller's own thread walks too, and needs no waking at the end, which takes up to
#: 0.2 ms. In a longer run it waits in Python, so that Ctrl-C is answered.
CALLER_SECONDS = 0.05


class Launch(NamedTuple):
    """One step, ready to run: a kernel, how many items it has, and the row that it reads."""

    kernel: int
    items: int
    row: list[int]
    scratch: int
    kept: tuple[np.ndarray, ...] = ()


def aligned_zeros(count: int, dtype: DTypeLike) -> np.ndarray:
    """``count`` zeros that start on a cache line, which NumPy does not promise."""
    size = np.dtype(dtype).itemsize
    raw = pages.zeros(count * size + 64)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * size].view(dtype)


def share_of(items: int, share: int, shares: int) -> range:
    """The items of a step that a thread draws first."""
    return range(items * share // shares, items * (share + 1) // shares)


class Program:
    """Steps to be run in order, any number of times, by one caller at a time.

    Parameters
    ----------
    launches : list of Launch
    threads : int
        How many threads share each step.
    """

    def __init__(self, launches: list[Launch], threads: int) -> None:
        self._launches = launches
        self._threads = threads
        self._table = aligned_zeros(len(launches) * ROW, np.int64).reshape(len(launches), ROW)
        for row, launch in zip(self._table, launches, strict=True):
            row[: HEADER + len(launch.row)] = [launch.kernel, launch.items, *launch.row]
        # Behind the steps' counters: the word that stops the walk, and one for each thread that has left it.
        drawn = len(launches) * (threads + 1) * APART_BYTES // 8
        self._counters = aligned_zeros(drawn + 1 + threads, np.int64)
        self._stop, self._left = self._counters[drawn : drawn + 1], self._counters[drawn + 1 :]
        size = max((launch.scratch for launch in launches), default=0)
        self._scratch = [aligned_zeros(size + 64, np.uint8) for _ in range(threads)]
        #: Of the last run.
        self._seconds = math.inf
        program = (self._table.ctypes.data, len(launches), self._counters.ctypes.data, threads)
        # ctypes lets go of the GIL while the function runs.
        walk = _WALK(function_address("refnet_kernels.walk", "walk"))
        self._walks = [partial(walk, *program, i, scratch.ctypes.data) for i, scratch in enumerate(self._scratch)]

    def run(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Run every step. Ctrl-C stops it after the items in hand, or when it is done soon.

        ``meanwhile`` is called once: while the threads walk, or before, where that is this thread's own work too.
        """
        began = time.perf_counter()
        self._counters[:] = 0
        soon = self._seconds < CALLER_SECONDS
        if meanwhile and soon:
            meanwhile()
        others: list[Future[None]] = []
        try:
            for worker, walk in zip(_workers(self._threads, soon), self._walks[soon:], strict=True):
                others.append(worker.submit(walk))
            if soon:
                self._walks[0]()
            else:
                if meanwhile:
                    meanwhile()
                wait(others, return_when=FIRST_COMPLETED)
        except BaseException:
            self._stop[0] = 1
            raise
        finally:
            # All is done, or stopped: a thread that has not begun need not, one that has must leave the memory alone.
            for thread, other in enumerate(others, start=int(soon)):
                if not other.cancel():
                    self._see_off(thread, other)
        self._seconds = time.perf_counter() - began

    def _see_off(self, thread: int, other: Future[None]) -> None:
        """Wait until a thread has left the walk. Its future is done later, once it has had the GIL: up to 0.2 ms."""
        while not (self._left[thread] or other.done()):
            time.sleep(0)
        if other.done():
            other.result()


_WALK = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)


class _Worker(NamedTuple):
    """A thread that waits for walks, and the core that it stays on, if there is one for each of its team."""

    submit: Callable[[Callable[[], None]], Future[None]]
    core: int | None


_teams: dict[int, list[_Worker]] = {}
_teams_lock = Lock()


def _workers(threads: int, with_caller: bool) -> list[_Worker]:
    """The team of so many threads; one less if the caller walks too, and none of them on the caller's core."""
    team = _teams.get(threads) or _new_team(threads)
    if not with_caller:
        return team
    here = _this_core()
    return [worker for worker in team if worker.core is None or worker.core != here][: threads - 1]


def _new_team(threads: int) -> list[_Worker]:
    with _teams_lock.held():
        if threads not in _teams:
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
            places = cores if len(cores) == threads else [None] * threads
            _teams[threads] = [
                _Worker(ThreadPoolExecutor(1, "refnet", _stay, (place,)).submit, place) for place in places
            ]
        return _teams[threads]


def _this_core() -> int | None:
    """The core on which this thread runs, where the system says so."""
    return _sched_getcpu() if _sched_getcpu else None


_sched_getcpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None


def _stay(core: int | None) -> None:
    """Keep this thread on a core.

    Where there is a thread for each of the process's cores, Linux sometimes wakes two of them on the same core and
    leaves them there for a whole forward, which then takes twice as long.
    """
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(threading.get_native_id(), {core})


if hasattr(os, "register_at_fork"):
    # In the child of a fork the parent's threads do not exist.
    os.register_at_fork(after_in_child=_teams.clear)


def run_once(launch: Launch) -> None:
    """Run a single step on one thread."""
    Program([launch], threads=1).run()
