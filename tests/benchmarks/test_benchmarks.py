"""Every benchmark runs once, tiny, as its users run it; and none gives figures of what is wrong."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_peers, common
from benchmarks.common import RESULTS, ROOT, folder_of, place_of
from benchmarks.layers import Layer, is_right, read_layers
from benchmarks.peers import PEERS
from refnet.benchmark.work import products_inside
from refnet_kernels.catalog import rows, select
from refnet_kernels.contract import ConvGeometry
from refnet_kernels.gpu.device import missing

SCRIPTS = {"forward": [], "peers": ["--plot"], "kernels": ["--plot"], "price": []}
#: TF-Slim's networks have no average pool and no group norm.
CPU_OPS = {op for op, backend in rows() if backend == "cpu"} - {"avg_pool", "group_norm"}


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *map(str, arguments)]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(script, *arguments), cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """All benchmarks at once: most of their time goes into TensorFlow's start, and no figure of theirs is used."""
    processes = {}
    for name, figure in SCRIPTS.items():
        arguments = ["--quick", "--output", folder / f"{name}.json", *figure]
        if figure:
            arguments.append(folder / f"{name}.png")
        with (folder / f"{name}.log").open("wb") as log:
            processes[name] = subprocess.Popen(
                command(f"bench_{name}", *arguments), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


@pytest.fixture
def result(request: pytest.FixtureRequest, started: dict[str, subprocess.Popen[bytes]], folder: Path) -> dict[str, Any]:
    """The result of the benchmark that the test names."""
    name = request.param
    assert started[name].wait() == 0, (folder / f"{name}.log").read_text()
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("result", ["kernels"], indirect=True)
def test_the_kernels_of_the_whole_catalog_are_timed(result: dict[str, Any], folder: Path) -> None:
    assert {row["op"] for row in result["rows"].values()} == CPU_OPS
    assert result["peak_gflops"] > 0
    assert_timed(result)
    assert_picture(folder / "kernels.png")


@pytest.mark.parametrize("result", ["price"], indirect=True)
def test_the_price_is_that_of_a_layer_of_all_and_of_the_network(result: dict[str, Any]) -> None:
    assert list(result["rows"])[1:] == ["all convolutions", "resnet_v2_50"]
    assert_timed(result)
    for row in result["rows"].values():
        for kind, price in row["price"].items():
            assert price == pytest.approx(row["ms"][kind] / row["without"][kind] - 1)
    # Another order of the sums, and the same function.
    assert 0 < result["rows"]["resnet_v2_50"]["error"] < 1e-5


@pytest.mark.parametrize("result", ["forward"], indirect=True)
def test_a_forward_is_timed_against_slim(result: dict[str, Any]) -> None:
    assert list(result["rows"]) == ["refnet", "TF-Slim"]
    assert_timed(result)


@pytest.mark.parametrize("result", ["peers"], indirect=True)
def test_every_installed_peer_is_timed(result: dict[str, Any], folder: Path) -> None:
    assert list(result["rows"]) == [peer.title for peer in PEERS.values() if peer.installed]
    assert_timed(result)
    assert 0 < result["floor_ms"]["min"] <= result["floor_ms"]["median"]
    assert 0.3 < result["zeros"] < 0.7  # a ReLU's of values around 0
    for row in result["rows"].values():
        assert row["first_output_s"] > 0
        assert row["peak_rss_mb"] > 0
    assert_picture(folder / "peers.png")
    for peer in PEERS.values():
        left_out = f"{peer.title} is left out: {peer.package} is not installed." in (folder / "peers.log").read_text()
        assert left_out != peer.installed


@pytest.mark.parametrize("result", ["peers"], indirect=True)
def test_bars_of_several_results_make_one_picture(result: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(result | {"case": result["case"] | {"size": 321, "output_stride": 8}}))
    done = run("plot_peers", folder / "peers.json", other, "--output", tmp_path / "bars.png")
    assert done.returncode == 0, done.stderr
    assert_picture(tmp_path / "bars.png")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("**/*.json")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_every_result_lies_where_a_benchmark_puts_it_and_says_when_it_was_measured(path: Path) -> None:
    result = json.loads(path.read_text())
    assert place_of(result) == path
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", result["machine"]["date"])
    assert result["machine"]["revision"]


@pytest.mark.parametrize(
    ("about", "folder"),
    [
        ({"processor": "znver4"}, "zen4"),
        ({"processor": "emeraldrapids"}, "emerald_rapids"),
        ({"processor": "apple-m1"}, "apple_m1"),
        ({"processor": "znver4", "target": "haswell"}, "zen4_for_haswell"),
        ({"processor": "znver4", "target": "8 lanes"}, "zen4_for_8_lanes"),
        ({"processor": "emeraldrapids", "device": "NVIDIA H200"}, "h200"),
    ],
)
def test_the_folder_is_the_processor(about: dict[str, Any], folder: str) -> None:
    assert folder_of(about) == folder


def test_record_writes_a_result_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    case = {"network": "resnet_v2_50", "size": 321, "batch": 8, "threads": 1, "output_stride": 16, "classes": None}
    result = {"benchmark": "peers", "case": case, "machine": common.machine(), "rows": {}}
    common.write_result(argparse.Namespace(output=None, record=True), result)
    (path,) = tmp_path.glob("*/*")
    assert path.name == "peers_resnet_v2_50_321_os16_8_1.json"
    assert path.parent.name == folder_of(common.machine())
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))


@pytest.mark.parametrize("arguments", [["--quick"], ["--ops", "conv"]])
def test_a_part_of_a_case_is_not_recorded(arguments: list[str]) -> None:
    done = run("bench_kernels", "--record", *arguments)
    assert done.returncode == 2
    assert "--record" in done.stderr


def assert_timed(result: dict[str, Any]) -> None:
    assert result["machine"]["versions"]["refnet"]
    for row in result["rows"].values():
        assert 0 < row["ms"]["min"] <= row["ms"]["median"]
        assert row["ms"]["median"] <= row["ms"].get("p99", row["ms"]["median"])


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG")


def write(path: Path, minima: dict[str, float], **case: object) -> Path:
    rows = {name: {"ms": {"min": value, "median": 2 * value}} for name, value in minima.items()}
    path.write_text(json.dumps({"benchmark": "peers", "case": {"size": 224, **case}, "machine": {}, "rows": rows}))
    return path


def test_compare_gives_ratios_by_name(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", {"refnet": 4, "gone": 1})
    b = write(tmp_path / "b.json", {"fresh": 1, "refnet": 3})
    done = run("compare", a, b)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "refnet" in line]
    assert line.replace("│", " ").split() == ["refnet", "4.000", "3.000", "0.750", "8.000", "6.000", "0.750"]
    assert f"only in {a}: gone" in done.stdout
    assert f"only in {b}: fresh" in done.stdout


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ('{"benchmark": "peers", "case": {"size": 321}, "machine": {}, "rows": {}}', "different cases"),
        ('{"benchmark": "kernels", "case": {}, "machine": {}, "rows": {}}', "different benchmarks"),
        ('{"benchmark": "peers", "case": {"size": 224}, "machine": {}, "rows": {}}', "no row in common"),
        ("[]", "is not the result"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_compare_refuses_what_cannot_be_compared(tmp_path: Path, other: str | None, message: str) -> None:
    a, b = write(tmp_path / "a.json", {"refnet": 4}), tmp_path / "b.json"
    if other is not None:
        b.write_text(other)
    done = run("compare", a, b)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_peer_that_is_asked_for_must_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PEERS, "openvino", PEERS["openvino"]._replace(modules=("openvino", "no_such_module")))
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--quick", "--peers", "openvino"])
    with pytest.raises(SystemExit):
        bench_peers.main()
    assert "not installed: openvino" in capsys.readouterr().err


@pytest.mark.parametrize("error", [1e-4, float("nan")])
def test_a_peer_that_is_wrong_is_not_timed(error: float) -> None:
    bench_peers.check_errors({"refnet": 5e-7, "tf-slim": 4e-7, "litert": 2e-6})
    with pytest.raises(SystemExit, match="ONNX Runtime"):
        bench_peers.check_errors({"refnet": 5e-7, "tf-slim": 4e-7, "onnxruntime": error})


@pytest.mark.parametrize(
    "line",
    [
        "conv 2 9 8 70 9 8 40 3 3 1 2 2 2 bias,shortcut,preact 1",
        "conv 1 9 8 5 5 4 33 7 7 2 1 3 3 norm,relu,preact_only 1",
        "max_pool 1 9 8 5 5 4 3 2 1 0 0 preact_only 1",
        "batch_norm 20 70 1",
        "batch_statistics 20 70 1",
        "group_norm 2 9 8 70 35 1",
        "residual 20 70 1",
        "subsample 1 9 8 5 2 1",
        "avg_pool 1 9 8 5 5 4 2 2 0 0 0 1",
        "mean 1 9 8 5 1",
        "softmax 3 11 1",
    ],
)
def test_a_kernel_that_is_wrong_is_not_timed(line: str) -> None:
    layer = Layer.parse(line)
    assert layer.line == line
    problem = layer.problem()
    defined = {name: np.ascontiguousarray(value) for name, value in problem.defined().items()}
    assert is_right(problem, defined)
    for value in defined.values():
        place = np.unravel_index(np.argmax(np.abs(value)), value.shape)
        right = value[place]
        # A thousandth of the largest value: more than hundreds of roundings, less than a missing product.
        value[place] *= np.float32(1.001)
        assert not is_right(problem, defined)
        value[place] = right


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("convolution 1 2", r"line 3, column 1 \(op\): 'convolution' is not one of conv, "),
        ("mean 1 9 8", r"line 3, column 5 \(channels\) is missing: mean has the columns batch height width channels"),
        ("mean 1 9 8 5 1 1", "line 3, there are too many columns: mean has the columns batch height"),
        ("mean 1 9 8.5 5 1", r"line 3, column 4 \(width\): '8.5' is not a whole number of 1 or more"),
        ("mean 1 9 8 5 0", r"line 3, column 6 \(times\): '0' is not a whole number of 1"),
        ("subsample 1 9 8 5 -1 1", r"line 3, column 6 \(factor\): '-1' is not"),
        ("conv 2 9 8 70 9 8 40 3 3 x 2 2 2 - 1", r"line 3, column 11 \(stride\): 'x' is not a whole number"),
        ("conv 2 9 8 70 9 8 40 3 3 1 2 -2 2 - 1", r"line 3, column 13 \(pad_top\): '-2' is not a whole number of 0"),
        ("conv 2 9 8 70 9 8 40 3 3 1 2 2 2 nrm,relu 1", r"line 3, column 15 \(epilogue\): 'nrm,relu' is not -, or"),
        ("softmax \u00b2 11 1", r"line 3, column 2 \(pixels\)"),
    ],
)
def test_a_wrong_line_is_named_with_its_column(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(f"# Two lines before it.\nmean 1 9 8 5 1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_layers(path)


def test_the_stored_shapes_are_the_networks(tmp_path: Path) -> None:
    done = run("make_shapes", tmp_path)
    assert done.returncode == 0, done.stderr
    stored = ROOT / "benchmarks" / "shapes"
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in stored.iterdir()}
    assert {layer.op for layer in read_layers(stored / "resnet_v2_50_224.txt")} == CPU_OPS


@pytest.mark.skipif(missing() is None, reason="there is a CUDA device")
def test_nothing_is_timed_without_a_cuda_device() -> None:
    done = run("bench_cuda", "--quick")
    assert done.returncode == 1
    assert done.stdout == ""
    assert str(missing()) in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(missing() is not None, reason=f"no CUDA device: {missing()}")
def test_a_network_is_timed_on_cuda(tmp_path: Path) -> None:
    done = run("bench_cuda", "--quick", "--output", tmp_path / "cuda.json")
    assert done.returncode == 0, done.stderr
    assert_timed(json.loads((tmp_path / "cuda.json").read_text()))


@pytest.mark.parametrize(
    "g",
    [
        ConvGeometry(2, 7, 5, 3, 7, 5, 4, 3, 3, 1, 1, 1, 1),
        ConvGeometry(1, 9, 9, 2, 5, 5, 3, 7, 7, 2, 1, 3, 3),
        ConvGeometry(1, 6, 6, 1, 6, 6, 2, 3, 3, 1, 4, 4, 4),
        ConvGeometry(1, 2, 2, 3, 4, 4, 5, 2, 2, 3, 3, 4, 4),
    ],
    ids=str,
)
def test_products_inside_are_those_that_ones_count(g: ConvGeometry) -> None:
    x = np.ones((g.batch, g.height, g.width, g.channels), np.float32)
    weights = np.ones((g.kernel_height, g.kernel_width, g.channels, g.out_channels), np.float32)
    assert products_inside(g) == select("conv", "reference").call(x, weights, g).sum()
