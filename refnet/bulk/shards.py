"""The directory of a job: a manifest, and shards of rows, each of which is written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from refnet.bulk.arrow import pyarrow, schema_of, struct_of
from refnet.bulk.rows import Field, Row
from refnet.bulk.sources import Item
from refnet.checks import listed
from refnet.errors import ConfigError, CorruptError, InputError
from refnet.files import json_object, read_small, written_whole
from refnet_kernels.system.left_over import hold, remove_left_over

#: The version of the directory's format; other versions of refnet may write others.
VERSION = 1
_MANIFEST, _LOCK = "manifest.json", ".lock"
_SHARD = re.compile(r"part-([0-9]{6,})\.(parquet|jsonl)")
#: What a killed job leaves, besides shards.
_LEFT = re.compile(r".*\.[0-9a-f]{16}\.tmp")
#: In the metadata of a Parquet file, or the first line of JSON lines.
_KEY = "refnet"
#: To get the lock.
_TRIES = 5
_MANIFEST_BYTES = 4 << 20


class Head(NamedTuple):
    """What a shard says of itself.

    Attributes
    ----------
    path : str
    rows : int
    first : str
        The id of its first row.
    errors : mapping of str to int
        Its error rows by type.
    """

    path: str
    rows: int
    first: str
    errors: Mapping[str, int]


class Index(NamedTuple):
    """The ids of a shard's rows in their order, and the digests."""

    ids: list[str]
    digests: list[str]


class Directory:
    """The directory of a job."""

    def __init__(self, path: str) -> None:
        self.path = path

    def manifest(self) -> dict[str, Any] | None:
        """What the directory says of its job; None if it has no job.

        Raises
        ------
        ConfigError
            It is damaged, or another version's.
        """
        path = os.path.join(self.path, _MANIFEST)
        try:
            found = json_object(read_small(path, _MANIFEST_BYTES), "manifest")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{path} is damaged: {error} Begin anew in another directory.", found=path) from error
        version = found.get("version")
        if found.get("kind") != "refnet batch" or not isinstance(version, int):
            raise ConfigError(f"{path} is not the manifest of a job of refnet's.", found=path)
        if version != VERSION:
            raise ConfigError(
                f"{self.path} was written by another version of refnet, in version {version} of its format; this one "
                f"knows version {VERSION}. Go on with that refnet, or begin anew in another directory.",
                expected=VERSION,
                found=version,
            )
        return found

    def write_manifest(self, content: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        text = json.dumps({"kind": "refnet batch", "version": VERSION, **content}, indent=1)
        with written_whole(os.path.join(self.path, _MANIFEST)) as file:
            file.write(text.encode())

    def make(self) -> None:
        """Make it if it is not there.

        Raises
        ------
        ConfigError
            It holds other files than those of a job.
        """
        os.makedirs(self.path, exist_ok=True)
        if self.manifest() is None:
            others = sorted(name for name in os.listdir(self.path) if name != _LOCK and not _LEFT.fullmatch(name))
            if others:
                raise ConfigError(
                    f"{self.path} holds other files ({listed(others, 3)}) and no job: give an empty directory.",
                    found=others[:3],
                )

    def open(self, job: Mapping[str, Any], notes: Mapping[str, Any]) -> list[str]:
        """Make the directory one for this job, or check that it is.

        Parameters
        ----------
        job : mapping
            What the rows depend on.
        notes : mapping
            What they should not depend on, but may.

        Returns
        -------
        list of str
            What is noted otherwise, in sentences.

        Raises
        ------
        ConfigError
            It has another job.
        """
        found = self.manifest()
        if found is None:
            self.write_manifest({"job": job, "notes": notes, "result": None})
            return []
        differences = list(_differences(found.get("job"), job))
        if differences:
            raise ConfigError(
                f"{self.path} has another job: {listed(differences)}. Use the options of that one, or another "
                "directory.",
                found=differences,
            )
        before = found.get("notes")
        return [f"{what}: the rows so far were made otherwise" for what in _differences(before, notes)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs out.

        Raises
        ------
        ConfigError
            One is in.
        """
        descriptor = os.open(os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Whoever asks for the status has the lock for a moment.
            tries = 1
            while not (held := hold(descriptor)) and tries < _TRIES:
                time.sleep(0.02)
                tries += 1
            if not held:
                process = os.read(descriptor, 32).decode(errors="replace").strip()
                raise ConfigError(f"Another job writes to {self.path} (process {process or 'unknown'}): wait for it.")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            remove_left_over(self.path, _LEFT.pattern)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether a job writes to it now."""
        with suppress(OSError):
            descriptor = os.open(os.path.join(self.path, _LOCK), os.O_RDONLY)
            try:
                return not hold(descriptor)
            finally:
                os.close(descriptor)
        return False

    def heads(self) -> list[Head]:
        """The shards that are there, in the order of their numbers.

        Raises
        ------
        CorruptError
            One is damaged.
        """
        found = sorted((int(match[1]), match[0]) for name in os.listdir(self.path) if (match := _SHARD.fullmatch(name)))
        return [head_of(os.path.join(self.path, name)) for _, name in found]

    def next_number(self) -> int:
        """A number that no shard has."""
        numbers = [int(match[1]) for name in os.listdir(self.path) if (match := _SHARD.fullmatch(name))]
        return max(numbers, default=-1) + 1

    def shard(self, number: int, format: str) -> str:
        """The path of a shard."""
        return os.path.join(self.path, f"part-{number:06d}.{format}")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs, for a person: ``recipe.height is 224 there and 299 here``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} is {_short(before)} there and {_short(now)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-30:]}"


def write_shard(path: str, rows: Sequence[Row], fields: Sequence[Field]) -> None:
    """Write a shard, whole or not at all."""
    errors = Counter(row.failure.type for row in rows if row.failure is not None)
    head = json.dumps({"rows": len(rows), "first": rows[0].id, "errors": errors})
    if path.endswith(".jsonl"):
        with written_whole(path) as file:
            for row in rows:
                file.write(_line(row, fields))
        return
    pa = pyarrow()
    table = pa.Table.from_struct_array(struct_of(rows, fields))
    _write_table(path, table.cast(schema_of(fields)), head)


def _write_table(path: str, table: Any, head: str) -> None:
    parquet = pyarrow().parquet
    table = table.replace_schema_metadata({_KEY: head})
    with written_whole(path) as file:
        parquet.write_table(table, file, compression="zstd", write_page_checksum=True)


def _line(row: Row, fields: Sequence[Field]) -> bytes:
    return json.dumps(row.as_dict(fields), allow_nan=False, ensure_ascii=False).encode() + b"\n"


#: What stands before the fields in a line: enough for the id, which is short, the digest and the error.
_PREFIX = re.compile(
    rb'\{"id": ("(?:[^"\\]|\\.)*"), "digest": "([0-9a-f]{64})", "error": (null|"(?:[^"\\]|\\.)*"), "message": '
)


def _lines(path: str) -> Iterator[tuple[str, str, str | None, bytes]]:
    """The id, digest, error and whole line of each row of JSON lines."""
    with open(path, "rb") as file:
        for line in file:
            match = _PREFIX.match(line)
            if match is None or not line.endswith(b"}\n"):
                raise CorruptError(f"{path} is damaged; remove it, and its rows are made again.", found=path)
            yield json.loads(match[1]), match[2].decode(), json.loads(match[3]), line


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (pyarrow().ArrowException, ValueError, KeyError) as error:
        if isinstance(error, MemoryError):
            raise
        message = f"{path} is damaged ({error}); remove it, and its rows are made again."
        raise CorruptError(" ".join(message.split()), found=path) from error


def _table(path: str, columns: Sequence[str] | None = None) -> Any:
    with pyarrow().parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns)


def head_of(path: str) -> Head:
    """What a shard says of itself."""
    if path.endswith(".jsonl"):
        errors: Counter[str] = Counter()
        first, count = "", 0
        for id, _, error, _ in _lines(path):
            first, count = first if count else id, count + 1
            errors.update([error] if error is not None else [])
        if not count:
            raise CorruptError(f"{path} is empty; remove it, and its rows are made again.", found=path)
        return Head(path, count, first, errors)
    with _reading(path):
        with pyarrow().parquet.ParquetFile(path) as file:
            metadata = file.metadata
        head = json.loads(metadata.metadata[_KEY.encode()])
        if metadata.num_rows != head["rows"]:
            raise ValueError(f"it has {metadata.num_rows} rows, not {head['rows']}")
        return Head(path, head["rows"], head["first"], head["errors"])


def index_of(path: str) -> Index:
    """The ids and digests of a shard."""
    if path.endswith(".jsonl"):
        found = [(id, digest) for id, digest, _, _ in _lines(path)]
        return Index([id for id, _ in found], [digest for _, digest in found])
    with _reading(path):
        table = _table(path, ["id", "digest"])
        return Index(table.column("id").to_pylist(), table.column("digest").to_pylist())


def errors_of(path: str) -> Iterator[tuple[str, str, str]]:
    """Of each error row of a shard the id, the type and the message."""
    if path.endswith(".jsonl"):
        for id, _, error, line in _lines(path):
            if error is not None:
                yield id, error, str(json.loads(line)["message"])
        return
    with _reading(path):
        table = _table(path, ["id", "error", "message"])
        table = table.filter(table.column("error").is_valid())
    yield from zip(*(table.column(name).to_pylist() for name in ("id", "error", "message")), strict=True)


def without_errors(head: Head) -> None:
    """Take a shard's error rows out of it, so that their inputs are done again."""
    if not head.errors:
        return
    if sum(head.errors.values()) == head.rows:
        os.unlink(head.path)
    elif head.path.endswith(".jsonl"):
        lines = [line for _, _, error, line in _lines(head.path) if error is None]
        with written_whole(head.path) as file:
            file.writelines(lines)
    else:
        with _reading(head.path):
            table = _table(head.path)
        table = table.filter(table.column("error").is_null())
        text = json.dumps({"rows": len(table), "first": table.column("id")[0].as_py(), "errors": {}})
        _write_table(head.path, table, text)


def not_done(items: Iterable[Item], heads: Iterable[Head], index: Callable[[str], Index] = index_of) -> Iterator[Item]:
    """The inputs that no shard has a row for.

    The rows of a shard are in the order of the inputs, so that of each shard only the next id is kept, and all the ids
    of those alone that the listing is just passing.

    Parameters
    ----------
    items : iterable of Item
        All the inputs, in their order.
    heads : iterable of Head
    index : callable
        Gives the ids of a shard.

    Yields
    ------
    Item

    Raises
    ------
    InputError
        At the end: a shard has rows for what is not among the inputs, or they have another order.
    """
    nexts: dict[str, Head | Iterator[str]] = {head.first: head for head in heads}
    for item in items:
        rest = nexts.pop(item.id, None)
        if rest is None:
            yield item
            continue
        if isinstance(rest, Head):
            rest = iter(index(rest.path).ids)
            next(rest)
        following = next(rest, None)
        if following is not None:
            nexts[following] = rest
    if nexts:
        raise InputError(
            f"There are rows for {listed(sorted(nexts), 3)}, which the source has no longer, or in another order. A "
            "source may grow; to make it smaller, begin anew in another directory.",
            found=sorted(nexts)[:8],
        )
