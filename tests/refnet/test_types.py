"""What a type checker says of a program that uses refnet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """\
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import refnet

Floats = npt.NDArray[np.floating[Any]]
Pair = tuple[Floats, dict[str, Floats]]
weights = refnet.load_weights("w.npz")
image = refnet.load_image("a.png")
assert_type(refnet.forward(weights, image), Floats)
assert_type(refnet.forward("w.npz", image, end_points=False, threads=2), Floats)
assert_type(refnet.forward(weights, image, end_points=True), Pair)
assert_type(refnet.forward(weights, image, end_points=["block4"], device="cpu"), Pair)
engine = refnet.Engine(weights, output_stride=8)
assert_type(engine(image), Floats)
assert_type(engine(image, end_points=True), Pair)
assert_type(engine(image, ["predictions"]), Pair)
whether: bool = len(weights) > 3
assert_type(engine(image, whether), Any)
print(repr(engine), engine.summary(), refnet.golden, refnet.seeded, refnet.testing, refnet.summary)
"""
WRONG = """\
import refnet

refnet.forward(None, None)
refnet.forward("w.npz", refnet.load_image("a.png")).shape.real.nothing
"""


@pytest.mark.parametrize(("program", "errors"), [(PROGRAM, 0), (WRONG, 2)], ids=["right", "wrong"])
def test_mypy_from_outside(program: str, errors: int, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(program)
    root = Path(__file__).parents[2]
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {root}:{root / 'kernels'}\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--follow-imports", "silent", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.count(": error:") == errors, done.stdout + done.stderr
