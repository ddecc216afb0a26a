import subprocess
import sys

import pytest

import refnet

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
    "use",
    ["refnet.golden.record", "refnet.seeded.random_images((4, 4, 3))", "refnet.testing.assert_golden", "dir(refnet)"],
)
def test_goldens_are_there_after_import_refnet_and_load_nothing_to_compile(use: str) -> None:
    assert "refnet.golden" not in modules_after("import refnet")
    loaded = modules_after(f"import refnet\nrefnet.Recipe\n{use}\nassert 'golden' in dir(refnet)")
    assert not {"numba", "llvmlite"} & loaded


def test_an_attribute_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'refnet' has no attribute 'goldens'"):
        refnet.goldens  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", ["resnet_v1", "resnet_v2", "preprocess"])
def test_functions_do_not_hide_modules(name: str) -> None:
    assert callable(getattr(refnet, name))
    assert f"refnet.{name}" not in sys.modules


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["predict", "--help"], ["summary", "no_such_file"], ["demo", "--device", "cuda"]],
    ids=" ".join,
)
def test_the_command_line_is_quick_until_there_is_something_to_compute(arguments: list[str]) -> None:
    loaded = modules_after(f"from refnet.cli import main\nmain({arguments!r})")
    assert "refnet.cli.demo" in loaded
    assert not (HEAVY - {"argparse"}) & loaded
