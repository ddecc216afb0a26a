"""What the commands write: results to stdout, everything else to stderr. rich is loaded only when needed."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TextIO, TypeVar

from refnet.checks import plain_json

T = TypeVar("T", covariant=True)

#: The width of tables that are not for a terminal, so that no row is broken.
_UNBROKEN = 10_000


class SizedIterable(Sized, Iterable[T], Protocol[T]):
    """Something to loop over whose length is known."""


def printable(text: str) -> str:
    """The text, with characters escaped that would move a terminal's cursor or cannot be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(message: str) -> None:
    """Write a line for the user to stderr."""
    print(f"refnet: {printable(message)}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write one JSON object to stdout; a number that JSON cannot write is "nan", "inf" or "-inf"."""
    print(json.dumps(plain_json(value), default=str, allow_nan=False))


class Output:
    """Stdout or stderr for a command, whose reader may leave before the end: what follows is then discarded.

    So the command goes on, and its exit code is the one that it would have had.

    Parameters
    ----------
    stream : file, or None
        None: the shell has closed it (``>&-``).
    name : str
        For errors: where the stream leads nobody knows.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 (open until the process ends)
        self._name = name
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")  # a name that the encoding lacks

    def write(self, text: str) -> int:
        """Write, unless nobody reads."""
        self._guarded(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, unless nobody reads."""
        self._guarded(self._stream.flush)

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            # What is left in the buffer must not fail again when Python exits.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except OSError as error:
            error.filename = self._name
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def takes_escapes(stream: TextIO | Output) -> bool:
    """Whether a stream is a terminal that knows escape codes, and its user has not turned them off by NO_COLOR."""
    told = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    return not told and bool(stream.isatty())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numeric: Sequence[str] = ()) -> None:
    """Write a table to stdout: with rules to a terminal, in colours if it takes them; else as plain columns.

    Parameters
    ----------
    columns : sequence of str
    rows : iterable of sequence
    numeric : sequence of str
        The columns that are aligned to the right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    width = None if terminal else _UNBROKEN
    colours = takes_escapes(sys.stdout)
    console = Console(
        file=sys.stdout, width=width, force_terminal=colours, markup=False, highlight=False, emoji=False
    )  # fmt: skip
    console.print(table)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """What sets a bar on stderr, by a description, what is done, and the total; None if stderr cannot show one."""
    if not takes_escapes(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def track(items: SizedIterable[T], description: str | Callable[[T], str]) -> Iterator[T]:
    """Loop over ``items``, with a bar on stderr if that can show one; ``description`` may depend on the item."""
    with progress_bar() as show:
        for done, item in enumerate(items):
            if show is not None:
                show(description if isinstance(description, str) else description(item), done, len(items))
            yield item


@cache  # once is enough, as nothing unsubscribes
def announce_compilation() -> None:
    """From now on, report which kernels are compiled."""
    try:
        from refnet_kernels.jit import on_compile
    except ImportError:  # without a compiler, as in a browser, the definitions work all the same
        return
    on_compile(lambda name: say(f"compiling {name} ... (once on this machine)"))
