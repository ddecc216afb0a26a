"""Want of memory and of threads, told as errors of refnet: where it can be foreseen, before anything is allocated."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from refnet.errors import DeviceError, InputError, LimitError, RefnetError
from refnet_kernels.system.memory import room_for_more
from refnet_kernels.system.threads import NoThreadError

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: What takes less than this is not compared with the memory that is left: to ask the system takes up to a millisecond.
SMALL_BYTES = 32 * 2**20

#: What libraries say where the system has no memory for them, or no thread.
_NO_MEMORY = ("cannot allocate memory", "failed to map segment", "out of memory", "memory allocation failed")
_NO_THREAD = "can't start new thread"


def is_want(error: BaseException) -> bool:
    """Whether an exception says that the system had no memory, or no thread, for what was to be done.

    Whoever takes a library's exceptions for damage asks this first.
    """
    return _reason(error) is not None


def _reason(error: BaseException) -> BaseException | None:
    """The exception that says so: a library may hide it behind one of its own."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, MemoryError | NoThreadError) or getattr(reason, "errno", None) == errno.ENOMEM:
            return reason
        text = str(reason).lower()
        if isinstance(reason, OSError | ImportError) and any(phrase in text for phrase in _NO_MEMORY):
            return reason
        if isinstance(reason, RuntimeError) and _NO_THREAD in text:
            return reason
        reason = reason.__cause__ or reason.__context__
    return None


class Telling:
    """Want of memory becomes an error of refnet, and want of threads a DeviceError. Also a decorator.

    The memory that the failed work held is free again.

    Parameters
    ----------
    kind : type of RefnetError
        For want of memory.
    what : str
        What the memory is for.
    advice : str
        What to do next: a sentence.
    """

    def __init__(self, kind: type[RefnetError], what: str, advice: str) -> None:
        self._kind, self._what, self._advice = kind, what, advice
        # There may be no memory to write another one.
        self._shortest = f"There is not enough memory for {what}. {advice}"

    def __call__(self, function: _Function) -> _Function:
        """The function, which tells."""

        @wraps(function)
        def telling(*args: Any, **kwargs: Any) -> Any:
            # A forward of a small network takes 0.1 ms: this costs it least.
            try:
                return function(*args, **kwargs)
            except Exception as error:
                self._tell(error)
                raise

        return telling  # type: ignore[return-value]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        reason = None if isinstance(error, RefnetError) else _reason(error)
        if reason is None:
            return
        _forget(error.__traceback__)
        error.__traceback__ = None
        raise self._told(reason) from error

    def _told(self, reason: BaseException) -> RefnetError:
        if isinstance(reason, RuntimeError):
            return DeviceError(f"There are too few threads: {reason}. Pass a smaller number as threads=.")
        try:
            room = room_for_more()
            detail = f" ({reason})" if str(reason) else ""
            left = "" if room is None else f"; {_size(room.nbytes)} are left by {room.limit}"
            return self._kind(f"There is not enough memory for {self._what}{detail}{left}. {self._advice}")
        except MemoryError:
            return self._kind(self._shortest)


def _forget(traceback: TracebackType | None) -> None:
    """Let go of what the frames of a traceback hold."""
    while traceback is not None:
        # A frame that is still running keeps what it has.
        with suppress(RuntimeError):
            traceback.tb_frame.clear()
        traceback = traceback.tb_next


#: For whatever runs on images, and for whatever holds weights.
for_images = Telling(
    InputError, "these images", "Pass fewer images at a time, or parts of them: the bits are the same for any batch."
)
for_a_command = Telling(RefnetError, "this command", "Free memory, or raise the limit.")
for_weights = Telling(LimitError, "these weights", "Free memory, or raise the limit.")


def check_room(each: int, what: str, images: int = 1, needed: Callable[[int], int] | None = None) -> None:
    """Refuse what does not fit into the memory that is left, before it is allocated.

    Parameters
    ----------
    each : int
        Bytes that are allocated for each image, at the least.
    what : str
        What they are for, as the beginning of a sentence.
    images : int
        How many images there are. For none, one has to fit: what is planned for a batch depends on the images' size.
    needed : callable, optional
        From a number of images to all the bytes; it is not asked about more images than ``each`` allows, for which it
        may have much to do. By default ``each`` is all.

    Raises
    ------
    InputError
        It names the bytes, and how many images would fit.
    """
    count = max(images, 1)
    total = needed or (lambda number: number * each)
    nbytes = count * each
    room = None if nbytes < SMALL_BYTES else room_for_more()
    is_least = room is not None and nbytes > room.nbytes
    if not is_least:
        nbytes = total(count)
        room = room or (None if nbytes < SMALL_BYTES else room_for_more())
    if room is None or nbytes <= room.nbytes:
        return
    fit = bisect_right(range(1, min(count, room.nbytes // each + 1)), room.nbytes, key=total)
    least = "at least " if is_least and needed else ""
    left = f"{_size(room.nbytes)} are left by {room.limit}"
    advice = f"A batch of {fit} would fit, and has the same bits." if fit else "Pass smaller images, or tiles of them."
    raise InputError(
        f"{what} would take {least}{_size(nbytes)} of memory, but {left}. {advice}",
        expected=room.nbytes,
        found=nbytes,
    )


def _size(nbytes: int) -> str:
    if nbytes >= 2**60:
        return "more than 2**60 bytes"
    return f"{nbytes / 2**30:,.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:,.0f} MiB"
