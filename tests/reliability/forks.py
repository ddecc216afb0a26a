"""Forks at random moments of everything that refnet does for the first time, and in the middle of forwards."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from pathlib import Path

import refnet
from tests.refnet.test_forks import FIRST_USES, FORKED, in_the_folder, write_files
from tests.reliability.figures import Row
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights


def first_uses(each: int) -> list[Row]:
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for use in FIRST_USES:
            delays = [round(draw.uniform(0, 60), 2) for _ in range(each)]
            printed = in_the_folder(Path(folder), FORKED, use, repr(delays))
            assert printed == "", f"{use}: {printed}"
            rows.append(Row(f"forks in the first use: {use}", each, "0 hangs"))
    return rows


def forwards(count: int) -> Row:
    """Children, and theirs, of a process whose threads are in forwards."""
    engine, image = refnet.Engine(lively_weights(), threads=2), random_images(32, 32, 3)
    expected, stop = digest(engine(image)), threading.Event()

    def run_on() -> None:
        while not stop.is_set():
            engine(image)

    def child(generations: int) -> int:
        process = os.fork()
        if process == 0:
            signal.alarm(60)
            status = 1
            try:
                right = digest(engine(image)) == expected
                status = int(not right or (generations > 1 and os.waitpid(child(generations - 1), 0)[1] != 0))
            finally:
                os._exit(status)
        return process

    busy = [threading.Thread(target=run_on) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        statuses = [os.waitpid(child(2), 0)[1] for _ in range(count)]
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    assert statuses == [0] * count, statuses
    assert digest(engine(image)) == expected
    return Row("forks in the middle of forwards, twice in a row", count, "0 hangs, 0 wrong")


def short() -> list[Row]:
    # ``tests/refnet/test_forks.py`` has the first uses, too.
    return [forwards(20)]


def long(minutes: float) -> list[Row]:
    rows = first_uses(112)
    total = sum(row.count for row in rows)
    return [Row(f"forks in the first use, {len(rows)} uses", total, "0 hangs"), forwards(500)]
