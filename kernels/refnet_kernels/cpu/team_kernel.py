"""The compiled code that the threads of a team run. See `refnet_kernels.cpu.team`."""

from __future__ import annotations

from numba import types

from refnet_kernels.cpu.control_register import contract_register, control_register, set_control_register
from refnet_kernels.cpu.kernel import compiled, helper
from refnet_kernels.cpu.memory import call_kernel, fetch_add, integers, load_atomic
from refnet_kernels.cpu.team import (
    APART_BYTES,
    ASKED,
    BEGUN,
    CLOCK,
    CONDITION,
    COUNTERS,
    DEADLINE,
    DONE,
    FREE,
    HEADER,
    ITEMS_PER_LOOK,
    LEFT,
    MAILBOXES,
    MUTEX,
    NOW,
    NUMBER,
    ROW_BYTES,
    SCRATCHES,
    SPINS,
    STATE,
    STEPS,
    STOP,
    TABLE,
    THREADS,
    WALKING,
    WHOSE,
)
from refnet_kernels.system.cores import share_of

_share_of = helper(share_of)
_yield_core = types.ExternalFunction("sched_yield", types.int32())
_lock = types.ExternalFunction("pthread_mutex_lock", types.int32(types.int64))
_unlock = types.ExternalFunction("pthread_mutex_unlock", types.int32(types.int64))
_signal = types.ExternalFunction("pthread_cond_signal", types.int32(types.int64))
_wait = types.ExternalFunction("pthread_cond_wait", types.int32(types.int64, types.int64))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int64, types.int64))


@helper
def _is_late(run, deadline):
    """Whether a deadline, in nanoseconds, has passed; 0 means none."""
    if deadline == 0:
        return False
    now = run + NOW * 8
    _clock_gettime(integers(run)[CLOCK], now)
    return integers(now)[0] * 1_000_000_000 + integers(now)[1] > deadline


@helper
def _walk_steps(run, thread, deadline):
    """Do a thread's part of every unfinished step. False if the run was stopped or is late, else True."""
    steps, counters, threads = integers(run)[STEPS], integers(run)[COUNTERS], integers(run)[THREADS]
    scratch, stop = integers(integers(run)[SCRATCHES])[thread], run + STOP * 8
    walked = 0
    for step in range(steps):
        row = integers(run)[TABLE] + step * ROW_BYTES
        kernel = integers(row)[0]
        items = integers(row)[1]
        drawn = counters + step * (threads + 1) * APART_BYTES
        finished = drawn + threads * APART_BYTES
        for turn in range(threads):
            share = (thread + turn) % threads
            own = _share_of(items, share, threads)
            first, last = own.start, own.stop
            done = 0
            # The load saves an atomic addition if all of the share is drawn, as another thread's share mostly is.
            while first + load_atomic(drawn + share * APART_BYTES) < last:
                item = first + fetch_add(drawn + share * APART_BYTES, 1)
                if item >= last:
                    break
                if load_atomic(stop) != 0:
                    return False
                call_kernel(kernel, row + HEADER * 8, item, scratch)
                done += 1
                walked += 1
                if walked % ITEMS_PER_LOOK == 0 and _is_late(run, deadline):
                    fetch_add(finished, done)
                    return False
            if done > 0:
                fetch_add(finished, done)
        spins = 0
        while load_atomic(finished) < items:
            if load_atomic(stop) != 0:
                return False
            spins += 1
            if spins > SPINS:
                _yield_core()
                if _is_late(run, deadline):
                    return False
    return True


@helper
def _ask(mailbox, run, thread):
    """Ask a helper to walk. One that is not free is counted as having left."""
    box = integers(mailbox)
    _lock(mailbox + MUTEX)
    is_free = box[STATE] == FREE
    if is_free:
        box[STATE], box[WHOSE], box[NUMBER] = ASKED, run, thread
    _unlock(mailbox + MUTEX)
    if is_free:
        _signal(mailbox + CONDITION)
    else:
        fetch_add(run + (LEFT + thread) * 8, 1)


@helper
def _see_off(mailbox, run, thread):
    """Withdraw the request if the helper has not begun; else wait until it has left."""
    box, left = integers(mailbox), run + (LEFT + thread) * 8
    _lock(mailbox + MUTEX)
    if box[STATE] == ASKED and box[WHOSE] == run:
        box[STATE] = FREE
        fetch_add(left, 1)
    _unlock(mailbox + MUTEX)
    spins = 0
    while load_atomic(left) == 0:
        spins += 1
        if spins > SPINS:
            _yield_core()


@helper
def _wait_to_be_asked(mailbox):
    """Wait for a request: the run that the helper walks in, and its number there."""
    box = integers(mailbox)
    _lock(mailbox + MUTEX)
    while box[STATE] != ASKED:
        _wait(mailbox + CONDITION, mailbox + MUTEX)
    box[STATE] = WALKING
    run, number = box[WHOSE], box[NUMBER]
    _unlock(mailbox + MUTEX)
    return run, number


@helper
def _leave(mailbox, run, number):
    _lock(mailbox + MUTEX)
    integers(mailbox)[STATE] = FREE
    _unlock(mailbox + MUTEX)
    # This is the last time that the helper touches the run.
    fetch_add(run + (LEFT + number) * 8, 1)


@helper
def _serve(mailbox):
    """A helper's endless loop. It can be asked from now on."""
    _lock(mailbox + MUTEX)
    integers(mailbox)[STATE] = FREE
    _unlock(mailbox + MUTEX)
    while True:
        run, number = _wait_to_be_asked(mailbox)
        _walk_steps(run, number, 0)
        _leave(mailbox, run, number)


@helper
def _lead(run):
    """The caller's part of a run: ask the helpers (the first time), walk, and see them off at the end."""
    is_stopped = integers(run)[STOP] != 0
    if integers(run)[BEGUN] == 0:
        if is_stopped:
            return
        integers(run)[BEGUN] = 1
        for thread in range(1, integers(run)[THREADS]):
            _ask(integers(integers(run)[MAILBOXES])[thread - 1], run, thread)
    if is_stopped or _walk_steps(run, 0, integers(run)[DEADLINE]):
        for thread in range(1, integers(run)[THREADS]):
            _see_off(integers(integers(run)[MAILBOXES])[thread - 1], run, thread)
        integers(run)[DONE] = 1


@compiled(types.void(types.int64, types.int64))
def walk(run, mailbox):
    """Walk a run as its caller, or any runs as a helper.

    A caller (``mailbox`` is 0) walks until the run is done, which it records, or until the deadline. A helper walks
    whenever a run asks it to. A run that its caller has stopped is done too: no thread touches it any more.

    Kernels compute in the contract's floating-point mode, and the caller gets its own mode back.
    """
    before = control_register()
    set_control_register(contract_register())
    if mailbox == 0:
        _lead(run)
    else:
        _serve(mailbox)
    set_control_register(before)
