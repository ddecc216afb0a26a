"""``refnet compare`` on the command line: its exit codes, its table, and the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from tests.support.nets import lively_weights

BLOCKS = [refnet.resnet_v2_block("block1", 3, 2, 2), refnet.resnet_v2_block("block2", 5, 1, 1)]
CONV = "resnet_v2/block1/unit_2/bottleneck_v2/conv2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, pixels, and the activations of a port before and after a mistake."""
    folder = tmp_path_factory.mktemp("compare")
    weights = lively_weights(0, BLOCKS)
    refnet.save_weights(folder / "w.npz", refnet.Weights(weights))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 33, 29, 3)).astype(np.float32)
    np.save(folder / "x.npy", images)
    for name, kernel in (("good", weights[f"{CONV}/weights"]), ("bad", weights[f"{CONV}/weights"][::-1])):
        _, end_points = refnet.forward({**weights, f"{CONV}/weights": kernel}, images, end_points=True)
        np.savez(folder / f"{name}.npz", **end_points)
    raw = np.random.default_rng(0).integers(0, 256, (33, 29, 3), np.uint8)
    np.save(folder / "raw.npy", raw)
    pixels = refnet.preprocess(raw, refnet.Weights(weights).recipe)
    _, end_points = refnet.forward(weights, pixels, end_points=True)
    np.savez(folder / "of_raw.npz", **end_points)
    np.savez(folder / "text.npz", a=np.array(["a"]))
    return folder


def run(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    return main(["compare", *command.split()])


WITH_WEIGHTS = "--weights w.npz --image x.npy"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"good.npz {WITH_WEIGHTS}", 0),
        (f"bad.npz {WITH_WEIGHTS}", 1),
        ("good.npz good.npz", 0),
        ("good.npz bad.npz", 1),
        ("of_raw.npz --weights w.npz --image raw.npy", 0),
        ("good.npz", 2),
        (f"good.npz bad.npz {WITH_WEIGHTS}", 2),
        ("good.npz --weights w.npz", 2),
        ("good.npz bad.npz --image x.npy", 2),
        ("good.npz bad.npz --map a", 2),
        ("good.npz bad.npz --map a=b", 2),
        ("good.npz bad.npz --plot no/p.png", 2),
        ("good.npz bad.npz --html no/p.html", 2),
        (f"good.npz {WITH_WEIGHTS} --device tpu", 3),
        ("good.npz --weights good.npz --image x.npy", 4),
        ("good.npz --weights none.npz --image x.npy", 4),
        ("good.npz text.npz", 5),
        ("none.npz good.npz", 5),
        ("good.npz --weights w.npz --image none.npy", 5),
        ("good.npz --weights w.npz --image good.npz", 5),
        ("x.npy good.npz", 5),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tensors are not part")
def test_exit_codes(
    command: str, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, command, monkeypatch) == code
    out, err = capsys.readouterr()
    assert ("error:" in err) == (code > 1), err
    assert bool(out) == (code <= 1)


def test_the_table_marks_the_first_divergence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, f"bad.npz {WITH_WEIGHTS}", monkeypatch)
    out, _ = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if line.startswith("->")]
    assert CONV in line
    assert "born" in line
    assert f"The first divergence is {CONV}" in out
    assert "resnet_v2/conv1 " not in out
    run(folder, f"bad.npz {WITH_WEIGHTS} --all", monkeypatch)
    assert "resnet_v2/conv1 " in capsys.readouterr().out


def test_json(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, f"bad.npz {WITH_WEIGHTS} --json", monkeypatch) == 1
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document["first_divergence"] == CONV
    assert document["observed"] == "bad.npz"
    assert len(document["rows"]) == document["compared"]


def test_a_mapping(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(folder / "good.npz") as good:
        np.savez(folder / "mapped.npz", odd=good[CONV])
    command = f"mapped.npz {WITH_WEIGHTS} --map odd={CONV} --json"
    assert run(folder, command, monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["how"] == "mapping"


def test_pictures_and_pages(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert run(folder, f"bad.npz {WITH_WEIGHTS} --plot p.png --html p.html", monkeypatch) == 1
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "Error along the network" in (folder / "p.html").read_text(encoding="utf-8")
