"""Teams of threads: what is run once or often, alone or beside others, is the same."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from refnet_kernels.catalog import select
from refnet_kernels.cpu.team import ITEMS_PER_LOOK, SLICE_SECONDS, Launch, Program
from refnet_kernels.system.cores import share_of
from tests.problems import Problem
from tests.problems.conv import conv_problem, conv_same
from tests.support.arrays import Arrays, assert_same_bits

THREADS = [1, 2, 3, 8]


def launch_of(problem: Problem) -> tuple[Launch, Arrays, Arrays]:
    """The step, what it writes to, and what it should write."""
    expected = problem.defined()
    inputs = {name: array for name, array in problem.inputs().items() if array is not None}
    outputs = {name: np.empty_like(array) for name, array in expected.items()}
    launch = problem.launch(
        select("conv", "cpu"), {name: array.ctypes.data for name, array in (inputs | outputs).items()}
    )
    # The step knows the inputs by their addresses alone.
    return launch._replace(kept=(*inputs.values(), *launch.kept)), outputs, expected


def assert_runs(problem: Problem, threads: int, times: int) -> None:
    launch, outputs, expected = launch_of(problem)
    # More items than a slice has at the least.
    program = Program([launch] * 2 * ITEMS_PER_LOOK, threads)
    for _ in range(times):
        for output in outputs.values():
            output[...] = np.nan
        program.run()
        assert_same_bits(outputs, expected)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return conv_problem("team", conv_same(1, 20, 20, 8, 100, 3, 1), "normal", "bias")


@pytest.fixture(params=[SLICE_SECONDS, 0.0], ids=["in one go", "in slices"])
def _slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet_kernels.cpu.team.SLICE_SECONDS", request.param)


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize("threads", THREADS)
def test_every_run_is_as_the_first(threads: int, problem: Problem) -> None:
    assert_runs(problem, threads, times=20)


@pytest.mark.parametrize("slices", [0, 1, 5])
@pytest.mark.parametrize("threads", THREADS)
def test_a_run_that_is_ended_leaves_all_alone(
    slices: int, threads: int, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refnet_kernels.cpu.team.SLICE_SECONDS", 0.0)
    launch, outputs, expected = launch_of(problem)
    program = Program([launch] * 300, threads)
    clock_gettime_ns, reads = time.clock_gettime_ns, iter(range(slices))

    def interrupt(clock: int) -> int:
        if next(reads, None) is None:
            raise KeyboardInterrupt
        return clock_gettime_ns(clock)

    with monkeypatch.context() as patch:
        patch.setattr(time, "clock_gettime_ns", interrupt)
        # Where the helpers are soon done with all, there is nothing to interrupt.
        with suppress(KeyboardInterrupt):
            program.run()
    out = outputs["out"]
    out[...] = np.nan
    time.sleep(0.01)
    assert np.isnan(out).all()
    program.run()
    assert_same_bits(outputs, expected)


@pytest.mark.parametrize("threads", THREADS)
def test_runs_of_several_callers_at_once(threads: int, problem: Problem) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(assert_runs, problem, threads, 50) for _ in range(4)]:
            done.result()


@pytest.mark.parametrize("items", [0, 1, 7, 28, 64])
@pytest.mark.parametrize("threads", THREADS)
def test_shares_are_all_items_in_order(items: int, threads: int) -> None:
    assert [item for share in range(threads) for item in share_of(items, share, threads)] == list(range(items))
