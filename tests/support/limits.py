"""Bounds on the work that a refusal may take: 2 seconds of the processor, and 256 MB of memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 2.0
MEMORY = 256 * 2**20
#: Seconds after which it counts as hung: it may wait without any work.
HANG = 60


def _hung(*_: object) -> None:
    raise TimeoutError(f"nothing came of it in {HANG} s")


def _ring(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _hung if seconds else signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def within_limits() -> Iterator[None]:
    """Fail if what is done takes more than `SECONDS` of the processor's time, or `MEMORY` beyond what was in use."""
    before, started = _restarted(), time.process_time()
    _ring(HANG)
    try:
        yield
    finally:
        _ring(0)
    taken = time.process_time() - started
    assert taken < SECONDS, f"{taken:.1f} s"
    if before is not None:
        grown = _status("VmHWM") - before
        assert grown < MEMORY, f"{grown >> 20} MiB"


def _restarted() -> int | None:
    """Begin to watch the most memory in use, and return what is now; None where the system has no such watch."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(key: str) -> int:
    """A figure of ``/proc/self/status``, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
