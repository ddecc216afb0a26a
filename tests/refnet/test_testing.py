"""``refnet.testing.assert_golden``, as a test suite of a user's meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.errors import ConfigError, WeightsError
from refnet.golden import read_golden, record
from refnet.testing import UPDATE, assert_golden
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

WEIGHTS = refnet.Weights(lively_weights())
IMAGE = random_images(33, 40, 3)
CONV2 = "resnet_v2/block2/unit_1/bottleneck_v2/conv2"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(UPDATE, raising=False)
    return tmp_path / "g.safetensors"


def test_a_golden_that_is_not_there_fails_with_the_way_to_make_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_golden(path, WEIGHTS, IMAGE)
    assert f"refnet golden record {path} --weights W --image I" in str(caught.value)
    assert "REFNET_UPDATE_GOLDENS=1" in str(caught.value)
    assert not path.exists()
    monkeypatch.setenv(UPDATE, "1")
    assert_golden(path, WEIGHTS, IMAGE, output_stride=8, hashes_only=True)
    monkeypatch.delenv(UPDATE)
    assert_golden(path, WEIGHTS, IMAGE, output_stride=8, device="reference")
    assert read_golden(path).values == {}


def test_other_bits_fail_until_the_golden_is_updated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path, WEIGHTS, IMAGE)
    other = {**WEIGHTS, f"{CONV2}/weights": WEIGHTS[f"{CONV2}/weights"] * 2}
    with pytest.raises(WeightsError, match="other weights"):
        assert_golden(path, other, IMAGE)
    monkeypatch.setenv(UPDATE, "1")
    assert_golden(path, other, IMAGE)
    monkeypatch.delenv(UPDATE)
    assert_golden(path, other, IMAGE)


def test_the_options_are_part_of_the_golden(path: Path) -> None:
    record(path, WEIGHTS, IMAGE, output_stride=8)
    assert_golden(path, WEIGHTS, IMAGE, output_stride=8, threads=2)
    with pytest.raises(AssertionError, match=r"options \{'output_stride': 8\}, not \{\}"):
        assert_golden(path, WEIGHTS, IMAGE)
    with pytest.raises(ConfigError, match="colour"):
        assert_golden(path, WEIGHTS, IMAGE, colour=8)


def test_options_may_be_tuples(path: Path) -> None:
    record(path, WEIGHTS, IMAGE, multi_grid=(1,))
    assert_golden(path, WEIGHTS, IMAGE, multi_grid=(1,))
    assert_golden(path, WEIGHTS, IMAGE, multi_grid=[1])


def test_a_port_is_held_to_the_golden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path, WEIGHTS, IMAGE)
    net, end_points = refnet.forward(WEIGHTS, IMAGE, end_points=True)
    assert_golden(path, end_points={**end_points, "net": net})
    # Another order of the same sums, in binary64: near, and not the same bits.
    port = {name: np.float32(value * (1 + 2.0**-23)) for name, value in end_points.items()}
    names = list(end_points)
    with pytest.raises(AssertionError) as caught:
        assert_golden(path, end_points=dict(reversed(port.items())))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("; in network order:")
    assert lines[1].startswith(f"  {names[0]} [17, 20, 64]: ")
    assert_golden(path, end_points=port, max_ulps=2)
    port[CONV2][1, 2, 3] += np.abs(end_points[CONV2]).max()
    monkeypatch.setenv(UPDATE, "1")  # nothing to record from: a port's values never become the golden
    with pytest.raises(AssertionError, match=rf"1 of {len(names)} end points differ .* by more than 2 ULPs") as caught:
        assert_golden(path, end_points=port, max_ulps=2)
    assert f"{CONV2} [5, 5, 6]: " in str(caught.value)
    assert "most at [1, 2, 3]: expected " in str(caught.value)


def test_the_sign_of_a_zero_is_a_bit(path: Path) -> None:
    record(path, WEIGHTS, IMAGE)
    _, port = refnet.forward(WEIGHTS, IMAGE, end_points=[CONV2])
    port[CONV2][port[CONV2] == 0] = -0.0
    with pytest.raises(AssertionError, match="0 ULPs of the largest value"):
        assert_golden(path, end_points=port)


def test_refnet_itself_has_no_tolerance(path: Path) -> None:
    with pytest.raises(ConfigError, match="max_ulps is for end_points of another engine"):
        assert_golden(path, WEIGHTS, IMAGE, max_ulps=1)


SUITE = """
import refnet
from refnet.testing import assert_golden

def test_bits():
    blocks = [refnet.resnet_v2_block("block1", base_depth=1, num_units=1, stride=1)]
    assert_golden("g.safetensors", refnet.random_weights(blocks, num_classes=2), (9, 9, 3))
"""


def test_in_a_suite_of_its_own(tmp_path: Path) -> None:
    """First the golden is not there; then it is recorded; then it holds."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    root = Path(refnet.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}"}
    environment.pop(UPDATE, None)
    codes, outputs = [], []
    for extra in ({}, {UPDATE: "1"}, {}):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment, **extra}, capture_output=True, text=True, check=False
        )
        codes.append(done.returncode)
        outputs.append(done.stdout)
    assert codes == [1, 0, 0], outputs
    assert "There is no golden g.safetensors" in outputs[0]
    assert "refnet/testing.py" not in outputs[0]
