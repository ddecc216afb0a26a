import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import refnet
from tests.support.nets import lively_weights
from tests.torchvision.networks import Description, draw_state

#: What only the commands of these names need.
OF_ONE_COMMAND = {"refnet.comparison.sources", "refnet.comparison.comparison", "refnet.diagnosis.diagnosis"}
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
    assert not OF_ONE_COMMAND & loaded


def test_a_file_brings_its_own_format_and_home_alone(tmp_path: Path) -> None:
    slim, theirs = lively_weights(), draw_state(Description(((3, 1), (5, 1)), 7), 0)
    refnet.save_weights(tmp_path / "slim.safetensors", slim)
    save_file(theirs, tmp_path / "torchvision.safetensors")
    for name, homes in (("slim", set()), ("torchvision", {"torchvision", "state_dict"})):
        loaded = modules_after(f"import refnet\nrefnet.load_weights({str(tmp_path / name) + '.safetensors'!r})")
        found = {each.rpartition(".")[2] for each in loaded if each.startswith("refnet.weights.homes.")}
        assert found == {"home"} | homes
        others = {"onnx", "onnx_graph", "pytorch", "pickle_values", "hdf5", "npz", "foreign"}
        assert not loaded & {f"refnet.weights.formats.{other}" for other in others}
