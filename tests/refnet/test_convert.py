"""``refnet convert``: what it refuses, what it does when it is told to, and that the report says all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.cli import main
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

OPTIONS = {"batch_norm_epsilon": 1.001e-5, "pool_mode": "torch", "stride_place": "first_unit"}


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(target: str, weights: Any, *flags: str) -> tuple[int, Any, str]:
        """Save the weights as a.npz, convert them; the exit code, the report, and what is on stderr."""
        refnet.save_weights(tmp_path / "a.npz", weights)
        code = main(["convert", str(tmp_path / "a.npz"), str(tmp_path / target), "--json", *flags])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    return run


def test_every_kind_of_misfit_is_told_and_nothing_is_written(convert: Any, tmp_path: Path) -> None:
    weights = lively_weights()
    unit = "resnet_v2/block1/unit_1/bottleneck_v2"
    weights[f"{unit}/conv1/bn/gamma"] = weights.pop(f"{unit}/conv1/BatchNorm/gamma")
    weights["resnet_v2/postnorm/offset"] = weights.pop("resnet_v2/postnorm/beta")
    weights[f"{unit}/conv3/biases"] = weights[f"{unit}/conv3/biases"][:-1]
    code, answer, warnings = convert("b.npz", weights)
    assert code == 4
    assert "2 tensors are not part of the network" in warnings
    error = answer["error"]
    assert error["type"] == "MissingTensorError"
    for words in (
        f"{unit}/conv1/BatchNorm/gamma (3,) (is it {unit}/conv1/bn/gamma?)",
        "resnet_v2/postnorm/beta (20,) (is it resnet_v2/postnorm/offset?)",
        f"{unit}/conv3/biases should have shape (12,), but has (11,)",
        "Nothing was written; --anyway writes what there is.",
    ):
        assert words in error["message"]
    assert not (tmp_path / "b.npz").exists()
    code, answer, _ = convert("b.npz", weights, "--anyway")
    assert code == 0
    assert answer["missing"] == {
        f"{unit}/conv1/BatchNorm/gamma": {"shape": [3], "near": f"{unit}/conv1/bn/gamma"},
        "resnet_v2/postnorm/beta": {"shape": [20], "near": "resnet_v2/postnorm/offset"},
    }
    assert answer["misshaped"] == {f"{unit}/conv3/biases": {"expected": [12], "found": [11]}}
    assert answer["extra"] == [f"{unit}/conv1/bn/gamma", "resnet_v2/postnorm/offset"]
    assert len(answer["mapped"]) == len(weights) - 2


def test_a_left_over_is_proposed_for_one_tensor_and_of_its_shape_only() -> None:
    weights = lively_weights()
    del weights["resnet_v2/postnorm/beta"], weights["resnet_v2/postnorm/gamma"]
    weights["resnet_v2/postnorm/bet"] = np.zeros(20, np.float32)
    weights["resnet_v2/postnorm/gamm"] = np.zeros(21, np.float32)
    with pytest.raises(refnet.RefnetError) as caught:
        refnet.forward(weights, random_images(32, 32, 3))
    assert str(caught.value).count("is it") == 1
    assert "postnorm/beta (20,) (is it resnet_v2/postnorm/bet?)" in str(caught.value)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_checkpoint_cannot_tell_tf_slim_of_options(name: str, convert: Any, tmp_path: Path) -> None:
    weights = refnet.Weights(lively_weights(), options={name: OPTIONS[name]})
    code, answer, _ = convert("b.ckpt", weights)
    assert code == 2
    assert f"{name}={OPTIONS[name]!r}" in answer["error"]["message"]
    assert list(answer["error"]["found"]) == [name]
    assert not list(tmp_path.glob("b.ckpt*"))
    code, answer, _ = convert("b.ckpt", weights, "--anyway")
    assert code == 0
    assert answer["changes"][name]["value"] == OPTIONS[name]
    assert refnet.load_weights(tmp_path / "b.ckpt").options == {name: OPTIONS[name]}
    for target in ("b.npz", "b.safetensors"):
        code, answer, _ = convert(target, weights)
        assert code == 0
        assert answer["changes"].keys() == {name}
        assert refnet.load_weights(tmp_path / target).options == {name: OPTIONS[name]}


def test_tf_slims_own_values_change_nothing(convert: Any) -> None:
    options = {"batch_norm_epsilon": 1e-5, "pool_mode": "slim", "stride_place": "last_unit"}
    code, answer, _ = convert("b.ckpt", refnet.Weights(lively_weights(), options=options))
    assert (code, answer["changes"]) == (0, {})


def test_the_report_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = lively_weights()
    weights["resnet_v2/postnorm/bet"] = weights.pop("resnet_v2/postnorm/beta")
    refnet.save_weights(tmp_path / "a.npz", refnet.Weights(weights, options=OPTIONS))
    assert main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.ckpt"), "--anyway"]) == 0
    out = capsys.readouterr().out
    for words in (
        "missing: 1\n",
        "missing: resnet_v2/postnorm/beta (is it resnet_v2/postnorm/bet?)",
        "stride_place='first_unit' (TF-Slim: 'last_unit')",
        "in other programs it is another function",
    ):
        assert words in out
