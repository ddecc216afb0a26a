"""Threads where the system has none to give, or where one ends before it begins to work."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refnet_kernels.catalog import select
from refnet_kernels.contract import BINARY32, Packed, Target
from refnet_kernels.conv import cpu
from refnet_kernels.cpu.team import aligned_zeros
from refnet_kernels.system.threads import Helpers, NoThreadError, start
from refnet_kernels.target import WIDTH
from tests.kernels.test_team import assert_runs
from tests.problems.conv import conv_problem, conv_same

START = _thread.start_new_thread


def none_to_give(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    raise RuntimeError("can't start new thread")


def one_that_ends(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """As a thread for whose first step there is no memory."""
    return START(lambda *_: None, arguments)


@pytest.fixture(params=[none_to_give, one_that_ends], ids=lambda start: start.__name__)
def _no_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", request.param)


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
def test_all_items_are_done_once(threads: int) -> None:
    done: list[int] = []
    with Helpers(done.append, range(100), threads) as helpers:
        helpers.take_part()
    assert sorted(done) == list(range(100))


def test_threads_do_all_without_the_caller() -> None:
    done: list[int] = []
    with Helpers(lambda item: done.append(_thread.get_ident()), range(100), 2):
        pass
    assert len(done) == 100
    assert _thread.get_ident() not in done


@pytest.mark.usefixtures("_no_thread")
def test_the_caller_does_what_no_thread_does() -> None:
    done: list[int] = []
    with Helpers(done.append, range(100), 3) as helpers:
        time.sleep(0.01)
        assert done == []
        helpers.take_part()
    assert done == list(range(100))
    with Helpers(done.append, range(100), 3):
        pass
    assert len(done) == 100


def test_a_failure_ends_the_work_and_is_raised() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item == 3:
            raise MemoryError
        time.sleep(0.001)

    with pytest.raises(MemoryError), Helpers(work, range(1000), 2):
        pass
    assert len(done) < 500


def test_ctrl_c_waits_for_what_has_begun() -> None:
    done: list[int] = []
    inside = threading.Event()

    def wait() -> None:
        inside.set()
        time.sleep(60)

    def work(item: int) -> None:
        # Not while the caller still enters.
        inside.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Helpers(work, range(50), 1):
        wait()
    assert done == [0]


def test_a_thread_that_has_ended_is_not_there() -> None:
    gate = _thread.allocate_lock()
    gate.acquire()
    is_there = start(gate.acquire)
    assert is_there() is not None
    gate.release()
    until = time.monotonic() + 60
    while is_there() is not None:
        assert time.monotonic() < until


@pytest.fixture(scope="module")
def problem() -> Any:
    return conv_problem("team", conv_same(1, 20, 20, 8, 100, 3, 1), "normal", "bias")


def test_a_team_grows_and_is_shared(problem: Any) -> None:
    # In the process of the tests, others may have needed more threads.
    cores = len(os.sched_getaffinity(0))
    assert_runs(problem, 9, times=1)
    assert_runs(problem, cores, times=1)
    before = len(os.listdir("/proc/self/task"))
    for threads in (8, 7, 6, 5, 4, 3, 2, 9):
        assert_runs(problem, threads, times=1)
    assert len(os.listdir("/proc/self/task")) == before


#: More than the other tests ask for, another number each time.
MORE = iter(range(40, 60))


def test_a_team_without_threads_says_so_and_works_again(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = next(MORE)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", none_to_give)
        with pytest.raises(NoThreadError, match=rf"{threads} threads are wanted and \d+ are there: the system gives"):
            assert_runs(problem, threads, times=1)
    assert_runs(problem, threads, times=2)


def test_nobody_waits_for_a_helper_that_ended_and_it_is_replaced(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = next(MORE)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", one_that_ends)
        with pytest.raises(MemoryError, match="A thread ended before it began to work"):
            assert_runs(problem, threads, times=1)
    assert_runs(problem, threads, times=2)


def kernel() -> np.ndarray:
    weights = aligned_zeros(3 * 3 * 5 * 2 * WIDTH, np.float32).reshape(3, 3, 5, 2 * WIDTH)
    weights[...] = np.random.default_rng(0).standard_normal(weights.shape)
    return weights


def prepared(weights: np.ndarray) -> np.ndarray:
    packed: dict[str, Packed] = {}
    select("conv", "cpu").prepare({"conv": weights}, packed, True, Target(BINARY32, 2))
    return packed["conv"].values


@pytest.mark.usefixtures("_no_thread")
def test_kernels_are_packed_without_threads() -> None:
    weights = kernel()
    assert np.array_equal(prepared(weights), cpu.pack(kernel()))
    # Ctrl-C could stop the caller half-way.
    assert np.array_equal(weights, kernel())


def test_a_kernel_that_could_not_be_packed_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(weights: np.ndarray, out: np.ndarray) -> None:
        out[0] = weights.reshape(45, -1)[:, :WIDTH]
        raise MemoryError

    weights, pack = kernel(), cpu.pack
    monkeypatch.setattr(cpu, "pack", half)
    with pytest.raises(MemoryError):
        prepared(weights)
    monkeypatch.setattr(cpu, "pack", pack)
    assert np.array_equal(prepared(weights), pack(kernel()))


def test_a_run_leaves_no_helper_at_work_after_any_failure(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what ends the run fails too, as it may for want of memory."""
    code = """
import sys, time
import numpy as np
from refnet_kernels.cpu import team
from tests.kernels.test_team import launch_of
from tests.problems.conv import conv_problem, conv_same
launch, outputs, expected = launch_of(conv_problem("team", conv_same(1, 20, 20, 8, 100, 3, 1), "normal", "bias"))
program = team.Program([launch] * 300, 3)
walk, calls = program._walk, []
def failing(run, mailbox):
    calls.append(run)
    if len(calls) in (2, 3, 4):
        raise MemoryError
    walk(run, mailbox)
program._walk, team.SLICE_SECONDS = failing, 0
try:
    program.run()
except MemoryError:
    outputs["out"][...] = np.nan
    time.sleep(0.05)
    assert np.isnan(outputs["out"]).all()
program.run()
assert outputs["out"].tobytes() == expected["out"].tobytes()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
