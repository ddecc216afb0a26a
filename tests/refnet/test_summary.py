import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.summary import summarize
from tests.support.nets import lively_weights

DIGITS = Path(refnet.__file__).parent / "data" / "digits" / "digits.ckpt"

# Counted by TensorFlow in tf_slim's own graphs, with 1001 classes: variables, parameters, trainable parameters.
TF_SLIM = {
    "resnet_v2_50": (272, 25_615_849, 25_570_409),
    "resnet_v2_101": (544, 44_677_609, 44_579_945),
    "resnet_v2_152": (816, 60_382_697, 60_238_953),
    "resnet_v2_200": (1072, 64_896_489, 64_728_169),
}


@pytest.mark.parametrize("name", TF_SLIM)
def test_parameters_of_tf_slims_networks(name: str) -> None:
    _, total, trainable = TF_SLIM[name]
    summary = summarize(name)
    assert (summary.total, summary.trainable) == (total, trainable)
    assert sum(layer.parameters for layer in summary.layers) == total


def test_weights_and_name_give_the_same_summary() -> None:
    weights = refnet.random_weights("resnet_v2_50")
    variables, total, _ = TF_SLIM["resnet_v2_50"]
    assert len(weights) == variables
    assert sum(tensor.size for tensor in weights.values()) == total
    by_weights, by_name = summarize(weights), summarize("resnet_v2_50")
    assert by_weights.layers == by_name.layers
    assert by_weights.non_trainable == by_name.non_trainable


def test_parameters_of_a_checkpoint_are_the_values_in_it() -> None:
    # 280,232 bytes of float32 in the shard; refnet/data/digits/README.md says 70,058 parameters.
    size = DIGITS.with_name("digits.ckpt.data-00000-of-00001").stat().st_size
    assert summarize(refnet.load_weights(DIGITS), 32).total == size // 4 == 70_058


def test_names_are_unique_and_connections_lead_backwards() -> None:
    layers = summarize("resnet_v2_50").layers
    seen: set[str] = set()
    for layer in layers:
        assert layer.name not in seen
        assert seen.issuperset(layer.connected_to)
        assert bool(layer.connected_to) == (layer.name != "input")
        seen.add(layer.name)


def test_a_unit_that_strides_is_connected_as_in_tf_slim() -> None:
    unit = "resnet_v2_50/block1/unit_3/bottleneck_v2"
    layers = {layer.name: layer for layer in summarize("resnet_v2_50").layers}
    assert layers[unit].connected_to == [f"{unit}/shortcut", f"{unit}/conv3"]
    shortcut = layers[f"{unit}/shortcut"]
    assert shortcut.connected_to == ["resnet_v2_50/block1/unit_2/bottleneck_v2"]
    assert (shortcut.operation, shortcut.shape, shortcut.parameters) == ("subsample/2", (1, 28, 28, 256), 0)
    assert layers[f"{unit}/conv2"].operation == "conv 3x3/2"
    assert layers["resnet_v2_50/block2/unit_1/bottleneck_v2/shortcut"].parameters == 256 * 512 + 512


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        (224, [(56, 256), (28, 256), (28, 512), (14, 1024), (7, 2048)]),
        (321, [(81, 256), (41, 256), (41, 512), (21, 1024), (11, 2048)]),
    ],
)
def test_output_shapes(size: int, shapes: list[tuple[int, int]]) -> None:
    layers = {layer.name.removeprefix("resnet_v2_50/"): layer for layer in summarize("resnet_v2_50", size).layers}
    units = ["block1/unit_1", "block1/unit_3", "block2/unit_1", "block3/unit_1", "block4/unit_3"]
    found = [layers[f"{unit}/bottleneck_v2"].shape for unit in units]
    assert found == [(1, side, side, depth) for side, depth in shapes]
    assert layers["predictions"].shape == (1, 1001)


def test_a_network_without_classes_or_root_block() -> None:
    blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    weights = refnet.random_weights(blocks, num_classes=None, include_root_block=False, channels=7)
    summary = summarize(weights, 8)
    assert summary.layers[0].shape == (1, 8, 8, 7)
    assert summary.layers[-1].operation == "mean"
    assert summary.total == sum(tensor.size for tensor in weights.values())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["summary", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_command_prints_layers_totals_and_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, str(DIGITS), "--size", "32")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].split() == ["layer", "operation", "output", "parameters", "connected", "to"]
    assert lines[2].split() == ["conv1", "conv", "7x7/2", "16x16x64", "9,472", "input"]
    assert "total parameters: 70,058 (0.27 MiB)" in lines
    assert "scope: resnet_v2_digits" in lines
    assert "classes: 10" in lines
    assert "block2: 2 units, depth 64, bottleneck 16, stride 2" in lines


def test_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    summary: dict[str, Any] = json.loads(run(capsys, "resnet_v2_50", "--json"))
    _, total, trainable = TF_SLIM["resnet_v2_50"]
    assert summary["parameters"] == {"total": total, "trainable": trainable, "non_trainable": total - trainable}
    assert summary["scope"] == "resnet_v2_50"
    assert [len(block["units"]) for block in summary["blocks"]] == [3, 4, 6, 3]
    assert summary["layers"][1] == {
        "name": "resnet_v2_50/conv1",
        "operation": "conv 7x7/2",
        "shape": [1, 112, 112, 64],
        "parameters": 7 * 7 * 3 * 64 + 64,
        "connected_to": ["input"],
    }


def test_command_lists_the_notes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = dict(refnet.load_weights(DIGITS))
    name = "resnet_v2_digits/conv1/biases"
    np.savez(tmp_path / "w.npz", **{**weights, name: weights[name].astype(np.float64), "global_step": np.int64(3)})
    out = run(capsys, str(tmp_path / "w.npz"))
    assert f"note: {name} was converted from float64 to float32" in out
    assert "note: global_step was left out: " in out


def test_an_engines_summary_has_its_options() -> None:
    weights = refnet.Weights(lively_weights())
    dense = refnet.Engine(weights, num_classes=None, global_pool=False, output_stride=4).summary(33)
    plain = refnet.Engine(weights).summary(33)
    assert plain.layers == summarize(weights, 33).layers
    assert dense.layers[-1].shape == (1, 9, 9, plain.layers[-4].shape[-1])
    assert dense.total < plain.total


def test_a_summary_is_printed_as_the_command_prints_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = refnet.Weights(lively_weights())
    refnet.save_weights(tmp_path / "w.npz", weights)
    assert main(["summary", str(tmp_path / "w.npz"), "--size", "33"]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    lines = [line.split() for line in str(summarize(weights, 33)).splitlines()]
    assert printed[: len(lines)] == lines
    refnet.KerasModel(weights).summary(33)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == lines
