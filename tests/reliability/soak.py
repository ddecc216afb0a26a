"""Soak: memory, threads and descriptors stay flat."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import refnet
from refnet.errors import RefnetError
from tests.reliability.figures import Row
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

WINDOWS = 5


def resident_bytes() -> int:
    """Of the process' own memory: the pages of files, libraries among them, come and go as the system sees fit."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def growth(action: Callable[[], object], times: int) -> float:
    """Bytes of resident memory per call, once the first calls have filled every cache.

    What leaks does so in every window of the calls; in a process with an old heap, the allocator takes a piece of the
    system's memory, or gives it back, in one window or another: their median tells.
    """
    window = times // WINDOWS
    for _ in range(window):
        action()
    gc.collect()
    threads, descriptors, resident = threading.active_count(), len(os.listdir("/proc/self/fd")), [resident_bytes()]
    for _ in range(WINDOWS):
        for _ in range(window):
            action()
        gc.collect()
        resident.append(resident_bytes())
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return statistics.median(after - before for before, after in itertools.pairwise(resident)) / window


class Soak(NamedTuple):
    """What is done again and again, how often in the two forms, and the bytes that a call may leave in each."""

    what: str
    action: Callable[[], object]
    short: int
    long: int
    short_bytes: int
    long_bytes: int


def refused(load: Callable[[], object]) -> None:
    try:
        load()
    except RefnetError:
        return
    raise AssertionError("a bad input was accepted")


def soaks(folder: Path) -> Iterator[Soak]:
    weights = lively_weights()
    engine, image = refnet.Engine(weights), random_images(20, 20, 3)
    for name in ("w.npz", "w.safetensors", "w.ckpt"):
        refnet.save_weights(folder / name, weights)
    sizes = itertools.cycle([(height, width) for height in range(8, 24) for width in range(8, 28)])
    whole = (folder / "w.npz").read_bytes()
    bad = [folder / f"bad{i}" for i in range(3)]
    for path, content in zip(
        bad, (whole[:-200], b"neither", (folder / "w.safetensors").read_bytes()[:-9]), strict=True
    ):
        path.write_bytes(content)
    turn = itertools.cycle(bad)
    wrong = itertools.cycle([np.zeros((3, 20, 20), np.float32), np.zeros((20, 20, 4), np.float32), "text", None])

    def another_shape() -> None:
        height, width = next(sizes)
        engine(np.zeros((height, width, 3), np.float32))

    yield Soak("forwards of one engine", lambda: engine(image), 10_000, 50_000, 1024, 16)
    # An engine of these weights holds more than 300 KB: one that stays would show at once.
    yield Soak("engines: load, forward, drop", lambda: refnet.forward(folder / "w.npz", image), 100, 1000, 16384, 256)
    yield Soak("forwards, of 320 shapes in turn", another_shape, 100, 2_000, 16384, 64)
    yield Soak("failing loads", lambda: refused(lambda: refnet.load_weights(next(turn))), 1_000, 10_000, 1024, 16)
    yield Soak("bad images", lambda: refused(lambda: engine(next(wrong))), 1_000, 10_000, 1024, 16)
    files = itertools.cycle(["w.npz", "w.safetensors", "w.ckpt"])
    yield Soak("good loads", lambda: refnet.load_weights(folder / next(files)), 100, 2_000, 16384, 64)


def run(long: bool) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for soak in soaks(Path(folder)):
            times, most = (soak.long, soak.long_bytes) if long else (soak.short, soak.short_bytes)
            found = growth(soak.action, times)
            assert found < most, f"{soak.what}: {found:.0f} bytes per call stay, more than {most}"
            rows.append(Row(soak.what, times, f"{found:.1f} bytes per call; threads and descriptors constant"))
    return rows


def short() -> list[Row]:
    return run(long=False)


def long(minutes: float) -> list[Row]:
    return run(long=True)
