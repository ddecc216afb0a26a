"""A whole job: inputs to shards of rows in a directory, which any interruption leaves ready to go on."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from refnet.bulk import BATCH, FORMATS, RUNNERS, SHARD_ROWS, daft_runner
from refnet.bulk.arrow import pyarrow
from refnet.bulk.pipeline import Settings, rows_of
from refnet.bulk.predictor import Predictor
from refnet.bulk.rows import Row, check_ids, entries_of, hash_of_rows
from refnet.bulk.shards import Directory, Head, Index, errors_of, index_of, not_done, without_errors, write_shard
from refnet.bulk.sources import Item, Source, source_of
from refnet.checks import as_int, check_bool, check_choice, check_number, check_positive, listed, path_of
from refnet.errors import ConfigError, InputError, RefnetWarning
from refnet.images.preprocess import Recipe
from refnet.network.options import KEYWORDS
from refnet.signatures import shows
from refnet_kernels.system.forks import making

#: Bytes of a shard's values, at most, unless one row has more.
_SHARD_BYTES = 128 << 20
#: Seconds between two calls of the caller's progress.
_TELL_SECONDS = 0.1


class Progress(NamedTuple):
    """How far a job is.

    Attributes
    ----------
    done, total : int
        Rows that are there, and inputs.
    errors : int
        Error rows among them.
    rate : float
        Inputs per second, of this run.
    seconds_left : float or None
        None until something is known.

    Examples
    --------
    >>> import refnet
    >>> def show(progress):
    ...     if progress.done == progress.total:
    ...         print(progress.total, "images,", progress.errors, "errors")
    >>> _ = refnet.batch("digit*.png", "digits.ckpt", "rows", format="jsonl", progress=show)
    10 images, 0 errors
    """

    done: int
    total: int
    errors: int
    rate: float
    seconds_left: float | None


class Batch(NamedTuple):
    """A finished job.

    Attributes
    ----------
    out : str
        The directory.
    rows, errors : int
        Its rows, and the error rows among them.
    sha256 : str
        The hash of its rows.
    by_type : mapping of str to int
        The error rows by type.
    left_out : mapping of str to int
        Files that are not images by their names, by ending.
    made, seconds : int, float
        The rows of this run, and its time.
    """

    out: str
    rows: int
    errors: int
    sha256: str
    by_type: Mapping[str, int]
    left_out: Mapping[str, int]
    made: int
    seconds: float


@shows(KEYWORDS)
def batch(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    weights: Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    top: int | None = None,
    features: Literal["pooled", "dense"] | None = None,
    end_points: Sequence[str] = (),
    recipe: Recipe | None = None,
    labels: Sequence[str] | None = None,
    column: str | None = None,
    id_column: str | None = None,
    format: Literal["parquet", "jsonl"] = "parquet",
    batch_size: int = BATCH,
    shard_rows: int = SHARD_ROWS,
    max_errors: int | None = None,
    row_seconds: float | None = None,
    retry_errors: bool = False,
    runner: Literal["local", "daft", "ray"] = "local",
    workers: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Batch:
    """Run a network on many images, and keep a row for each of them in a directory.

    An image that cannot be used gives an error row, and the job goes on. A job that was interrupted, however, goes on
    by the same call: shards are written whole or not at all, and what has a row is not done again.

    Parameters
    ----------
    source : path, or sequence of paths
        A directory, whose images are looked for in all directories below it; a pattern, ``"shards/*.tar"``; an image,
        a tar or a Parquet file; a list of paths, one per line, in a file whose name ends in .txt, .lst or .list; or
        several images, tars or Parquet files. The docs' page on ``refnet batch`` says what the ids are.
    weights, top, features, end_points, recipe, labels
        As for `refnet.Predictor`.
    out : path
        The directory; it is made if it is not there. A directory belongs to one job: other weights, options or sources
        in it are an error.
    column : str, optional
        The column of Parquet files with bytes or paths; None: "image".
    id_column : str, optional
        The column of Parquet files with ids; None: the file and the row's number.
    format : {"parquet", "jsonl"}
        Of the shards. JSON lines need no pyarrow.
    batch_size : int
        Images that go through the network at once.
    shard_rows : int
        Rows of a shard, at most.
    max_errors : int, optional
        More error rows end the job.
    row_seconds : float, optional
        The time that reading and decoding one input may take, before it gives an error row.
    retry_errors : bool
        Whether inputs that have error rows are done again.
    runner : {"local", "daft", "ray"}
        "local": this process. "daft": processes that Daft starts here. "ray": those of a Ray cluster, by Daft; all of
        its machines must see the source and ``out`` by the same paths. The bits are the same.
    workers : int, optional
        Processes of Daft; None: one on this machine, one per core of a cluster.
    progress : callable, optional
        Called now and then with an object that has ``done``, ``total``, ``errors``, ``rate`` and ``seconds_left``.
    **options
        As for `refnet.Engine`.

    Returns
    -------
    Batch

    Raises
    ------
    ConfigError
        ``out`` has another job, is being written to, or holds other files; an option has a value that it cannot have;
        or a package is missing.
    InputError
        There are no inputs, two have one id, a source has lost inputs that have rows, or there are too many errors.
    WeightsError, DeviceError
        As for `refnet.Engine`.
    KeyboardInterrupt
        After Ctrl-C, once the batch in hand is done and its rows are kept.

    Examples
    --------
    >>> import json, pathlib, refnet
    >>> done = refnet.batch("digit*.png", "digits.ckpt", "rows", top=1, format="jsonl")
    >>> done.rows, done.errors
    (10, 0)
    >>> (shard,) = pathlib.Path("rows").glob("*.jsonl")
    >>> rows = [json.loads(line) for line in shard.read_text().splitlines()]
    >>> rows[3]["id"], rows[3]["labels"]
    ('digit3.png', ['3'])
    """
    started = time.monotonic()
    check_choice("format", format, FORMATS)
    check_choice("runner", runner, RUNNERS)
    batch_size, shard_rows = as_int(batch_size), as_int(shard_rows)
    check_positive(batch_size=batch_size, shard_rows=shard_rows)
    check_bool(retry_errors=retry_errors)
    if row_seconds is not None:
        check_number(row_seconds=row_seconds)
    if max_errors is not None:
        check_number(max_errors=max_errors)
    if workers is not None:
        workers = as_int(workers)
        check_positive(workers=workers)
        if runner == "local":
            raise ConfigError('workers are for the runners "daft" and "ray"; one process has threads.')
    if progress is not None and not callable(progress):
        raise ConfigError("progress cannot be called; it is a function of a Progress.")
    directory = Directory(path_of(out))
    if format == "parquet":
        pyarrow()
    inputs = source_of(source, column, id_column)
    predictor = Predictor(
        weights, top=top, features=features, end_points=end_points, recipe=recipe, labels=labels, batch=batch_size,
        **options,
    )  # fmt: skip
    if runner != "local":
        daft_runner.check(runner)
    # Before anything is written, the inputs are looked at.
    fresh = None if os.path.isdir(directory.path) else _survey(inputs, [])
    directory.make()
    with directory.locked():
        job = _Job(directory, inputs, predictor, format, max_errors, progress)
        job.prepare(retry_errors, fresh)
        settings = Settings(None, row_seconds)
        if runner == "local":
            job.run_here(shard_rows, settings)
        else:
            job.run_by_daft(shard_rows, settings, runner, workers)
        return job.finish(time.monotonic() - started)


class _Job:
    """A job whose directory is locked."""

    def __init__(
        self,
        directory: Directory,
        source: Source,
        predictor: Predictor,
        format: str,
        max_errors: float | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._directory, self._source, self._predictor, self._format = directory, source, predictor, format
        self._max_errors, self._progress = max_errors, progress
        self._left_out: Mapping[str, int] = {}
        self._entries: list[bytes] | None = None
        self._heads: list[Head] = []
        self._done = self._errors = self._total = self._made = 0
        self._started = self._told = time.monotonic()

    def prepare(self, retry_errors: bool, fresh: _Survey | None) -> None:
        """Look at what is done, and at all the inputs, if they were not looked at just now."""
        job = {**self._predictor.job(), "source": self._source.name, "format": self._format}
        with making:
            from importlib.metadata import version
        for doubt in self._directory.open(job, {"pillow": version("pillow")}):
            warnings.warn(doubt, RefnetWarning, stacklevel=3)
        if retry_errors:
            for head in self._directory.heads():
                without_errors(head)
        self._heads = self._directory.heads()
        self._done = sum(head.rows for head in self._heads)
        self._errors = sum(sum(head.errors.values()) for head in self._heads)
        pending, self._left_out, self._entries = (
            fresh if fresh and not self._heads else _survey(self._source, self._heads)
        )
        self._total = self._done + pending
        manifest = self._directory.manifest()
        if pending and manifest is not None and manifest.get("result") is not None:
            self._directory.write_manifest({**manifest, "result": None})
        self._check_errors()

    def _items(self) -> Iterator[Item]:
        """What is to be done."""
        return not_done(self._source.items(Counter()), self._heads) if self._done < self._total else iter(())

    def _per_shard(self, shard_rows: int) -> int:
        return max(1, min(shard_rows, _SHARD_BYTES // max(1, self._predictor.row_bytes)))

    def run_here(self, shard_rows: int, settings: Settings) -> None:
        """Do it in this process."""
        per_shard, number = self._per_shard(shard_rows), self._directory.next_number()
        rows: list[Row] = []
        with _interrupts() as interrupted:
            try:
                for row in rows_of(self._predictor, self._items(), settings, interrupted.is_set):
                    rows.append(row)
                    if len(rows) == per_shard:
                        # If it cannot be written, it is not tried again.
                        full, rows = rows, []
                        self._write(number, full)
                        number += 1
                    self._count(1, row.failure is not None)
                    if row.failure is not None:
                        self._check_errors(row)
            finally:
                if rows:
                    self._write(number, rows)
            if interrupted.is_set() and self._done < self._total:
                raise KeyboardInterrupt

    def _write(self, number: int, rows: Sequence[Row]) -> None:
        write_shard(self._directory.shard(number, self._format), rows, self._predictor.fields)

    def run_by_daft(self, shard_rows: int, settings: Settings, runner: str, workers: int | None) -> None:
        """Do it in other processes, a shard at a time in each."""
        team = daft_runner.Team(runner, workers, self._predictor, settings)
        each = -(-(self._total - self._done) // (team.workers * daft_runner.SHARDS_PER_WORKER))
        per_shard, number = max(1, min(self._per_shard(shard_rows), each)), self._directory.next_number()
        items = self._items()

        def works() -> Iterator[daft_runner.Work]:
            nonlocal number
            while some := list(islice(items, per_shard)):
                yield daft_runner.Work(self._directory.shard(number, self._format), some)
                number += 1

        with _interrupts() as interrupted:
            for made in team.run(works(), interrupted.is_set):
                self._count(made.rows, made.errors)
                self._check_errors()
            if interrupted.is_set() and self._done < self._total:
                raise KeyboardInterrupt

    def _count(self, rows: int, errors: int) -> None:
        self._done, self._made, self._errors = self._done + rows, self._made + rows, self._errors + errors
        now = time.monotonic()
        if self._progress is not None and (now - self._told >= _TELL_SECONDS or self._done >= self._total):
            self._told = now
            rate = self._made / max(now - self._started, 1e-9)
            self._progress(Progress(self._done, self._total, self._errors, rate, (self._total - self._done) / rate))

    def _check_errors(self, row: Row | None = None) -> None:
        if self._max_errors is not None and self._errors > self._max_errors:
            last = f" The last one is {row.id}: {row.failure.message}" if row is not None and row.failure else ""
            raise InputError(
                f"{self._errors:,} inputs gave errors, and {self._max_errors:g} may.{last} What is done is kept in "
                f"{self._directory.path}.",
                expected=self._max_errors,
                found=self._errors,
            )

    def finish(self, seconds: float) -> Batch:
        """Compute the hash, and keep the result."""
        heads = self._directory.heads()
        result = _result_of(heads, self._entries)
        manifest = self._directory.manifest()
        if manifest is not None and manifest.get("result") != result:
            self._directory.write_manifest({**manifest, "result": result})
        return Batch(
            self._directory.path, result["rows"], result["errors"], result["sha256"], result["by_type"],
            dict(self._left_out), self._made, seconds,
        )  # fmt: skip


class Status(NamedTuple):
    """How far the job of a directory is.

    Attributes
    ----------
    rows, errors, shards : int
    by_type : mapping of str to int
        The error rows by type.
    running : bool
        Whether a process works at it now, on a machine that shares its locks with this one.
    sha256 : str or None
        The hash of the rows, once all inputs had theirs; None if it is not finished.
    examples : list of (str, str, str)
        Of some error rows the id, the type and the message.
    job : mapping
        What the rows depend on.
    """

    rows: int
    errors: int
    shards: int
    by_type: Mapping[str, int]
    running: bool
    sha256: str | None
    examples: list[tuple[str, str, str]]
    job: Mapping[str, Any]


#: Error rows that a status shows.
_EXAMPLES = 5


def status_of(out: str | os.PathLike[str]) -> Status:
    """How far the job of a directory is.

    Raises
    ------
    ConfigError
        It has no job, or another version's.
    CorruptError
        A shard is damaged.
    """
    directory = Directory(path_of(out))
    manifest = directory.manifest()
    if manifest is None:
        raise ConfigError(f"{directory.path} has no job of refnet batch.", found=directory.path)
    heads = directory.heads()
    by_type = _by_type(heads)
    rows, result = sum(head.rows for head in heads), manifest.get("result") or {}
    examples = islice((example for head in heads if head.errors for example in errors_of(head.path)), _EXAMPLES)
    is_finished = result.get("rows") == rows and result.get("by_type") == by_type
    return Status(
        rows, sum(by_type.values()), len(heads), by_type, directory.is_locked(),
        result.get("sha256") if is_finished else None, list(examples), manifest.get("job") or {},
    )  # fmt: skip


def hash_of(path: str | os.PathLike[str]) -> tuple[int, str]:
    """The hash of rows that anybody has written: Daft, Ray or Spark, for instance, with the rows of a `Predictor`.

    Parameters
    ----------
    path : path
        A Parquet file or JSON lines with the columns ``id`` and ``digest``; or a directory, whose files are looked for
        in all directories below it.

    Returns
    -------
    rows : int
    sha256 : str

    Raises
    ------
    InputError
        There are no such files, or two rows have one id.
    CorruptError
        A file cannot be read, or has no such columns.
    """
    name = path_of(path)
    files = [name]
    if os.path.isdir(name):
        files = sorted(
            os.path.join(directory, file)
            for directory, _, found in os.walk(name)
            for file in found
            if file.endswith(tuple(f".{format}" for format in FORMATS))
        )
    if not files:
        raise InputError(f"There are no .parquet or .jsonl files in {name}.", found=name)
    entries = [entry for file in files for entry in entries_of(*index_of(file))]
    return len(entries), hash_of_rows(entries)


def _by_type(heads: Sequence[Head]) -> dict[str, int]:
    """The error rows by type."""
    by_type: Counter[str] = Counter()
    for head in heads:
        by_type.update(head.errors)
    return dict(sorted(by_type.items()))


def _result_of(heads: Sequence[Head], entries: list[bytes] | None) -> dict[str, Any]:
    """What the shards hold together, as the manifest has it."""
    by_type = _by_type(heads)
    if entries is None:
        entries = [entry for head in heads for entry in entries_of(*index_of(head.path))]
    return {
        "rows": sum(head.rows for head in heads),
        "errors": sum(by_type.values()),
        "by_type": by_type,
        "sha256": hash_of_rows(entries),
    }


class _Survey(NamedTuple):
    """How many inputs have no row; what is left out, by ending; and if all have one, what their hash needs."""

    pending: int
    left_out: Mapping[str, int]
    entries: list[bytes] | None


def _survey(source: Source, heads: Sequence[Head]) -> _Survey:
    """Look at all the inputs.

    Raises
    ------
    InputError
        There are none, two have one id, or there are rows for others.
    """
    left_out: Counter[str] = Counter()
    items = source.items(left_out) if source.ids_differ else _distinct(source, left_out)
    entries: list[bytes] | None = []

    def index(path: str) -> Index:
        found = index_of(path)
        if entries is not None:
            entries.extend(entries_of(*found))
        return found

    pending = 0
    for _ in not_done(items, heads, index):
        pending, entries = pending + 1, None
    if not pending and not heads:
        raise InputError(f"There are no images in the {source.name}{_left_out(left_out)}.")
    return _Survey(pending, dict(sorted(left_out.items())), entries)


def _left_out(endings: Mapping[str, int]) -> str:
    if not endings:
        return ""
    counted = ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items()))
    return f" (files that are not images by their names: {counted})"


def _distinct(source: Source, left_out: Counter[str]) -> Iterator[Item]:
    """The items of a source, whose ids must differ. Eight bytes per id are kept."""
    hashes = array("q")
    for item in source.items(left_out):
        check_ids([item.id])
        hashes.append(hash(item.id))
        yield item
    ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.zeros(0, np.int64)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if suspects:
        counted = Counter(item.id for item in source.items(Counter()) if hash(item.id) in suspects)
        twice = [id for id, count in counted.items() if count > 1]
        if twice:
            raise InputError(
                f"Several inputs have one id: {listed(twice)}. Each id can be there once.", found=twice[:8]
            )


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Within it the first Ctrl-C asks for an end, and the next one raises KeyboardInterrupt as ever."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield event
        return

    def ask(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
