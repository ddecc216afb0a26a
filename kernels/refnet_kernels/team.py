"""Threads that walk a program of steps together.

A program is a table of int64, a row a step: the kernel's address, its number of items, then what the kernel reads.
All threads walk the whole table in compiled code. A step's items are cut into as many shares as there are threads, in
order. Each thread draws items from its own share's atomic counter, so that from step to step it finds what it wrote in
its own core's caches; then it helps with the others' shares. It goes on when all the items are *finished*: a thread
that comes late, or never, holds nobody up, and which thread did which item leaves no trace in the result.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

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
    raw = np.zeros(count * size + 64, np.uint8)
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
        # The last word stops the walk.
        self._counters = aligned_zeros(len(launches) * (threads + 1) * APART_BYTES // 8 + 1, np.int64)
        size = max((launch.scratch for launch in launches), default=0)
        self._scratch = [aligned_zeros(size + 64, np.uint8) for _ in range(threads)]
        # ctypes lets go of the GIL while the function runs.
        self._walk = _WALK(function_address("refnet_kernels.walk", "walk"))

    def run(self) -> None:
        """Run every step. Ctrl-C stops it after the items in hand."""
        self._counters[:] = 0
        program = (self._table.ctypes.data, len(self._launches), self._counters.ctypes.data, self._threads)
        pool = _pool(self._threads)
        walks = [pool.submit(self._walk, *program, i, scratch.ctypes.data) for i, scratch in enumerate(self._scratch)]
        try:
            wait(walks, return_when=FIRST_COMPLETED)
        except BaseException:
            self._counters[-1] = 1
            raise
        finally:
            # All is done, or stopped: a thread that has not begun need not, one that has must leave the memory alone.
            wait([walk for walk in walks if not walk.cancel()])
        for walk in walks:
            if not walk.cancelled():
                walk.result()


_WALK = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)

_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _pools_lock.held():
        if threads not in _pools:
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
            places = iter(cores if len(cores) == threads else [])
            _pools[threads] = ThreadPoolExecutor(threads, "refnet", _stay, (places,))
        return _pools[threads]


def _stay(cores: Iterator[int]) -> None:
    """Keep this thread on the next of the cores, if there is one.

    Where there is a thread for each of the process's cores, Linux sometimes wakes two of them on the same core and
    leaves them there for a whole forward, which then takes twice as long.
    """
    core = next(cores, None)
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(threading.get_native_id(), {core})


if hasattr(os, "register_at_fork"):
    # In the child of a fork the parent's threads do not exist.
    os.register_at_fork(after_in_child=_pools.clear)


def run_once(launch: Launch) -> None:
    """Run a single step on one thread."""
    Program([launch], threads=1).run()
