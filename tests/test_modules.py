"""Every file of the tests is loaded by one name; by two, each of its classes would exist twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: The last line that it prints: the names of the modules of each file below tests/ once all tests are collected.
COLLECT = """
import json, pathlib, sys
import pytest

tests = pathlib.Path("tests").resolve()
pytest.main(["-q", "--collect-only", "--slow", "-p", "no:cacheprovider", str(tests)])
names = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file is not None and tests in pathlib.Path(file).parents:
        names.setdefault(file, []).append(name)
print(json.dumps(names))
"""


def test_no_file_is_loaded_by_two_names() -> None:
    command = [sys.executable, "-W", "ignore", "-c", COLLECT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    names: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert {str(ROOT / "tests" / name) for name in ("conftest.py", "problems/base.py", "support/arrays.py")} <= set(
        names
    )
    assert {file: each for file, each in names.items() if len(each) > 1} == {}
