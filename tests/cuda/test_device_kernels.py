"""The problems on CUDA: on a device, or in Numba's simulator, in which `test_simulator.py` runs this file."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refnet_kernels.catalog import rows, select
from refnet_kernels.gpu.device import Device, missing, open_device, simulated
from tests.problems import NAMED, Problem, in_binary32
from tests.problems.conv import conv_problem, conv_same
from tests.problems.softmax import SoftmaxProblem
from tests.problems.strategies import DRAWN
from tests.support.arrays import assert_same_bits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(missing() is not None, reason=f"no CUDA device: {missing()}"),
    # The simulator computes with NumPy's numbers, which warn of what the contract allows.
    pytest.mark.filterwarnings("ignore::RuntimeWarning" if simulated() else "error"),
]

OPS = [op for op, backend in rows() if backend == "cuda"]
#: The numbers of the convolution's tiles.
TILES = range(5)
GUARD = 256
POISON = 0xB7
#: The simulator runs some 100,000 products a second, and starts some 10,000 threads.
LARGEST = 1e5 if simulated() else np.inf
SOME = settings(
    max_examples=5 if simulated() else settings.default.max_examples,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def is_small(problem: Problem) -> bool:
    """Whether the device, or its simulator, can do it in no time."""
    if not in_binary32(problem):
        return False
    if problem.op == "conv":
        return bool(problem.geometry.pixels * problem.geometry.products * problem.geometry.out_channels <= LARGEST)
    if problem.op == "group_norm":
        # About a block for each group, and all of a block's threads meet several times.
        return bool(len(problem.x) * problem.groups * 5_000 <= LARGEST)
    return bool(problem.x.size * (10 if problem.op == "softmax" else 1) <= LARGEST)


class Guarded:
    """Memory with guards on both sides, which knows what was uploaded to it."""

    def __init__(self, device: Device, size: int, allocate: Any) -> None:
        self._memory, self._size = allocate(device, size + 2 * GUARD), size
        self._memory.upload(np.full(size + 2 * GUARD, POISON, np.uint8))
        self._uploaded = b""
        self.address = self._memory.address + GUARD

    def upload(self, values: np.ndarray) -> None:
        self._uploaded = values.tobytes()
        self._memory.upload(values, GUARD)

    def download(self, values: np.ndarray) -> None:
        self._memory.download(values, GUARD)

    def check(self) -> None:
        whole = np.empty(self._size + 2 * GUARD, np.uint8)
        self._memory.download(whole)
        assert (whole[:GUARD] == POISON).all(), "written before the beginning of an array"
        assert (whole[-GUARD:] == POISON).all(), "written past the end of an array"
        assert whole[GUARD:].tobytes().startswith(self._uploaded), "written to an input"


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever a kernel leaves around its outputs, or in its inputs, is an error."""
    blocks: list[Guarded] = []
    allocate = Device.allocate

    def allocate_guarded(device: Device, size: int) -> Guarded:
        blocks.append(Guarded(device, size, allocate))
        return blocks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "allocate", allocate_guarded)
        yield
    assert blocks
    for block in blocks:
        block.check()


def check(problem: Problem) -> None:
    with guarded():
        found = problem.call(select(problem.op, "cuda"))
    assert_same_bits(found, problem.defined())


def test_memory_is_given_back_when_nobody_refers_to_it() -> None:
    memory = open_device(0).allocate(1000)
    array = weakref.ref(memory._held[0])
    del memory
    assert array() is None


@contextmanager
def only(tile: int) -> Iterator[Any]:
    """Only one of the tiles, so that small problems get large tiles too."""
    from refnet_kernels.conv import cuda

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "TILES", cuda.TILES[tile : tile + 1])
        yield cuda.TILES[0]


def test_every_tile_is_tested() -> None:
    from refnet_kernels.conv import cuda

    assert len(cuda.TILES) == len(TILES)


def test_every_op_has_a_kernel() -> None:
    assert set(OPS) == {op for op, _ in rows()} == set(DRAWN)


@pytest.mark.parametrize("problem", [p for p in NAMED if is_small(p)], ids=lambda p: f"{p.op}-{p.name}")
def test_named_problems(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("op", OPS)
@SOME
@given(data=st.data())
def test_drawn_problems(op: str, data: st.DataObject) -> None:
    check(data.draw(DRAWN[op].filter(is_small)))


@pytest.mark.skipif(not simulated(), reason="a device gives no order in which threads run")
@pytest.mark.parametrize("barrier", range(1, 6))
def test_a_barrier_that_is_missing_is_found(barrier: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the five that a thread of the softmax comes to, if there are more classes than threads."""
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    reached: Counter[Any] = Counter()

    def syncthreads(_: Any) -> None:
        # An index is of one thread of one block.
        thread = threading.current_thread()
        reached[thread.threadIdx] += 1
        if reached[thread.threadIdx] != barrier:
            thread.syncthreads()

    monkeypatch.setattr(FakeCUDAModule, "syncthreads", syncthreads)
    logits = -1 - np.arange(130, dtype=np.float32)[None] / 100
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        check(SoftmaxProblem("a barrier less", logits))
    assert set(reached.values()) == {5}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("pixels", "channels"), [(-1, 1), (0, 0), (1, -1)])
def test_pixels_and_channels_next_to_the_tiles_own(tile: int, pixels: int, channels: int) -> None:
    with only(tile) as t:
        g = conv_same(1, 1, t.pixels + pixels, 4 if t.vectors else 5, t.channels + channels, 1, 1)
        check(conv_problem("edge", g, "normal", "bias,norm,shortcut,preact"))


@pytest.mark.parametrize("tile", TILES)
def test_runs_that_cross_taps_in_every_tile(tile: int) -> None:
    """72 products are a run and a part of one, 81 end within what would be a vector; both cross taps."""
    with only(tile) as t:
        g = conv_same(2, 3, 4, 8 if t.vectors else 9, 10, 3, 2)
        check(conv_problem("runs", g, "rarely special", "bias,preact"))


EPILOGUES = [
    ",".join(filter(None, parts))
    for parts in itertools.product(
        ["", "bias"], ["", "norm"], ["", "relu"], ["", "shortcut", "shortcut,sum relu"], ["", "preact", "preact only"]
    )
]


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("channels", [7, 8])
def test_every_epilogue_of_a_convolution(epilogue: str, channels: int) -> None:
    check(conv_problem(epilogue, conv_same(1, 1, 3, 3, channels, 1, 1), "rarely special", epilogue))
