import subprocess
import sys

import pytest

HEAVY = {"numba", "llvmlite", "PIL", "rich", "matplotlib", "safetensors", "argparse"}


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_refnet_loads_nothing_heavy() -> None:
    loaded = modules_after("import refnet")
    assert "refnet.engine" in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["predict", "--help"], ["summary", "no_such_file"], ["demo", "--device", "cuda"]],
    ids=" ".join,
)
def test_the_command_line_is_quick_until_there_is_something_to_compute(arguments: list[str]) -> None:
    loaded = modules_after(f"from refnet.cli import main\nmain({arguments!r})")
    assert "refnet.cli.demo" in loaded
    assert not (HEAVY - {"argparse"}) & loaded
