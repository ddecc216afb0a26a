"""``refnet diagnose``: text, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from tests.support.nets import lively_weights

BLOCKS = [refnet.resnet_v2_block("block1", 3, 1, 2), refnet.resnet_v2_block("block2", 5, 1, 1)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.chdir(tmp_path)
    weights = lively_weights(blocks=BLOCKS, num_classes=12)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 34, 32, 3)).astype(np.float32)
    refnet.save_weights("weights.npz", weights)
    np.save("image.npy", image)
    right = refnet.forward(weights, image)
    np.save("right.npy", right)
    np.save("wrong.npy", refnet.forward(weights, image, pool_mode="valid"))
    np.save("unknown.npy", right * np.float32(1.25))
    np.save("integers.npy", np.arange(12))
    np.save("short.npy", right[:, :5])
    return weights


def answer(capsys: pytest.CaptureFixture[str], observed: str, *options: str) -> tuple[int, str]:
    arguments = [
        "diagnose",
        observed,
        "--weights",
        "weights.npz",
        "--image",
        "image.npy",
        "--threads",
        "1",
        "--no-pairs",
    ]
    code = main([*arguments, *options])
    return code, capsys.readouterr().out


def test_exit_codes_and_text(files: object, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = answer(capsys, "right.npy")
    assert code == 0
    assert "are right" in text
    code, text = answer(capsys, "wrong.npy")
    assert code == 1
    assert "pool1 valid" in text
    assert "pytorch:" in text
    assert "simclr#26" in text
    code, text = answer(capsys, "unknown.npy")
    assert code == 1
    assert text.startswith("No known mistake")


def test_json(files: object, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = answer(capsys, "wrong.npy", "--json")
    found = json.loads(text)
    assert code == 1
    assert (found["explained"], found["correct"]) == (True, False)
    assert (found["mistakes"][0]["id"], found["mistakes"][0]["value"]) == ("pool1", "valid")
    assert found["mistakes"][0]["error_after"] < found["rounding"] < found["mistakes"][0]["error_before"]
    assert found["tried"] > 100


@pytest.mark.parametrize("observed", ["integers.npy", "short.npy", "missing.npy", "image.npy"])
def test_what_cannot_be_used(files: object, capsys: pytest.CaptureFixture[str], observed: str) -> None:
    code, text = answer(capsys, observed, "--json")
    assert code == 5
    assert "error" in json.loads(text)
