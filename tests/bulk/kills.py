"""A job that is killed again and again: each input has one row at the end, and the hash is that of an unbroken job."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-not-found,import-untyped,unused-ignore]

import refnet
from tests.bulk.inputs import BAD, WEIGHTS, expected, hash_of, write_images
from tests.reliability.figures import Row


def ids(out: Path) -> list[str]:
    # Without threads, as processes are forked later.
    tables = [pq.read_table(path, columns=["id"], use_threads=False) for path in sorted(out.glob("part-*.parquet"))]
    return [id for table in tables for id in table.column("id").to_pylist()]


def rows(out: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path, use_threads=False) for path in sorted(out.glob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def killed(folder: Path, out: Path, seconds: float, **options: object) -> bool:
    """Whether a job in a process of its own was killed before its end."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            refnet.batch(folder, WEIGHTS, out, shard_rows=40, **options)  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"a job gave an error ({status})"
    return status != 0


def kills(count: int, images: int, longest: float, **options: object) -> Row:
    """So many kills at random moments; a job that ends before is followed by another."""
    draw, jobs, kept, done = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "in"
        write_images(folder, images)
        wanted = expected(folder)
        while done < count:
            jobs += 1
            out = Path(directory) / f"out {jobs}"
            while done < count and killed(folder, out, draw.random() * longest, **options):
                done += 1
                found = ids(out) if out.exists() else []
                assert len(found) == len(set(found)) >= kept, f"{len(found)} rows after {kept}"
                assert set(found) <= set(wanted)
                kept = len(found)
            finished = refnet.batch(folder, WEIGHTS, out, **options)  # type: ignore[arg-type]
            assert sorted(ids(out)) == sorted(wanted)
            wrong = [row for row in rows(out) if row["digest"] != wanted[row["id"]][1].hex()]
            assert not wrong, f"{len(wrong)} other rows: {wrong[0]}, where {wanted[wrong[0]['id']]} is expected"
            assert finished.sha256 == hash_of(wanted)
            assert finished.errors == len(BAD)
            assert not list(out.glob("*.tmp"))
            kept = 0
    return Row(
        f"SIGKILL while {images + len(BAD):,} images become rows, in {jobs} jobs",
        count,
        "a row per input each time; the hash of an unbroken job",
    )


def long() -> list[Row]:
    return [kills(200, 5000, 0.6), kills(100, 2000, 0.6, format="parquet", batch_size=3)]
