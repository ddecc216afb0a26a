"""Promise P8: memory, threads and descriptors stay flat."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from nets import lively_weights, random_images

import refnet
from refnet.errors import RefnetError


def resident_bytes() -> int:
    """Of the process' own memory: the pages of files, libraries among them, come and go as the system sees fit."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def growth(action: Callable[[], object], times: int) -> float:
    """Bytes of resident memory a call, once the first calls have filled every cache."""
    for _ in range(times // 5):
        action()
    gc.collect()
    threads, descriptors, before = threading.active_count(), len(os.listdir("/proc/self/fd")), resident_bytes()
    for _ in range(times):
        action()
    gc.collect()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return (resident_bytes() - before) / times


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
