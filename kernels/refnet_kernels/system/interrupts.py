"""An interrupt (Ctrl-C) of the command line while it still imports what it needs.

Python would raise KeyboardInterrupt in the middle of somebody's import, which ends in a traceback. Other programs that
import refnet are left alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import pairwise
from types import FrameType
from typing import NoReturn

#: The exit code after an interrupt: 128 and the number of the signal.
INTERRUPTED = 130


def _is_command() -> bool:
    """Whether this process is ``refnet``, or ``python -m refnet``."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    # Python calls a module "-m" until it has found it.
    return name == "refnet" or (name == "-m" and ("-m", "refnet") in pairwise(sys.orig_argv))


def _end(_: int, __: FrameType | None) -> NoReturn:
    os.write(2, b"refnet: interrupted\n")
    os._exit(INTERRUPTED)


def answered_by_exceptions() -> None:
    """From now on an interrupt raises KeyboardInterrupt, as Python has it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
