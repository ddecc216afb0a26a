"""``refnet bench --layers`` and ``--conv``: figures of what is right alone, and nothing that only the tests have."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.benchmark import layers
from refnet.benchmark.layers import measure_network
from refnet.cli import main
from refnet.cli.bench import products
from refnet.run.cpu import CpuExecutor
from refnet.run.devices import device_named
from refnet_kernels.contract import ConvGeometry
from refnet_kernels.cpu import measure
from refnet_kernels.cpu.measure import Timed
from refnet_kernels.cpu.team import Launch
from refnet_kernels.system.memory import Room
from tests.support.arrays import random_images
from tests.support.nets import lively_weights


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of the machine that are soon measured, and that no figure of a test depends on."""
    monkeypatch.setattr("refnet.benchmark.limits._ENOUGH", 1)
    monkeypatch.setattr("refnet.benchmark.limits.room_for_more", lambda: Room(2**30, "a test"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    refnet.save_weights(tmp_path / "w.npz", lively_weights())
    return tmp_path / "w.npz"


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["bench", *map(str, arguments), "--rounds", "2", "--json"]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_a_convolution_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "--conv", "9x8x64,1x1,20", "--batch", 3, "--zeros", 0.5, "--threads", 2)
    (row,) = figures["layers"]
    assert row["output"] == [3, 9, 8, 20]
    assert row["flop"] == 2 * 3 * 9 * 8 * 64 * 20
    assert row["bytes"] == 4 * (3 * 9 * 8 * 64 + 64 * 20 + 3 * 9 * 8 * 20)
    assert 0.45 < row["zeros"] < 0.55
    assert 0 < row["min_ms"] <= row["median_ms"]
    assert row["gflop_per_second"] == pytest.approx(row["flop"] / row["min_ms"] / 1e6)
    assert row["gb_per_second"] == pytest.approx(row["bytes"] / row["min_ms"] / 1e6)
    assert row["percent_of_peak"] == pytest.approx(100 * row["gflop_per_second"] / figures["peak_gflop_per_second"])
    assert list(figures["copy_gb_per_second"]) == ["DRAM", "L3", "L2"]
    assert (figures["threads"], figures["rounds"], figures["batch"]) == (2, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("--conv", "10x7x5,3x3,4", "--stride", 2), [1, 5, 4, 4]),
        (("--conv", "10x7x5,3x3,4", "--rate", 2), [1, 10, 7, 4]),
        (("--conv", "10x7x5,3x3,4", "--stride", 2, "--rate", 2), [1, 5, 4, 4]),
        (("--conv", "11x10x3,7x7,4", "--stride", 2, "--batch", 2), [2, 6, 5, 4]),
        (("--conv", "6x6x8,1x5,3"), [1, 6, 6, 3]),
    ],
)
def test_strides_rates_and_images(
    arguments: tuple[object, ...], output: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = bench(capsys, *arguments)["layers"]
    assert row["output"] == output


def test_each_layer_of_a_network(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, weights, "--layers", "--size", 16, "--batch", 2)
    rows = figures["layers"]
    loaded = refnet.load_weights(weights)
    convs = [row for row in rows if row["operation"].startswith("conv")]
    named = {name.removesuffix("/weights") for name in loaded if name.endswith("/weights")}
    assert {f"{loaded.architecture.scope}/{row['layer']}" for row in convs} == named
    assert all(0 < row["min_ms"] <= row["median_ms"] for row in rows)
    # Those that the definition has, except with zeros outside the image.
    assert 0 < sum(row["flop"] for row in convs) < 2 * products(loaded.architecture, (2, 16, 16, 3))


def test_zeros_are_those_of_the_first_image() -> None:
    weights = refnet.Weights(lively_weights())
    images = random_images(3, 16, 16, 3)
    engine = refnet.Engine(weights, threads=2)
    rows = {row.name: row for row in measure_network(engine, weights, images, 2, range(1)).rows}
    _, end_points = engine(images[:1], end_points=True)
    scope = engine.architecture.scope
    compared = 0
    for name, value in end_points.items():
        if name.endswith("/bottleneck_v2/conv1"):
            after = name.removeprefix(f"{scope}/").replace("/conv1", "/conv2")
            assert rows[after].zeros == np.mean(value == 0) > 0
            compared += 1
    assert compared


def test_times_are_of_all_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.run.cpu.PART_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(Timed, "run", lambda self: [1.0] * ((len(self._times)) - 1))
    engine = refnet.Engine(lively_weights(), threads=1)
    images = random_images(3, 64, 64, 3)
    executor = engine.prepared(images.shape)
    assert isinstance(executor, CpuExecutor)
    times = executor.timer(images)()
    assert len(times) == len(executor.plan.steps)
    assert times[0] == 3
    assert times[-1] == 1


def test_launches_that_are_timed_leave_the_same_bits() -> None:
    engine = refnet.Engine(lively_weights(), threads=2)
    images = random_images(2, 16, 16, 3)
    executor = engine.prepared(images.shape)
    assert isinstance(executor, CpuExecutor)
    expected = engine(images)
    executor._arena[:] = 255
    times = executor.timer(images)()
    assert executor._outputs[0].tobytes() == expected.tobytes()
    assert min(times) > 0


def test_the_clock_is_read_between_launches() -> None:
    own = np.zeros((2, 2), np.int64)
    clock = measure._address("clock_kernel")
    launches = [Launch(clock, 1, (time.CLOCK_MONOTONIC, own.ctypes.data + 16 * i), 0) for i in range(2)]
    timed = Timed(launches, 2)
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    times = timed.run()
    end = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    first, mine, second, mine_too, last = (
        1_000_000_000 * seconds + nanoseconds
        for seconds, nanoseconds in (timed._times[0], own[0], timed._times[1], own[1], timed._times[2])
    )
    assert begin <= first <= mine <= second <= mine_too <= last <= end
    assert times == pytest.approx([(second - first) / 1e6, (last - second) / 1e6], abs=2e-6)


def test_other_bits_than_one_threads_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CpuExecutor.run

    def wrong(self: CpuExecutor, images: Any, stream: None = None) -> Any:
        outputs, extremes = run(self, images, stream)
        if self._target.workers > 1:
            outputs[-1].flat[-1] = np.nextafter(outputs[-1].flat[-1], np.float32(np.inf))
        return outputs, extremes

    monkeypatch.setattr(CpuExecutor, "run", wrong)
    assert main(["bench", "--conv", "6x6x64,3x3,8", "--threads", "2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "One CPU thread gives other bits, so nothing is timed." in err


def test_other_bits_than_the_definitions_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CpuExecutor.run

    def wrong(self: CpuExecutor, images: Any, stream: None = None) -> Any:
        outputs, extremes = run(self, images, stream)
        return [*outputs[:-1], np.nextafter(outputs[-1], np.float32(np.inf))], extremes

    monkeypatch.setattr(CpuExecutor, "run", wrong)
    assert main(["bench", "--conv", "6x6x64,3x3,8", "--threads", "1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "The definition gives other bits, so nothing is timed." in err


def test_a_large_convolution_is_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_DEFINED_PRODUCTS", 1)
    g = ConvGeometry.same((2, 9, 9, 64), (3, 3, 64, 40))
    (row,) = layers.measure_conv(g, 0.3, device_named("cpu"), 2, range(1)).rows
    assert len(row.ms) == 1


def test_a_roofline(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--conv", "6x6x64,3x3,8"], [str(weights), "--layers", "--size", "16"]):
        picture = tmp_path / "roof.png"
        assert main(["bench", *arguments, "--rounds", "1", "--roofline", str(picture)]) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
        assert "FMA peak" in capsys.readouterr().out


#: What only the tests and the benchmarks have.
WITHOUT = """
import sys
for name in ("tensorflow", "tf_slim", "hypothesis", "pytest", "matplotlib", "benchmarks", "tests"):
    sys.modules[name] = None
from refnet.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_the_package_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, "bench", "--conv", "6x6x8,3x3,8", "--rounds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "conv 3x3 8 > 8, 6x6" in done.stdout


def test_a_wrong_form_shows_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("28x28x128", "28x28x128,3,256", "28x28x128,3x3x256", "0x28x128,3x3,256", "28*28*128,3*3,256"):
        assert main(["bench", "--conv", wrong]) == 2
        assert "HEIGHTxWIDTHxCHANNELS,KHxKW,OUTPUTS" in (error := capsys.readouterr().err)
        assert "such as 28x28x128,3x3,256" in error
