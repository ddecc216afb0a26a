"""``refnet batch``: a folder or a table of images in, a row for each of them out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from refnet.bulk import BATCH, FORMATS, RUNNERS, SHARD_ROWS
from refnet.cli.console import announce_compilation, print_json, print_table, printable, say, takes_escapes
from refnet.cli.failures import file_errors
from refnet.cli.options import (
    add_engine_options,
    add_json_option,
    add_weights_options,
    check_engine_options,
    count,
    load,
    read_labels,
    recipe_text,
    some_seconds,
    whole,
)
from refnet.errors import ConfigError, InputError
from refnet_kernels.system.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from refnet.bulk.job import Batch, Progress

EPILOG = """\
examples:
  refnet batch photos --weights resnet_v2_50.ckpt --out rows
  refnet batch 'shards/*.tar' --weights resnet_v2_50.ckpt --features pooled --out features
  refnet batch train.parquet --column image --weights resnet_v2_50.ckpt --out rows --runner daft --workers 4
  refnet batch --status rows

An image that cannot be used gives an error row, and the others go on. A job that was interrupted or killed goes on by
the same command. The SHA-256 of all rows does not depend on how the work was cut: see docs/bulk.md.

exit codes: 0 every input has its row, 2 usage, or another job's directory, 5 no inputs, or more errors than
--max-errors, 130 interrupted
"""

#: Seconds between two lines, and between two events.
_LINE_SECONDS, _EVENT_SECONDS = 60, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", nargs="*", metavar="SRC",
        help="a directory of images, a pattern in quotes, a list of paths (.txt), tars, or Parquet files",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="W", help="the weights, as for refnet predict")
    parser.add_argument("--out", metavar="DIR", help="the directory of the rows; it belongs to this job")
    parser.add_argument("--status", metavar="DIR", help="how far the job of a directory is")
    parser.add_argument("--hash", metavar="PATH", help="the SHA-256 of rows, also those that Daft, Ray or Spark wrote")
    parser.add_argument(
        "--top", type=count, metavar="K", help="how many classes (default 5, if nothing else is wanted)"
    )
    parser.add_argument("--features", choices=("pooled", "dense"), help="the last features, pooled or as they are")
    parser.add_argument("--end-points", nargs="+", default=[], metavar="NAME", help="end points, by TF-Slim's names")
    parser.add_argument("--output-stride", type=count, metavar="N", help="finer dense features, by atrous convolution")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, as for refnet predict")
    parser.add_argument("--column", metavar="NAME", help="the column of a Parquet file with bytes or paths (image)")
    parser.add_argument("--id-column", metavar="NAME", help="its column of ids (default: file and number of the row)")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the rows (default parquet)")
    parser.add_argument("--batch", type=count, default=BATCH, metavar="N", help=f"images at once (default {BATCH})")
    parser.add_argument(
        "--shard-rows", type=count, default=SHARD_ROWS, metavar="N", help=f"rows per file (default {SHARD_ROWS:,})"
    )
    parser.add_argument("--max-errors", type=whole, metavar="N", help="stop when there are more error rows")
    parser.add_argument("--row-seconds", type=some_seconds, metavar="S", help="the time to read and decode one image")
    parser.add_argument("--retry-errors", action="store_true", help="do again what has error rows")
    parser.add_argument(
        "--runner", choices=RUNNERS, default=RUNNERS[0],
        help="this process (local, the default), processes by Daft, or a Ray cluster by Daft",
    )  # fmt: skip
    parser.add_argument("--workers", type=count, metavar="N", help="how many processes, for Daft and Ray")
    add_engine_options(parser)
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the job, or tell how far it is.

    Returns
    -------
    int
        0, or that of an interruption.
    """
    if arguments.status is not None:
        if arguments.source or arguments.weights or arguments.out:
            raise ConfigError("--status DIR stands alone.")
        return _status(arguments)
    if arguments.hash is not None:
        if arguments.source or arguments.weights or arguments.out:
            raise ConfigError("--hash PATH stands alone.")
        return _hash(arguments)
    missing = [
        name
        for name, value in (("SRC", arguments.source), ("--weights", arguments.weights), ("--out", arguments.out))
        if not value
    ]
    if missing:
        raise ConfigError(f"Pass SRC, --weights and --out (missing: {', '.join(missing)}), or --status DIR.")
    from refnet.bulk.job import batch

    check_engine_options(arguments)
    weights = load(arguments.weights, arguments, read_labels(arguments.labels))
    say(f"recipe: {recipe_text(weights.recipe)}")
    announce_compilation()
    options: dict[str, Any] = {} if arguments.output_stride is None else {"output_stride": arguments.output_stride}
    source = arguments.source[0] if len(arguments.source) == 1 else arguments.source
    seen: list[Progress] = []
    with _progress(arguments.json) as show, _terminated_as_interrupted(), file_errors(InputError):

        def progress(now: Progress) -> None:
            seen[:] = [now]
            show(now)

        try:
            done = batch(
                source, weights, arguments.out, top=arguments.top, features=arguments.features,
                end_points=arguments.end_points, column=arguments.column, id_column=arguments.id_column,
                format=arguments.format, batch_size=arguments.batch, shard_rows=arguments.shard_rows,
                max_errors=arguments.max_errors, row_seconds=arguments.row_seconds,
                retry_errors=arguments.retry_errors, runner=arguments.runner, workers=arguments.workers,
                progress=progress, device=arguments.device, threads=arguments.threads, **options,
            )  # fmt: skip
        except KeyboardInterrupt:
            where = f" after {seen[0].done:,} of {seen[0].total:,}" if seen else ""
            say(f"interrupted{where}; the same command goes on where this one stopped")
            return INTERRUPTED
    if arguments.json:
        print_json({"event": "done", **done._asdict()})
    else:
        _print(done)
    return 0


def _print(done: Batch) -> None:
    if done.left_out:
        endings = ", ".join(f"{count:,} {ending}" for ending, count in sorted(done.left_out.items()))
        say(f"left out, as their names are not those of images: {endings}")
    rate = f", {done.made / done.seconds:,.1f} per second" if done.made else ""
    print(f"rows      {done.rows:,} in {printable(done.out)}, {done.made:,} of them now in {done.seconds:,.1f} s{rate}")
    print(f"errors    {_errors(done.errors, done.by_type)}")
    print(f"SHA-256   {done.sha256}")


def _errors(errors: int, by_type: Mapping[str, int]) -> str:
    types = ", ".join(f"{count:,} {printable(type)}" for type, count in sorted(by_type.items()))
    return f"{errors:,} ({types}); --retry-errors tries them again" if errors else "0"


def _status(arguments: argparse.Namespace) -> int:
    from refnet.bulk.job import status_of

    with file_errors(InputError):
        status = status_of(arguments.status)
    if arguments.json:
        print_json(status._asdict())
        return 0
    state = "running" if status.running else "finished" if status.sha256 else "not finished; its command goes on"
    print(f"state     {state}")
    print(f"rows      {status.rows:,} in {status.shards:,} shards")
    print(f"errors    {_errors(status.errors, status.by_type)}")
    if status.sha256:
        print(f"SHA-256   {status.sha256}")
    if status.examples:
        print_table(["id", "error", "message"], status.examples)
    return 0


def _hash(arguments: argparse.Namespace) -> int:
    from refnet.bulk.job import hash_of

    with file_errors(InputError):
        rows, sha256 = hash_of(arguments.hash)
    if arguments.json:
        print_json({"rows": rows, "sha256": sha256})
    else:
        print(f"rows      {rows:,}")
        print(f"SHA-256   {sha256}")
    return 0


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line per minute; or an event every few seconds."""
    if as_json:
        yield _now_and_then(_EVENT_SECONDS, lambda now: print_json({"event": "progress", **now._asdict()}), flush=True)
    elif takes_escapes(sys.stderr):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.fields[rate]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
        )  # fmt: skip
        with Bar(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("", total=None, rate="", errors="")

            def show(now: Progress) -> None:
                errors = f"{now.errors:,} errors" if now.errors else ""
                bar.update(task, completed=now.done, total=now.total, rate=f"{now.rate:,.1f}/s", errors=errors)

            yield show
    else:
        yield _now_and_then(_LINE_SECONDS, lambda now: say(_line(now)))


def _now_and_then(every: float, show: Callable[[Progress], None], flush: bool = False) -> Callable[[Progress], None]:
    last = -every if flush else time.monotonic()

    def shown(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            show(now)
            if flush:
                sys.stdout.flush()

    return shown


def _line(now: Progress) -> str:
    left = "" if now.seconds_left is None else f", {_time(now.seconds_left)} left"
    errors = f", {now.errors:,} errors" if now.errors else ""
    return f"{now.done:,} of {now.total:,}, {now.rate:,.1f} per second{left}{errors}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a moment"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which a cluster takes a machine away, ends the job as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
