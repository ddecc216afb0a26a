"""One hash: this process, Daft here and on Ray, and the programs of docs/bulk.md for Daft, Ray Data and Spark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import refnet
from refnet.bulk.job import hash_of
from tests.bulk.inputs import BAD, WEIGHTS
from tests.reliability.figures import ROOT, Row, child_environment

#: The programs of the page, and the package that each needs.
PROGRAMS = {"daft": "daft", "ray": "ray", "spark": "pyspark"}


def has(package: str) -> bool:
    return find_spec(package) is not None


def programs() -> dict[str, str]:
    """The blocks of docs/bulk.md that the tests of the documentation do not run, by what they need."""
    blocks = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs" / "bulk.md").read_text(), re.MULTILINE | re.DOTALL)
    return {name: next(block for block in blocks if f"rows_of_{name}" in block) for name in PROGRAMS}


def make_folder(folder: Path, count: int) -> None:
    """The files that the page names."""
    draw = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (20, 18, 3), np.uint8)).save(folder / "photos" / f"{number:04d}.png")
    for name, (content, _) in BAD.items():
        whole = (folder / "photos" / "0000.png").read_bytes()
        (folder / "photos" / name).write_bytes(whole[:-20] if content is None else content)
    refnet.save_weights(folder / "resnet_v2_50.ckpt", WEIGHTS)


def environment() -> dict[str, str]:
    return child_environment(PYSPARK_PYTHON=sys.executable, RAY_ENABLE_UV_RUN_RUNTIME_ENV="0", DO_NOT_TRACK="1")


def run_program(name: str, folder: Path) -> str:
    """Run a program of the page, and return the hash of what it wrote."""
    command = [sys.executable, "-W", "ignore", "-c", programs()[name]]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return hash_of(folder / f"rows_of_{name}")[1]


def run_command(folder: Path, out: str, *options: str) -> str:
    """Run ``refnet batch`` in a process of its own, and return the hash of what it wrote."""
    command = [sys.executable, "-W", "ignore", "-m", "refnet", "batch", "photos", "--weights", "resnet_v2_50.ckpt"]
    done = subprocess.run(
        [*command, "--out", out, *options], cwd=folder, env=environment(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return hash_of(folder / out)[1]


def runners(count: int, workers: tuple[int, ...], batches: tuple[int, ...], names: list[str]) -> list[Row]:
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        make_folder(folder, count)
        for batch in batches:
            found[f"this process, batch {batch}"] = run_command(folder, f"local{batch}", "--batch", str(batch))
        for name in names:
            if not has(PROGRAMS[name]):
                print(f"runners: without {PROGRAMS[name]}, which is not installed", flush=True)
                continue
            if name != "spark":
                for number in workers if name == "daft" else workers[1:2]:
                    more = ("--runner", name, "--workers", str(number), "--batch", str(batches[-1]))
                    found[f"--runner {name}, {number} workers"] = run_command(folder, f"{name}{number}", *more)
            found[f"{name}'s program in docs/bulk.md"] = run_program(name, folder)
    wrong = {name: sha for name, sha in found.items() if sha != next(iter(found.values()))}
    assert not wrong, f"{found}"
    return [Row(name, count + len(BAD), f"rows with the hash {sha[:16]}...") for name, sha in found.items()]


def long() -> list[Row]:
    os.environ["DO_NOT_TRACK"] = "1"
    return runners(400, (1, 2, 7), (1, 8, 33), list(PROGRAMS))
