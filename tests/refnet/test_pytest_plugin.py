"""The plugin for pytest, as a test suite of a user's meets it."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import refnet
from refnet.golden import read_golden
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

pytest_plugins = ["pytester"]

#: Where refnet is on the path and not installed, pytest does not find the plugin by itself.
NAME = "refnet" if entry_points(group="pytest11", name="refnet") else "pytest_refnet"

HEAD = """
import numpy as np
import pytest
import refnet

BLOCKS = [refnet.resnet_v2_block("block1", base_depth=2, num_units=1, stride=1)]
WEIGHTS = dict(refnet.random_weights(BLOCKS, num_classes=3))
IMAGE = np.linspace(-1, 1, 33 * 33 * 3, dtype=np.float32).reshape(33, 33, 3)
CHANGED = "resnet_v2/block1/unit_1/bottleneck_v2/conv2/weights"
"""
ONE = """
def test_bits(refnet_golden):
    refnet_golden(WEIGHTS, IMAGE)
"""
OTHER = """
WEIGHTS[CHANGED] = WEIGHTS[CHANGED] * np.float32(1.5)
"""


@pytest.fixture(scope="module")
def _imported() -> None:
    """What a run imports first, the next one would have to import again."""
    refnet.forward(lively_weights(), random_images(33, 33, 3))
    import_module("refnet.testing")


@pytest.fixture(autouse=True)
def _as_a_user(_imported: None, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.delenv("REFNET_UPDATE_GOLDENS", raising=False)


def run(pytester: pytest.Pytester, *arguments: str, process: bool = False) -> pytest.RunResult:
    plugin = [] if NAME == "refnet" else ["-p", NAME]
    start = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
    return start(*plugin, "-p", "no:cacheprovider", *arguments)


def goldens(pytester: pytest.Pytester) -> list[str]:
    return sorted(str(path.relative_to(pytester.path)) for path in pytester.path.rglob("*.safetensors"))


def section(result: pytest.RunResult) -> list[str]:
    """The lines about goldens in the summary."""
    lines = [line for line in result.outlines if line]
    heads = [i for i, line in enumerate(lines) if "= refnet goldens =" in line]
    return [] if not heads else [line for line in lines[heads[0] + 1 :] if not line.startswith("=")]


def test_a_golden_is_missing_recorded_and_held_to(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *There is no golden goldens/test_net/test_bits.safetensors: record it."])
    result.stdout.fnmatch_lines(["E *`pytest test_net.py::test_bits --refnet-update` records it."])
    assert goldens(pytester) == []
    result = run(pytester, "test_net.py::test_bits", "--refnet-update")
    result.assert_outcomes(passed=1)
    assert goldens(pytester) == ["goldens/test_net/test_bits.safetensors"]
    count = len(read_golden(pytester.path / goldens(pytester)[0]).end_points)
    path, change, size = section(result)
    assert path == "goldens/test_net/test_bits.safetensors:"
    assert change == f"  recorded, {count} end points"
    assert re.fullmatch(r"  \d+ kB", size)
    result = run(pytester)
    result.assert_outcomes(passed=1)
    assert section(result) == []


def test_a_change_is_named_in_a_few_lines_and_updated_with_its_size(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    run(pytester, "--refnet-update").assert_outcomes(passed=1)
    pytester.makepyfile(test_net=HEAD + OTHER + ONE)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *other weights than these: 1 of * tensors differs, resnet_v2/block1/*/conv2/weights*"]
    )
    assert len(result.outlines) < 30
    assert "array(" not in result.stdout.str()
    result = run(pytester, "--refnet-update")
    result.assert_outcomes(passed=1)
    _, weights, bits, _ = section(result)
    assert re.fullmatch(r"  other weights, 1 of \d+ tensors differs, resnet_v2/block1/\S+/conv2/weights", weights)
    differ = r"  \d+ of \d+ end points differ, first resnet_v2/block1/\S+, most \S+ by \S+ ULPs of its largest value"
    assert re.fullmatch(differ, bits)
    run(pytester).assert_outcomes(passed=1)


def test_other_bits_are_told_in_a_few_lines(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    run(pytester, "--refnet-update").assert_outcomes(passed=1)
    kernel = "\nfrom refnet.run.cpu import CpuExecutor\nrun = CpuExecutor.run\n"
    kernel += "def wrong(self, images, stream=None):\n    outputs, extremes = run(self, images, stream)\n"
    kernel += "    return [np.nextafter(each, np.float32(9)) for each in outputs], extremes\n"
    kernel += "@pytest.fixture(autouse=True)\ndef _wrong(monkeypatch):\n"
    kernel += "    monkeypatch.setattr(CpuExecutor, 'run', wrong)\n"
    pytester.makepyfile(test_net=HEAD + kernel + ONE)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *end points differ from *test_bits.safetensors; in network order:"])
    assert len(result.outlines) < 40
    assert "array(" not in result.stdout.str()
    _, bits, _ = section(run(pytester, "--refnet-update"))
    assert bits.endswith(" ULPs of its largest value")


def test_a_warning_that_is_an_error_is_told_in_a_few_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE.replace("IMAGE", "100 * IMAGE"))
    for arguments in ([], ["--refnet-update"]):
        result = run(pytester, "-W", "error", *arguments)
        result.assert_outcomes(failed=1)
        assert len(result.outlines) < 40
    result.stdout.fnmatch_lines(["E *RefnetWarning: Float images are taken as normalised*"])


def test_what_does_not_change_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    run(pytester, "--refnet-update")
    path = pytester.path / goldens(pytester)[0]
    before = path.stat()
    result = run(pytester, "--refnet-update")
    result.assert_outcomes(passed=1)
    assert section(result) == []
    assert path.stat() == before


def test_each_parameter_has_a_golden_with_a_name_for_files(pytester: pytest.Pytester) -> None:
    ids = ["a/b", "a_b", "../up", "", "x" * 300, "a b", "ä", "[::]", "a::b", "*?", "1-2"]
    test = f"@pytest.mark.parametrize('number', range({len(ids)}), ids={ids!r})\n"
    test += (
        "def test_bits(refnet_golden, number):\n    refnet_golden(WEIGHTS, IMAGE / (1 + number), hashes_only=True)\n"
    )
    pytester.makepyfile(test_net=HEAD + test)
    run(pytester, "--refnet-update").assert_outcomes(passed=len(ids))
    files = [Path(path) for path in goldens(pytester)]
    assert len({path.name.lower() for path in files}) == len(ids)
    assert {str(path.parent) for path in files} == {"goldens/test_net"}
    assert all(re.fullmatch(r"[A-Za-z0-9_.,=+-]{1,150}", path.name) for path in files)
    assert "test_bits-1-2.safetensors" in {path.name for path in files}
    run(pytester).assert_outcomes(passed=len(ids))


def test_classes_folders_and_several_goldens_of_a_test(pytester: pytest.Pytester) -> None:
    test = """
class TestNet:
    def test_bits(self, refnet_golden):
        refnet_golden(WEIGHTS, IMAGE)
        refnet_golden(WEIGHTS, IMAGE, output_stride=4)
        refnet_golden(WEIGHTS, IMAGE, name="dense", global_pool=False, multi_grid=(1,))
"""
    folder = pytester.mkdir("deep")
    (folder / "test_net.py").write_text(HEAD + test + ONE)
    run(pytester, "--refnet-update").assert_outcomes(passed=2)
    names = ("TestNet.test_bits", "TestNet.test_bits.2", "TestNet.test_bits.dense", "test_bits")
    assert goldens(pytester) == sorted(f"deep/goldens/test_net/{name}.safetensors" for name in names)
    run(pytester).assert_outcomes(passed=2)


def test_a_port_is_held_to_the_golden_of_refnet(pytester: pytest.Pytester) -> None:
    test = """
net, END_POINTS = refnet.forward(WEIGHTS, IMAGE, end_points=True)
END_POINTS["net"] = net


def test_near(refnet_golden):
    port = {name: value * np.float32(1 + 2**-22) for name, value in END_POINTS.items()}
    refnet_golden(WEIGHTS, IMAGE, end_points=port, max_ulps=9)


def test_far(refnet_golden):
    port = {name: value * np.float32(1.01) for name, value in END_POINTS.items()}
    refnet_golden(WEIGHTS, IMAGE, end_points=port, max_ulps=9)


def test_alone(refnet_golden):
    refnet_golden(end_points=END_POINTS)
"""
    pytester.makepyfile(test_net=HEAD + test)
    result = run(pytester, "--refnet-update")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["E *end points differ from *test_far.safetensors by more than 9 ULPs*"])
    result.stdout.fnmatch_lines(["E *--refnet-update` records it once the test passes weights and images."])


@pytest.mark.parametrize("name", ["3", "''", "b'x'"])
def test_a_name_is_a_text(name: str, pytester: pytest.Pytester) -> None:
    test = f"def test_bits(refnet_golden):\n    refnet_golden(WEIGHTS, IMAGE, name={name})\n"
    pytester.makepyfile(test_net=HEAD + test)
    result = run(pytester, "--refnet-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *ConfigError: *name*"])
    assert goldens(pytester) == []


def test_large_goldens_come_with_advice(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.evidence.updating.LARGE", 1)
    pytester.makepyfile(test_net=HEAD + ONE + ONE.replace("bits", "hashes").replace("IMAGE", "IMAGE, hashes_only=True"))
    _, _, bits, _, _, hashes = section(run(pytester, "--refnet-update"))
    assert bits.startswith("  0.1 MB; hashes_only=True keeps some kB")
    assert "hashes_only" not in hashes


def test_the_environment_variable_updates_too(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_UPDATE_GOLDENS", "1")
    pytester.makepyfile(test_net=HEAD + ONE)
    result = run(pytester)
    result.assert_outcomes(passed=1)
    assert len(section(result)) == 3


def test_a_golden_that_is_damaged_can_be_recorded_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    path = pytester.path / "goldens" / "test_net" / "test_bits.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *GoldenError: *test_bits.safetensors*"])
    _, change, _ = section(run(pytester, "--refnet-update"))
    assert "in the place of a file that could not be used" in change
    run(pytester).assert_outcomes(passed=1)


def test_processes_of_xdist_report_to_the_first(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    # A new process with a home of its own would have to compile kernels.
    test = HEAD + ONE.replace("IMAGE", "IMAGE, device='reference'")
    pytester.makepyfile(test_a=test, test_b=test)
    result = run(pytester, "--refnet-update", "-n", "2", process=True)
    result.assert_outcomes(passed=2)
    assert section(result)[::3] == [f"goldens/test_{name}/test_bits.safetensors:" for name in "ab"]


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=HEAD + ONE)
    result = pytester.runpytest_inprocess("-p", f"no:{NAME}", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E *fixture 'refnet_golden' not found"])


def test_pytest_starts_without_refnet(pytester: pytest.Pytester) -> None:
    test = "import sys\ndef test_it(refnet_golden):\n    assert not {'refnet', 'numba', 'numpy'} & set(sys.modules)\n"
    pytester.makepyfile(test_it=test)
    # Hypothesis imports NumPy.
    result = run(pytester, "-p", "no:hypothesispytest", "-p", "no:xdist", process=True)
    result.assert_outcomes(passed=1)
