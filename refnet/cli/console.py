"""What the commands write: results to stdout, everything else to stderr. rich is loaded only when needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import cache
from typing import Any, Protocol, TypeVar

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
    """Write one JSON object to stdout."""
    print(json.dumps(value, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numeric: Sequence[str] = ()) -> None:
    """Write a table to stdout: with rules and colours to a terminal, else as plain columns.

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
    Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False).print(table)


def track(items: SizedIterable[T], description: str | Callable[[T], str]) -> Iterator[T]:
    """Loop over ``items``, with a bar on stderr if that is a terminal; ``description`` may depend on the item."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=len(items))
        for item in items:
            progress.update(task, description=description if isinstance(description, str) else description(item))
            yield item
            progress.advance(task)


@cache  # once is enough, as nothing unsubscribes
def announce_compilation() -> None:
    """From now on, report which kernels are compiled."""
    from refnet_kernels.jit import on_compile

    on_compile(lambda name: say(f"compiling {name} ... (once on this machine)"))
