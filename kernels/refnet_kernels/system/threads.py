"""Threads of refnet's own, where the system may have none to give, or no memory for one that has just begun.

CPython's ``Thread.start``, and so every pool of threads, waits until the new thread says that it runs. If the memory is
all but gone, the thread can end before it says so, and the wait never ends. Nothing here waits for such a thread.
"""

from __future__ import annotations

import _thread
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Between two looks whether a thread has ended.
LOOK_SECONDS = 1e-4


class NoThreadError(RuntimeError):
    """The system gives this process no further thread."""


class _Token:
    """Something that lives as long as a thread does."""


def start(function: Callable[..., None], *arguments: Any) -> Callable[[], object]:
    """Start a thread that does not keep the process from ending.

    Returns
    -------
    callable
        It returns None once the thread has ended.

    Raises
    ------
    NoThreadError
    """
    token = _Token()
    is_there = weakref.ref(token)
    try:
        _thread.start_new_thread(_run, (token, function, arguments))
    except RuntimeError as error:
        raise NoThreadError(f"the system gives this process no further thread ({count_threads()})") from error
    return is_there


def _run(token: _Token, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # The interpreter has it until the thread ends. A frame, which an exception can keep, must not.
    del token
    try:
        function(*arguments)
    except MemoryError:
        # Whoever started the thread sees that it has ended.
        return


def count_threads() -> str:
    """How many threads this process has, in words."""
    try:
        return f"it has {len(os.listdir('/proc/self/task'))}"
    except OSError:
        return f"Python has {_thread._count() + 1} of them"


class Helpers(Generic[T]):
    """Threads that do some work for each of some items, while the caller does something else.

    There may be fewer threads than were asked for, or none, and they may leave items undone: the caller can
    `take_part`. What Ctrl-C must not interrupt is only done in the threads, as they never see it.

    At the end of the ``with`` statement all the threads have ended, and what one of them raised is raised. After an
    exception, in whichever thread, no further item is begun.

    Parameters
    ----------
    work : callable
    items : sequence
    threads : int
        How many threads, at most.
    """

    def __init__(self, work: Callable[[T], object], items: Sequence[T], threads: int) -> None:
        self._work = work
        # Drawing from it is one step for the interpreter.
        self._items: Iterator[T] = iter(list(items))
        self._count = max(0, min(threads, len(items)))
        # A place for each thread's failure, and the caller's: to keep it must not fail for want of memory.
        self._failures: list[BaseException | None] = [None] * (self._count + 1)
        self._threads: list[Callable[[], object]] = []
        self._stopped = False

    def __enter__(self) -> Helpers[T]:
        try:
            for number in range(self._count):
                self._threads.append(start(self._draw, number))
        except (NoThreadError, MemoryError):
            pass
        except BaseException:
            self._stopped = True
            self._wait()
            raise
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._stopped |= kind is not None
        interruption = self._wait()
        if kind is None:
            for failure in (interruption, *self._failures):
                if failure is not None:
                    raise failure

    def take_part(self) -> None:
        """Do the work for items that no thread has begun."""
        self._draw(self._count)

    def _wait(self) -> BaseException | None:
        """Wait until all threads have ended, even if Ctrl-C comes, which is returned."""
        interruption: BaseException | None = None
        while True:
            try:
                for is_there in self._threads:
                    while is_there() is not None:
                        time.sleep(LOOK_SECONDS)
                return interruption
            except BaseException as error:
                interruption, self._stopped = error, True

    def _draw(self, number: int) -> None:
        try:
            for item in self._items:
                if self._stopped:
                    break
                self._work(item)
        except BaseException as error:
            self._stopped = True
            self._failures[number] = error
