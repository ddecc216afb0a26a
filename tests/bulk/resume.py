"""A finished job of many rows, which was made and not run: what the same command takes to find that nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import refnet
from refnet.bulk.job import SHARD_ROWS
from refnet.bulk.rows import make_row
from refnet.bulk.shards import Directory, write_shard
from refnet.bulk.sources import source_of
from tests.bulk.inputs import WEIGHTS, write_images
from tests.reliability.figures import ROOT, Row, child_environment

COUNT = 1_000_000

#: What the process does that is measured: the command, and then its own time and memory.
MEASURED = """
import resource, sys, time
from refnet.cli import main
start = time.perf_counter()
assert main(sys.argv[1:]) == 0
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def resume(count: int) -> Row:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_images(folder / "one", 1, bad=False)
        refnet.save_weights(folder / "w.npz", WEIGHTS)
        predictor = refnet.Predictor(folder / "w.npz")
        outcome = predictor.outcomes([predictor.prepared(folder / "one" / "class 0" / "0000.png")])[0]
        names = [f"images/{number // 1000:04d}/{number:08d}.jpg" for number in range(count)]
        (folder / "list.txt").write_text("\n".join(names) + "\n")
        # The job's own directory and manifest, then rows that no image stands behind.
        first = refnet.batch(folder / "one", folder / "w.npz", folder / "made")
        job = json.loads((Path(first.out) / "manifest.json").read_text())["job"]
        job["source"] = source_of(folder / "list.txt").name
        out = Directory(str(folder / "out"))
        out.make()
        out.open(job, {})
        for number in range(0, count, SHARD_ROWS):
            rows = [make_row(name, predictor.fields, outcome) for name in names[number : number + SHARD_ROWS]]
            write_shard(out.shard(number // SHARD_ROWS, "parquet"), rows, predictor.fields)
        arguments = ["batch", str(folder / "list.txt"), "--weights", str(folder / "w.npz"), "--out", out.path, "--json"]
        command = [sys.executable, "-W", "ignore", "-c", MEASURED, *arguments]
        done = subprocess.run(command, env=child_environment(), cwd=ROOT, capture_output=True, text=True, check=True)
        answer, figures = done.stdout.splitlines()
        assert json.loads(answer)["made"] == 0
        assert json.loads(answer)["rows"] == count
        seconds, memory = map(float, figures.split())
        return Row("a finished job is resumed: rows", count, f"{seconds:.1f} s, {memory / 1e6:.0f} MB at most")


def long() -> list[Row]:
    return [resume(COUNT)]
