"""``refnet bench --tune`` and ``--dense``, and the figures beside the times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.benchmark import layers
from refnet.cli import main
from refnet_kernels import jit
from refnet_kernels.conv import cpu, tuning
from refnet_kernels.conv.trials import Trial
from refnet_kernels.conv.tuning import GROUPS, Tuning
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

GOOD = Trial(1.0, {GROUPS[0]: {250: 0.3, 500: 0.5, 800: 0.8}, GROUPS[1]: {250: 0.4, 500: 0.7, 800: 1.0}}, True)
#: Of the first group, as the line through 0.5 and 0.8 says.
FITTED = {**tuning.of_table()._asdict(), "most_nonzero": 950, "group_panels": GROUPS[0]}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is kept in place of the user's own numbers."""
    kept: list[bytes] = []
    monkeypatch.setattr(jit, "write_note", lambda file, data: kept.append(data) or f"here/{file}")
    monkeypatch.delenv("REFNET_TUNE", raising=False)
    monkeypatch.setattr(tuning, "_chosen", None)
    return kept


def tuned(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The JSON, and what the table's command says to the user."""
    assert main(["bench", "--tune", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert main(["bench", "--tune"]) == 0
    table = capsys.readouterr()
    assert all(name in table.out for name in Tuning._fields)
    return out, table.err


def test_what_is_measured_is_kept_and_printed(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "measured", lambda *_: GOOD)
    found, said = tuned(capsys)
    assert said == ""
    assert found["measured"] == found["used"] == FITTED
    assert found["table"] == tuning.of_table()._asdict()
    assert found["file"] == "here/conv.tuning"
    assert [json.loads(data)["numbers"] for data in written] == [FITTED] * 2
    row = {"group_panels": GROUPS[1], "nonzero": 0.5, "ms": 0.7, "of_dense": 0.7}
    assert row in found["without_zeros"]
    assert len(found["without_zeros"]) == 6


def test_a_trial_that_cannot_be_believed_changes_nothing(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "measured", lambda *_: GOOD._replace(is_steady=False))
    found, said = tuned(capsys)
    assert "nothing is kept" in said
    assert (found["measured"], found["file"], written) == (None, None, [])
    assert found["used"] == found["table"]


def test_off_says_that_it_is_not_used(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "measured", lambda *_: GOOD)
    monkeypatch.setenv("REFNET_TUNE", "off")
    found, said = tuned(capsys)
    assert "REFNET_TUNE is off" in said
    assert (found["used"], found["measured"]) == (found["table"], FITTED)


def test_without_a_cache_it_says_so(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "measured", lambda *_: GOOD)
    monkeypatch.setattr(jit, "write_note", lambda *_: None)
    found, said = tuned(capsys)
    assert "there is no cache" in said
    assert found["file"] is None


def test_trials_of_this_machine(written: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--tune", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dense_ms"] > 0
    assert len(written) == (found["measured"] is not None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    refnet.save_weights(tmp_path / "w.npz", lively_weights())
    return tmp_path / "w.npz"


def test_percentiles_and_the_share_of_zeros(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(file), "--size", "40", "--rounds", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["min_ms"] <= found["p50_ms"] == found["median_ms"] <= found["p99_ms"]
    # Nearly all products are those of the root, with an image that has no zeros.
    assert 0 < found["zeros"] < 0.1


def test_the_share_of_zeros_is_that_of_the_products() -> None:
    # A convolution of 3 channels on an image without zeros, then one of 4 on 3 zeros of 4.
    names = {"conv1": (1, 1, 3, 4), "conv2": (1, 1, 4, 6)}
    weights = {f"{name}/weights": np.ones(shape, np.float32) for name, shape in names.items()}
    weights |= {"conv1/biases": np.array([9, -9, -9, -9], np.float32), "conv2/biases": np.zeros(6, np.float32)}
    graph = refnet.graph.Graph(weights)
    net = graph.placeholder((1, 5, 5, 3))
    for name, (*_, outputs) in (("conv1", names["conv1"]), ("conv2", names["conv2"])):
        net = refnet.conv2d_same(net, outputs, 1, 1, scope=name)

    class Traced:
        options = refnet.Engine(lively_weights()).options

        def trace(self, shape: object) -> tuple[Any, dict[str, Any]]:
            return net, {}

    share = layers.share_of_zeros(Traced(), weights, np.ones((1, 5, 5, 3), np.float32), 1)
    assert share == pytest.approx((0 * 3 * 4 + 0.75 * 4 * 6) / (3 * 4 + 4 * 6))


@pytest.mark.parametrize("arguments", [["--size", "24"], ["--layers", "--size", "24"]], ids=str)
def test_dense_is_told_to_the_engine(
    arguments: list[str], file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[bool] = []
    make = refnet.Engine.__init__

    def watched(self: refnet.Engine, weights: Any, **options: Any) -> None:
        made.append(options.get("zeros", True))
        make(self, weights, **options)

    monkeypatch.setattr(refnet.Engine, "__init__", watched)
    for dense in ([], ["--dense"]):
        assert main(["bench", str(file), *arguments, "--rounds", "1", "--threads", "1", *dense]) == 0
    assert made == [True, False]


def test_dense_predicts_the_same(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    pixels = (127 * (1 + random_images(48, 48, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    lines = []
    for dense in ([], ["--dense"]):
        command = ["predict", str(tmp_path / "a.png"), "--weights", str(file), "--top", "7", "--json", *dense]
        assert main(command) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
