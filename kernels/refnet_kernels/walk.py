"""The compiled loop in which each thread of a team walks a program. See `refnet_kernels.team`."""

from __future__ import annotations

from numba import types

from refnet_kernels.kernel import compiled, helper
from refnet_kernels.memory import call_kernel, fetch_add, integers, load_atomic
from refnet_kernels.team import APART_BYTES, HEADER, ROW_BYTES, SPINS, share_of

_share_of = helper(share_of)
_yield_core = types.ExternalFunction("sched_yield", types.int32())


@helper
def _walk_steps(program, steps, counters, threads, thread, scratch, stop):
    """Do a thread's part of every step, unless it is told to stop."""
    for step in range(steps):
        row = program + step * ROW_BYTES
        kernel = integers(row)[0]
        items = integers(row)[1]
        drawn = counters + step * (threads + 1) * APART_BYTES
        finished = drawn + threads * APART_BYTES
        for turn in range(threads):
            share = (thread + turn) % threads
            own = _share_of(items, share, threads)
            first, last = own.start, own.stop
            done = 0
            # The load is for shares that are drawn already, which is most often so with another thread's.
            while first + load_atomic(drawn + share * APART_BYTES) < last:
                item = first + fetch_add(drawn + share * APART_BYTES, 1)
                if item >= last:
                    break
                if load_atomic(stop) != 0:
                    return
                call_kernel(kernel, row + HEADER * 8, item, scratch)
                done += 1
            if done > 0:
                fetch_add(finished, done)
        spins = 0
        while load_atomic(finished) < items:
            if load_atomic(stop) != 0:
                return
            spins += 1
            if spins > SPINS:
                _yield_core()


@compiled(types.void(*[types.int64] * 6))
def walk(program, steps, counters, threads, thread, scratch):
    """Do a thread's part of every step of a program, from the addresses of its table, counters and scratch."""
    stop = counters + steps * (threads + 1) * APART_BYTES
    _walk_steps(program, steps, counters, threads, thread, scratch, stop)
    # From here on it touches nothing of the program's.
    fetch_add(stop + (1 + thread) * 8, 1)
