"""Kills: a writer that is ended at any moment leaves the old file or the new one, and the next one tidies up."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import refnet
from refnet.errors import CorruptError
from refnet.evidence.golden_file import Golden, write_golden
from refnet_kernels import jit
from tests.reliability.figures import Row
from tests.support.nets import lively_weights, small_blocks


class Target(NamedTuple):
    """What is written: version 0 or 1 of a file; and what finds out which version is there, None if it is refused."""

    write: Callable[[Path, int], None]
    version: Callable[[Path], int | None]


def weights(version: int) -> refnet.Weights:
    """About 3 MB, so that a kill often falls into the writing."""
    made = _made.get(version)
    if made is None:
        blocks = small_blocks(units=3, base_depth=70)
        made = _made[version] = refnet.Weights(lively_weights(version, blocks))
    return made


_made: dict[int, refnet.Weights] = {}


def is_version(found: refnet.Weights, version: int) -> bool:
    return all(np.array_equal(found[name], value) for name, value in weights(version).items())


def version_of(path: Path) -> int | None:
    try:
        found = refnet.load_weights(path)
    except CorruptError:
        return None
    return next(version for version in (0, 1) if is_version(found, version))


IMAGE = np.linspace(-1, 1, 96 * 96 * 3, dtype=np.float32).reshape(96, 96, 3)


_recorded: dict[int, Golden] = {}


def record_golden(path: Path, version: int) -> None:
    """As `refnet.golden.record` does, once the network has run."""
    if version not in _recorded:
        _recorded[version] = refnet.golden.record(path, weights(version), IMAGE)
    write_golden(path, _recorded[version])


def golden_version(path: Path) -> int:
    values = {version: refnet.forward(weights(version), IMAGE, end_points=True)[1] for version in (0, 1)}
    return next(version for version in (0, 1) if not refnet.golden.compare_end_points(path, values[version]).differing)


def write_code(path: Path, version: int) -> None:
    jit._write(path, bytes([version]) * 2_000_000)


def code_version(path: Path) -> int | None:
    code = jit._read(path)
    return None if code is None else code[0]


TARGETS = {
    "w.npz": Target(lambda path, version: refnet.save_weights(path, weights(version)), version_of),
    "w.safetensors": Target(lambda path, version: refnet.save_weights(path, weights(version)), version_of),
    "w.ckpt": Target(lambda path, version: refnet.save_weights(path, weights(version)), version_of),
    "golden.safetensors": Target(record_golden, golden_version),
    "kernel.o": Target(write_code, code_version),
}


def kill_while_it_writes(write: Callable[[], None], seconds: float) -> bool:
    """Whether a child that writes again and again was killed, not ended by an error of its own."""
    if (child := os.fork()) == 0:
        try:
            while True:
                write()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def kills(name: str, count: int) -> Row:
    target, draw = TARGETS[name], random.Random(0)
    left, mixed = 0, 0
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        path = folder / name
        for version in (1, 0):
            target.write(path, version)
        start = time.perf_counter()
        target.write(path, 1)
        longest = 2 * (time.perf_counter() - start)
        whole = set(os.listdir(folder))
        for _ in range(count):
            assert kill_while_it_writes(
                lambda: [target.write(path, version) for version in (0, 1)], draw.random() * longest
            )
            left += len(set(os.listdir(folder)) - whole)
            # Two files take two moves. A mixture of old and new ones is refused, by their checksums.
            found = target.version(path) if whole <= set(os.listdir(folder)) else None
            mixed += found is None
            assert found is not None or name == "w.ckpt", f"{name}: neither the old file nor the new one"
            target.write(path, 0)
            assert set(os.listdir(folder)) == whole, f"{name}: left over: {set(os.listdir(folder)) - whole}"
            assert target.version(path) == 0
    words = f"old or new, whole; {left} temporary files, each removed by the next write"
    return Row(f"SIGKILL while {name} is written", count, words + (f"; {mixed} mixtures, refused" if mixed else ""))


def run(count: int) -> list[Row]:
    return [kills(name, count) for name in TARGETS]


def short() -> list[Row]:
    return run(6)


def long(minutes: float) -> list[Row]:
    return run(200)
