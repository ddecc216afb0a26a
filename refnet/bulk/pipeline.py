"""Inputs to rows within one process: threads read and decode beside the engine, so that it does not wait for files."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, NamedTuple

from refnet.bulk.predictor import Predictor, failure_of
from refnet.bulk.rows import Failure, Row
from refnet.bulk.sources import Item, Reader
from refnet.errors import ConfigError, DeviceError
from refnet_kernels.system.cores import count_cores
from refnet_kernels.system.threads import NoThreadError, start

#: Threads that decode, at most: of files on a network a few are waited for at once.
_MOST_DECODERS = 16
#: Threads that hang on an input, and were given up: more are not.
_MOST_HANGING = 64
#: Bytes of prepared images that wait, unless one alone has more; and failures that a batch waits for, per image.
_BYTES, _LONGEST = 256 << 20, 8
#: Seconds between two looks whether the caller wants to stop, or an input's time is over.
_LOOK = 0.05


class _Slot:
    """An input that is being read and decoded."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = threading.Event()
        self.started: float | None = None
        self.result: Any = None


class Decoders:
    """Threads that read, decode and prepare inputs, in the order in which they are given.

    Parameters
    ----------
    predictor : Predictor
    threads : int
    row_seconds : float, optional
        The time that one input may take; a thread that takes longer is given up, and another takes its place.
    """

    def __init__(self, predictor: Predictor, threads: int, row_seconds: float | None = None) -> None:
        self._predictor, self._row_seconds = predictor, row_seconds
        self._reader = Reader()
        self._tasks: SimpleQueue[_Slot | None] = SimpleQueue()
        self._threads = self._hanging = 0
        for _ in range(threads):
            self._add_thread()

    def _add_thread(self) -> None:
        try:
            start(self._work)
            self._threads += 1
        except (NoThreadError, MemoryError):
            if not self._threads:
                raise

    def _work(self) -> None:
        while (slot := self._tasks.get()) is not None:
            slot.started = time.monotonic()
            slot.result = self._result(slot.item)
            slot.done.set()
            if slot.item is _GIVEN_UP:
                return

    def _result(self, item: Item) -> Any:
        """The prepared image, a Failure, or an exception that ends the job."""
        try:
            content = self._reader(item.where)
            return content if isinstance(content, Failure) else self._predictor.prepared(content)
        except (ConfigError, DeviceError) as error:
            return error
        except Exception as error:
            return failure_of(error, item.id)
        except BaseException as error:
            return error

    def begin(self, item: Item) -> _Slot:
        """Have an input read and decoded."""
        slot = _Slot(item)
        self._tasks.put(slot)
        return slot

    def wait(self, slot: _Slot, stopped: Callable[[], bool]) -> Any:
        """What came of it; None if the caller stops before.

        Raises
        ------
        ConfigError, DeviceError
            It is not the input's fault.
        """
        while not slot.done.wait(_LOOK):
            if stopped():
                return None
            seconds = self._row_seconds
            if seconds is not None and slot.started is not None and time.monotonic() - slot.started > seconds:
                return self._give_up(slot, seconds)
        if isinstance(slot.result, BaseException):
            raise slot.result
        return slot.result

    def _give_up(self, slot: _Slot, seconds: float) -> Failure:
        slot.item = _GIVEN_UP
        self._hanging += 1
        if self._hanging > _MOST_HANGING:
            raise DeviceError(
                f"{self._hanging} inputs took more than {seconds:g} s each, and their threads hang: is the place where "
                "they are still there? What is done is kept; the same command goes on."
            )
        self._add_thread()
        return Failure(TimeoutError.__name__, f"It took more than {seconds:g} s to read and decode.")

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in range(self._threads):
            self._tasks.put(None)


#: In the place of the input of a slot that nobody waits for: its thread ends.
_GIVEN_UP = Item("", ("error", "", ""))


class Settings(NamedTuple):
    """How a worker works, on which no row depends.

    Attributes
    ----------
    decoders : int or None
        Threads that decode; None: one per core that the worker may use.
    row_seconds : float or None
        The time that reading and decoding one input may take.
    """

    decoders: int | None = None
    row_seconds: float | None = None


def rows_of(
    predictor: Predictor, items: Iterable[Item], settings: Settings, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Row]:
    """A row for each input, in their order; none of those after a batch at whose end the caller stops.

    Parameters
    ----------
    predictor : Predictor
    items : iterable of Item
    settings : Settings
    stopped : callable
        Whether to stop.

    Yields
    ------
    Row
    """
    decoders = Decoders(predictor, settings.decoders or min(count_cores(), _MOST_DECODERS), settings.row_seconds)
    waiting: deque[_Slot] = deque()
    batch: list[tuple[str, Any]] = []
    source = iter(items)
    good, nbytes, largest = 0, 0, 1
    try:
        while True:
            ahead = min(2 * predictor.batch, max(2, _BYTES // largest))
            while len(waiting) < ahead and (item := next(source, None)) is not None:
                waiting.append(decoders.begin(item))
            if waiting:
                slot = waiting.popleft()
                id, prepared = slot.item.id, decoders.wait(slot, stopped)
                if prepared is None:
                    return
                batch.append((id, prepared))
                if not isinstance(prepared, Failure):
                    size = prepared.pixels.nbytes
                    good, nbytes, largest = good + 1, nbytes + size, max(largest, size)
            # Two at least are begun, if there are so many.
            is_last = not waiting
            if is_last or good == predictor.batch or nbytes > _BYTES or len(batch) == _LONGEST * predictor.batch:
                outcomes = predictor.outcomes([prepared for _, prepared in batch])
                for (id, prepared), outcome in zip(batch, outcomes, strict=True):
                    yield predictor.row(id, outcome, prepared)
                batch, good, nbytes = [], 0, 0
                if is_last or stopped():
                    return
    finally:
        decoders.close()
