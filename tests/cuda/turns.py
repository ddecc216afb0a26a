"""Numba's simulator with the threads of a block in turns: one at a time, from one barrier to the next.

The simulator starts a thread of the system for each CUDA thread and polls them all, so that most of the time goes into
who waits for whom. Here one thread hands on to the next, in another order after each barrier: what one writes and
another reads without a barrier between them is found, and on every machine alike.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class AbortedError(Exception):
    """Another thread of the block has failed."""


class Turn(threading.Thread):
    """A thread of the system, which is one CUDA thread after another, and idle in between."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._go = threading.Lock()
        self._go.acquire()
        self.start()

    def begin(self, block: Block, place: Any) -> None:
        """Become a thread of a block, which runs from the next `go`. The simulator reads the two attributes."""
        self._block, self.threadIdx, self.blockIdx = block, place, block.place

    def go(self) -> None:
        self._go.release()

    def run(self) -> None:
        while True:
            self._go.acquire()
            try:
                self._block.call()
            except BaseException as error:
                self._block.error = self._block.error or error
            self._block.hand_on()

    def syncthreads(self) -> None:
        """Wait for the other threads of the block; the simulator calls it."""
        self._block.waiting.append(self)
        self._block.hand_on()
        self._go.acquire()
        if self._block.error is not None:
            raise AbortedError


#: As many as the largest block had.
_turns: list[Turn] = []


class Block:
    """A block of threads, in the place of Numba's ``BlockManager``, which has this interface."""

    _draw = random.Random(0)

    def __init__(self, function: Callable[..., None], grid_dim: Any, block_dim: Any, debug: bool) -> None:
        self._function, self._shape = function, tuple(block_dim)
        self.error: BaseException | None = None
        self.waiting: list[Turn] = []
        self._running: Iterator[Turn] = iter(())
        self._over = threading.Lock()

    def run(self, grid_point: Any, *arguments: Any) -> None:
        """Run the block at a point of the grid."""
        from numba.cuda.simulator.kernelapi import Dim3

        self.call = lambda: self._function(*arguments)
        self.place = Dim3(*grid_point)
        places = list(np.ndindex(self._shape))
        _turns.extend(Turn() for _ in range(len(places) - len(_turns)))
        self.waiting = _turns[: len(places)]
        for turn, place in zip(self.waiting, places, strict=True):
            turn.begin(self, Dim3(*place))
        with self._over:
            self.hand_on()
            # Until the last thread releases it.
            self._over.acquire()
        if self.error is not None:
            raise self.error

    def hand_on(self) -> None:
        """Let the next thread run; after the last one those that wait, if any."""
        turn = next(self._running, None)
        if turn is None and self.waiting:
            self._draw.shuffle(self.waiting)
            self._running, self.waiting = iter(self.waiting), []
            turn = next(self._running)
        if turn is None:
            self._over.release()
        else:
            turn.go()


def take_turns() -> None:
    """Have the simulator use these blocks."""
    from numba.cuda.simulator import kernel

    kernel.BlockManager = Block
