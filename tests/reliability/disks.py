"""Disks that are full or read-only, and caches that are damaged: the old file stays, and the bits are right."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from refnet.errors import RefnetError
from tests.reliability.figures import ROOT, Row, child_environment
from tests.reliability.kills import TARGETS
from tests.support.arrays import digest

#: What a process prints that runs one kernel, by its cache or not.
KERNEL = """
import sys
import numpy as np
from refnet_kernels.residual.cpu import call
print(call(np.arange(3, dtype=np.float32), np.ones(3, np.float32), False).tolist())
"""
ANSWER = "[1.0, 2.0, 3.0]"


@contextmanager
def no_room(folder: Path, room: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond some bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    """A disk of its own, with only some bytes left."""
    free = shutil.disk_usage(folder).free
    with open(folder / "filler", "wb") as filler:
        filler.write(bytes(max(0, free - room)))
    try:
        yield
    finally:
        os.unlink(folder / "filler")


@contextmanager
def mounted(size: str) -> Iterator[Path | None]:
    """A small disk, or None where this process may not mount one."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        try:
            allowed = subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            allowed = False
        try:
            yield Path(folder) if allowed else None
        finally:
            if allowed:
                subprocess.run(["umount", folder], check=True)


def full(how: str, folder: Path, limited: Callable[[Path, int], Iterator[None]], count: int) -> list[Row]:
    """Each kind of file, written where there is room for a part of it."""
    draw, rows = random.Random(0), []
    for name, target in TARGETS.items():
        path = folder / name
        target.write(path, 0)
        before = {file.name: digest_file(file) for file in folder.iterdir()}
        smallest = min(file.stat().st_size for file in folder.iterdir() if file.stat().st_size > 100_000)
        errors: set[str] = set()
        for trial in range(count):
            with limited(folder, draw.randrange(smallest) if trial else 0):
                try:
                    target.write(path, 1)
                except (RefnetError, OSError) as error:
                    errors.add(type(error).__name__)
            assert {file.name: digest_file(file) for file in folder.iterdir()} == before, name
        # The cache of kernels does without the file.
        assert bool(errors) == (name != "kernel.o")
        assert target.version(path) == 0
        rows.append(
            Row(
                f"{how}, while {name} is written",
                count,
                f"old file whole, nothing left over ({', '.join(sorted(errors)) or 'no error'})",
            )
        )
        for file in folder.iterdir():
            file.unlink()
    return rows


def digest_file(path: Path) -> str:
    return digest(np.fromfile(path, np.uint8))


def answer(cache: Path) -> str:
    command = [sys.executable, "-c", KERNEL]
    environment = child_environment(REFNET_CACHE=str(cache))
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.stdout.strip() or done.stderr


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def lengthen(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(9))


def swap(path: Path, draw: random.Random) -> None:
    others = [file for file in path.parent.iterdir() if file != path]
    content, other = path.read_bytes(), others[0].read_bytes()
    others[0].write_bytes(content)
    path.write_bytes(other[:-1])


def link(path: Path, draw: random.Random) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def directory(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def open_to_all(path: Path, draw: random.Random) -> None:
    path.parent.chmod(0o777)


def foreign(path: Path, draw: random.Random) -> None:
    if os.getuid() == 0:
        os.chown(path.parent, 12345, 12345)


DAMAGES = {
    "a flipped bit": flip,
    "cut off": cut,
    "made longer": lengthen,
    "two files swapped, one of them cut off": swap,
    "a link in its place": link,
    "a directory in its place": directory,
    "a directory that all may write to": open_to_all,
    "a directory of another user": foreign,
}


def caches(count: int) -> list[Row]:
    """A process whose cache was damaged since it was written."""
    rows, draw = [], random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert answer(whole) == ANSWER
        for what, damage in DAMAGES.items():
            for trial in range(count):
                cache = Path(folder) / f"{trial} {what}"
                shutil.copytree(whole, cache)
                damage(draw.choice(sorted(cache.rglob("*.o"))), draw)
                assert (found := answer(cache)) == ANSWER, f"{what}: {found}"
            rows.append(Row(f"cache of kernels: {what}", count, "right bits"))
    return rows


def read_only() -> list[Row]:
    """A file system that cannot be written to, with files and an empty cache in it."""
    with mounted("64m") as folder:
        if folder is None:
            return []
        for name, target in TARGETS.items():
            target.write(folder / name, 0)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for name, target in TARGETS.items():
            with suppress(RefnetError, OSError):
                target.write(folder / name, 1)
            assert target.version(folder / name) == 0
        assert answer(folder / "cache") == ANSWER
    return [
        Row("read-only file system: each kind of file, and the cache of kernels", len(TARGETS) + 1, "old files whole")
    ]


def run(count: int, caches_count: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        rows = full("a limit on files' sizes", Path(folder), no_room, count)
    with mounted("24m") as disk:
        if disk is not None:
            rows += full("a full disk", disk, filled, count)
    return rows + read_only() + (caches(caches_count) if caches_count else [])


def short() -> list[Row]:
    # ``tests/kernels/test_cache.py`` has the damaged caches.
    return run(2, 0)


def long(minutes: float) -> list[Row]:
    return run(20, 3)
