"""Threads that walk a program of steps together.

A program is a table of int64, a row a step: the kernel's address, its number of items, then what the kernel reads.
All threads walk the whole table in compiled code. At each step they draw items from an atomic counter until none is
left, and go on when all the items are *finished*: a thread that comes late, or never, holds nobody up, and which
thread did which item leaves no trace in the result.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np
from numba import types

from refnet_kernels.jit import jitted
from refnet_kernels.memory import call_kernel, fetch_add, integers, load_atomic

#: int64 in a row of a program: the kernel, its items, and its own.
ROW = 64
_HEADER = 2
_ROW_BYTES = ROW * 8
#: A step's two counters (items drawn, items finished) stand apart, each on cache lines of its own.
_APART_BYTES = 128
#: Loads of the counter, some nanoseconds each, before a waiting thread offers its core to others.
_SPINS = 2000

_yield_core = types.ExternalFunction("sched_yield", types.int32())


class Launch(NamedTuple):
    """One step, ready to run: a kernel, how many items it has, and the row that it reads."""

    kernel: int
    items: int
    row: list[int]
    scratch: int
    kept: tuple[np.ndarray, ...] = ()


def aligned_zeros(count: int, dtype: type) -> np.ndarray:
    """``count`` zeros that start on a cache line, which NumPy does not promise."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(count * size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * size].view(dtype)


def _walk(program, steps, counters, scratch):
    stop = counters + steps * 2 * _APART_BYTES
    for step in range(steps):
        row = program + step * _ROW_BYTES
        kernel = integers(row)[0]
        items = integers(row)[1]
        drawn = counters + step * 2 * _APART_BYTES
        finished = drawn + _APART_BYTES
        while True:
            item = fetch_add(drawn, 1)
            if item >= items:
                break
            if load_atomic(stop) != 0:
                return
            call_kernel(kernel, row + _HEADER * 8, item, scratch)
            fetch_add(finished, 1)
        spins = 0
        while load_atomic(finished) < items:
            if load_atomic(stop) != 0:
                return
            spins += 1
            if spins > _SPINS:
                _yield_core()


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
            row[: _HEADER + len(launch.row)] = [launch.kernel, launch.items, *launch.row]
        # The last word stops the walk.
        self._counters = aligned_zeros(len(launches) * 2 * _APART_BYTES // 8 + 1, np.int64)
        size = max((launch.scratch for launch in launches), default=0)
        self._scratch = [aligned_zeros(size + 64, np.uint8) for _ in range(threads)]
        self._walk = jitted(_walk, "void(int64, int64, int64, int64)")

    def run(self) -> None:
        """Run every step. Ctrl-C stops it after the items in hand."""
        self._counters[:] = 0
        arguments = (self._table.ctypes.data, len(self._launches), self._counters.ctypes.data)
        pool = _pool(self._threads)
        walks = [pool.submit(self._walk, *arguments, scratch.ctypes.data) for scratch in self._scratch]
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


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _pools_lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="refnet")
        return _pools[threads]


def _forget_threads() -> None:
    """In the child of a fork the parent's threads do not exist."""
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def run_once(launch: Launch) -> None:
    """Run a single step on one thread."""
    Program([launch], threads=1).run()
