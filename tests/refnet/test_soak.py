"""Promise P8: memory, threads and descriptors stay flat."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import refnet
from refnet.errors import RefnetError
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

WINDOWS = 5


def resident_bytes() -> int:
    """Of the process' own memory: the pages of files, libraries among them, come and go as the system sees fit."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def growth(action: Callable[[], object], times: int) -> float:
    """Bytes of resident memory a call, once the first calls have filled every cache.

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


def test_ten_thousand_forwards() -> None:
    engine, image = refnet.Engine(lively_weights()), random_images(20, 20, 3)
    assert growth(lambda: engine(image), 10_000) < 1024


def test_engines_come_and_go(tmp_path: Path) -> None:
    refnet.save_weights(tmp_path / "w.npz", lively_weights())
    image = random_images(20, 20, 3)
    # An engine of these weights holds more than 300 KB: one that stays would show at once.
    assert growth(lambda: refnet.forward(tmp_path / "w.npz", image), 500) < 4096


def test_failing_loads(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    refnet.save_weights(path, lively_weights())
    path.write_bytes(path.read_bytes()[:-200])

    def load() -> None:
        with pytest.raises(RefnetError):
            refnet.load_weights(path)

    assert growth(load, 1000) < 1024
