"""The compiled loop in which each thread of a team walks a program. See `refnet_kernels.team`."""

from __future__ import annotations

from numba import types

from refnet_kernels.kernel import compiled
from refnet_kernels.memory import call_kernel, fetch_add, integers, load_atomic
from refnet_kernels.team import APART_BYTES, HEADER, ROW_BYTES, SPINS

_yield_core = types.ExternalFunction("sched_yield", types.int32())


@compiled(types.void(types.int64, types.int64, types.int64, types.int64))
def walk(program, steps, counters, scratch):
    """Do a thread's share of every step of a program, from the addresses of its table, counters and scratch."""
    stop = counters + steps * 2 * APART_BYTES
    for step in range(steps):
        row = program + step * ROW_BYTES
        kernel = integers(row)[0]
        items = integers(row)[1]
        drawn = counters + step * 2 * APART_BYTES
        finished = drawn + APART_BYTES
        while True:
            item = fetch_add(drawn, 1)
            if item >= items:
                break
            if load_atomic(stop) != 0:
                return
            call_kernel(kernel, row + HEADER * 8, item, scratch)
            fetch_add(finished, 1)
        spins = 0
        while load_atomic(finished) < items:
            if load_atomic(stop) != 0:
                return
            spins += 1
            if spins > SPINS:
                _yield_core()
