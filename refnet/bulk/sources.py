"""The inputs of a job: an id for each, and where its bytes are, listed in an order that stays while inputs are added.

An input is located by a tuple of strings and numbers, which goes to workers: ``("file", path)``,
``("tar", path, offset, size)``, ``("parquet", path, row_group, row, column)``, or ``("error", type, message)`` for one
that is refused without a look at its bytes.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from refnet.bulk.arrow import pyarrow
from refnet.bulk.rows import Failure, id_of_path
from refnet.checks import check_text, listed, path_of, shown
from refnet.errors import ConfigError, InputError
from refnet_kernels.system.forks import Lock

#: What the names of images end in, in any case. Files and members of tars with other names are counted, not read.
ENDINGS = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: What the names of lists end in: text, a path per line.
_LISTS = (".list", ".lst", ".txt")
#: Bytes of a tar's member, or of a path in a list, that are read at most.
_MOST_BYTES, _LONGEST_LINE = 1 << 30, 1 << 16
#: Bytes of a column in a row group, which is read as a whole.
_GROUP_BYTES = 2 << 30

Locator = tuple[Any, ...]


class Item(NamedTuple):
    """One input."""

    id: str
    where: Locator


class Source(NamedTuple):
    """Inputs that can be listed again and again.

    Attributes
    ----------
    name : str
        What the job is bound to: the kind of the inputs, and their absolute path.
    items : callable
        Lists the inputs; what it leaves out it counts, by ending.
    ids_differ : bool
        Whether no two inputs can have one id.
    """

    name: str
    items: Callable[[Counter[str]], Iterator[Item]]
    ids_differ: bool


def source_of(given: object, column: str | None = None, id_column: str | None = None) -> Source:
    """The inputs that a caller names.

    Parameters
    ----------
    given : path, or sequence of paths
        A directory, a file, or a pattern with ``*``, ``?`` or ``[..]``, of images, tars or Parquet files; or a list of
        paths, one per line, in a file whose name ends in .txt, .lst or .list.
    column : str, optional
        The column of Parquet files that holds bytes or paths, or structs of both; None: "image".
    id_column : str, optional
        The column of ids; None: the file's name and the row's number.

    Raises
    ------
    ConfigError
        It is not one of these.
    InputError
        There is nothing there.
    """
    if isinstance(given, str | os.PathLike):
        path = path_of(given)
        if os.path.isdir(path):
            _refuse_columns(column, id_column)
            root = os.path.abspath(path)
            return Source(f"directory {root}", lambda others: _in_directory(root, others), True)
        files, base = _matches(path)
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        files, base = [path_of(entry) for entry in given], ""
        if not files:
            raise InputError("There are no inputs.")
    else:
        raise ConfigError(
            f"The source is {shown(given)}; it is a path, a pattern, or a sequence of paths.", found=given
        )
    # The files of a sequence, which a shell may have made of a pattern, can become more.
    place = os.path.abspath(given) if isinstance(given, str | os.PathLike) else f"from {os.getcwd()}"
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise ConfigError(f"The files are of several kinds: {', '.join(sorted(kinds))}; pass those of one.")
    (kind,) = kinds
    if kind != "Parquet":
        _refuse_columns(column, id_column)
    if kind == "list":
        if len(files) > 1:
            raise ConfigError(f"There are {len(files)} lists of paths; pass one.")
        return Source(f"list {place}", lambda others: _in_list(files[0]), False)
    if kind == "tar":
        return Source(f"tars {place}", lambda others: _in_tars(files, base, others), False)
    if kind == "Parquet":
        name = column or "image"
        check_text(column=name)
        return Source(
            f"Parquet {place}, {name}, {id_column or 'numbers'}",
            lambda others: _in_parquet(files, base, name, id_column),
            False,
        )
    return Source(f"files {place}", lambda others: (_file(file, base) for file in files), False)


def _refuse_columns(column: object, id_column: object) -> None:
    if column is not None or id_column is not None:
        raise ConfigError("Columns are for Parquet files, whose names end in .parquet.")


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise ConfigError(f"{path} is compressed, so that no member can be found without all before it: decompress it.")
    ending = os.path.splitext(name)[1]
    return {".tar": "tar", ".parquet": "Parquet"}.get(ending, "list" if ending in _LISTS else "images")


def _matches(path: str) -> tuple[list[str], str]:
    """The files that a path or a pattern stands for, in order, and the directory that ids are relative to."""
    if os.path.lexists(path):
        return [path], os.path.dirname(path)
    if not glob.has_magic(path):
        raise InputError(f"{path}: No such file or directory.", found=path)
    found = sorted(file for file in glob.iglob(path, recursive=True) if not os.path.isdir(file))
    if not found:
        raise InputError(f"No file matches {path}.", found=path)
    fixed = re.split(r"[*?[]", path, maxsplit=1)[0]
    return found, os.path.dirname(fixed)


def _file(path: str, base: str) -> Item:
    return Item(id_of_path(os.path.relpath(path, base) if base else path), ("file", os.path.abspath(path)))


def _in_directory(root: str, others: Counter[str]) -> Iterator[Item]:
    """The images below a directory, in the order of their names, directory by directory."""

    def walk(directory: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[Item]:
        status = os.stat(directory)
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise InputError(f"{directory} is a link to a directory above it; remove it.", found=directory)
        with os.scandir(directory) as entries:
            # Of a million files, a list of their entries would take three times the memory.
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
        for name, is_directory in names:
            path = f"{directory}/{name}"
            if is_directory:
                yield from walk(path, f"{prefix}{name}/", above | {here})
            elif name.lower().endswith(ENDINGS):
                yield Item(id_of_path(prefix + name), ("file", path))
            else:
                others[_ending(name)] += 1

    return walk(root.rstrip("/") or "/", "", frozenset())


def _ending(name: str) -> str:
    return os.path.splitext(name.lower())[1][:20] or "none"


def _in_list(path: str) -> Iterator[Item]:
    """The paths in a list, which are relative to it; the ids are the lines."""
    base = os.path.dirname(os.path.abspath(path))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"{path} is not a regular file; give the path of a list.", found=path)
    number = 0
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                name = line.rstrip("\r\n")
                if "\0" in name or len(line) == _LONGEST_LINE:
                    raise InputError(f"Line {number} of {path} is not a path.", found=number)
                if name:
                    yield Item(name, ("file", name if name[0] == "/" else f"{base}/{name}"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text, after its line {number}; it has a path per line.") from error


def _in_tars(paths: Sequence[str], base: str, others: Counter[str]) -> Iterator[Item]:
    """The images in tars; the ids are the tar's path and the member's name."""
    for path in paths:
        prefix = _file(path, base).id
        try:
            yield from _in_tar(path, prefix, others)
        except (tarfile.TarError, EOFError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is a damaged or incomplete tar ({error}).", found=path) from error


def _in_tar(path: str, prefix: str, others: Counter[str]) -> Iterator[Item]:
    where = os.path.abspath(path)
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            # It would keep every one of them.
            tar.members = []  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if member.name.lower().endswith(ENDINGS):
                yield Item(id_of_path(f"{prefix}/{member.name}"), _member(member, where))
            else:
                others[_ending(member.name)] += 1
        # Python takes a damaged header for the end.
        file.seek(tar.offset)
        end = file.read(tarfile.BLOCKSIZE)
        if end not in (b"", bytes(tarfile.BLOCKSIZE)):
            raise InputError(f"{path} is damaged: no header is at byte {tar.offset:,}.", found=path)


def _member(member: tarfile.TarInfo, path: str) -> Locator:
    if not member.isreg() or member.issparse():
        return (
            "error",
            InputError.__name__,
            f"{member.name} is a link, sparse or special in its tar; it must be a file.",
        )
    if member.size > _MOST_BYTES:
        return ("error", InputError.__name__, f"{member.name} has {member.size:,} bytes; it can have {_MOST_BYTES:,}.")
    return ("tar", path, member.offset_data, member.size)


def _in_parquet(paths: Sequence[str], base: str, column: str, id_column: str | None) -> Iterator[Item]:
    """The rows of Parquet files; the ids are of a column, or the file's path and the row's number."""
    parquet = pyarrow().parquet
    for path in paths:
        prefix, where = _file(path, base).id, os.path.abspath(path)
        with _reading(path), parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in (column, id_column) if name is not None and name not in names]
            if missing:
                raise ConfigError(f"{path} has no column {missing[0]!r}; it has {listed(names)}.", found=names)
            number = 0
            for group in range(file.num_row_groups):
                ids = _ids_of(file, group, id_column, path)
                for row in range(file.metadata.row_group(group).num_rows):
                    id = f"{prefix}#{number}" if ids is None else ids[row]
                    yield Item(id, ("parquet", where, group, row, column))
                    number += 1


def _ids_of(file: Any, group: int, column: str | None, path: str) -> list[str] | None:
    if column is None:
        return None
    values = file.read_row_group(group, columns=[column]).column(column).to_pylist()
    if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in values):
        raise InputError(f"{path}: the column {column} of ids has values that are neither text nor whole numbers.")
    return [str(value) for value in values]


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Errors of pyarrow about a file are the input's."""
    try:
        yield
    except pyarrow().ArrowException as error:
        if isinstance(error, MemoryError):
            raise
        raise InputError(f"{path} cannot be read as Parquet ({shown(str(error))}).") from error


class Reader:
    """Gives what an item's locator leads to. Threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: The last row groups: by file, group and column.
        self._groups: dict[tuple[Any, ...], list[Any]] = {}

    def __call__(self, where: Locator) -> Any:
        """Encoded bytes, a path, or a Failure.

        Raises
        ------
        OSError, InputError
        """
        kind, *rest = where
        if kind == "file":
            return rest[0]
        if kind == "error":
            return Failure(*rest)
        return _of_tar(*rest) if kind == "tar" else self._of_parquet(*rest)

    def _of_parquet(self, path: str, group: int, row: int, column: str) -> Any:
        key = (path, group, column)
        with self._lock.held():
            if key not in self._groups:
                # Rows come in order; a thread may still be at the end of the group before.
                self._groups = {**dict(list(self._groups.items())[-1:]), key: _group(*key)}
            value = self._groups[key][row].as_py()
        if isinstance(value, dict):  # as Hugging Face's datasets have it
            value = value.get("bytes") or value.get("path")
        return os.path.join(os.path.dirname(path), value) if isinstance(value, str) else value


def _group(path: str, group: int, column: str) -> Any:
    with _reading(path), pyarrow().parquet.ParquetFile(path) as file:
        metadata = file.metadata.row_group(group)
        nbytes = sum(
            metadata.column(i).total_uncompressed_size
            for i in range(metadata.num_columns)
            if metadata.column(i).path_in_schema.split(".")[0] == column
        )
        if nbytes > _GROUP_BYTES:
            raise InputError(
                f"{path}: row group {group} has {nbytes:,} bytes of images, which are read at once; write it anew with "
                f"row groups of at most {_GROUP_BYTES:,} bytes.",
                found=nbytes,
            )
        return file.read_row_group(group, columns=[column]).column(column)


def _of_tar(path: str, offset: int, size: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        parts, left = [], size
        file.seek(offset)
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    if left:
        raise InputError(f"{path} ends within a member.", found=path)
    return b"".join(parts)
