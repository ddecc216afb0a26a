"""The tables of ``tools/bad_inputs.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "bad_inputs.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "files"], [" bad files, 0 of them with another error"]),
        (
            ["--only", "images", "--only", "configs"],
            [" bad images, 0 of them with another error", " bad configs, 0 of them with another error"],
        ),
        (["--fuzz", "9"], ["slowest"]),
    ],
)
def test_it_prints_its_tables(arguments: list[str], words: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    command = [sys.executable, str(TOOL), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(each in done.stdout for each in words)
