"""The first version through all that is said of networks: bits, fusion, summary, goldens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import golden
from refnet.cli import main
from refnet.errors import ConfigError, GoldenError
from refnet.evidence.golden import decode_options, encode_options
from refnet.graph.fuse import make_plan
from refnet.images.preprocess import VGG
from refnet.network import resnet_v1
from refnet.network.networks import NETWORKS, network_blocks
from refnet.summary import summarize
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

BLOCKS = [refnet.resnet_v1_block("block1", 4, 2, 2), refnet.resnet_v1_block("block2", 7, 2, 1)]
IMAGES = random_images(2, 37, 50, 3)


def weights(**options: Any) -> dict[str, np.ndarray]:
    """With biases for all convolutions, as Keras has them."""
    found = lively_weights(blocks=BLOCKS, **options)
    biases = {
        name.replace("weights", "biases"): random_images(value.shape[-1], seed=len(name))
        for name, value in found.items()
        if name.endswith("/weights")
    }
    return biases | found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias_before_batch_norm": True, "pool_mode": "keras"},
        {"bias_before_batch_norm": True, "is_training": True},
        {"output_stride": 4, "global_pool": False},
        {"store_non_strided_activations": True, "num_classes": None},
        {"use_batch_norm": False, "activation_fn": None},
        {"bias_before_batch_norm": True, "dtype": "float64"},
    ],
    ids=str,
)
def test_fused_kernels_have_the_definitions_bits(options: dict[str, Any]) -> None:
    variables = weights()
    expected, ends = refnet.forward(variables, IMAGES, device="reference", end_points=True, **options)
    assert refnet.forward(variables, IMAGES, **options).tobytes() == expected.tobytes()
    _, found = refnet.forward(variables, IMAGES, end_points=True, **options)
    assert list(found) == list(ends)
    for name, value in ends.items():
        assert found[name].tobytes() == value.tobytes(), name


def test_all_but_the_pools_is_fused_into_convolutions() -> None:
    engine = refnet.Engine(refnet.random_weights("resnet_v1_50"))
    net, _ = engine.trace((1, 64, 64, 3))
    steps = make_plan(net.graph, [net]).steps
    assert Counter(step.op for step in steps) == {"conv": 54, "max_pool": 1, "subsample": 3, "mean": 1}
    units = [step for step in steps if step.shortcut is not None]
    assert len(units) == 16
    assert all(step.norm and step.sum_relu and not step.relu for step in units)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "v1" in name])
def test_published_networks_are_read_off_their_names(name: str) -> None:
    found = refnet.network.architecture.infer_architecture(refnet.random_weights(name, num_classes=None))
    assert (found.scope, found.num_classes) == (name, None)
    assert [block.args for block in found.blocks] == [block.args for block in network_blocks(name)]
    unit = resnet_v1.basic if name.endswith(("18", "34")) else resnet_v1.bottleneck
    assert {block.unit_fn for block in found.blocks} == {unit}


def test_the_summary_names_the_sum_and_its_relu() -> None:
    layers = {layer.name: layer for layer in summarize("resnet_v1_50").layers}
    unit = "resnet_v1_50/block1/unit_3/bottleneck_v1"
    assert layers[unit].operation == "residual"
    assert layers[unit].connected_to == [f"{unit}/shortcut", f"{unit}/conv3/BatchNorm"]
    assert layers[f"{unit}/Relu"].connected_to == [unit]
    assert layers["resnet_v1_50/pool1"].connected_to == ["resnet_v1_50/conv1/Relu"]


def test_a_golden_keeps_the_version(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    variables = weights()
    golden.record(path, variables, IMAGES, blocks=BLOCKS, bias_before_batch_norm=True)
    assert not golden.check(path, variables, IMAGES).differing
    options = encode_options({"blocks": BLOCKS})
    assert decode_options(options)["blocks"] == BLOCKS
    for wrong in ("bottleneck_v3", ["bottleneck_v1"], None):
        options["blocks"][0]["unit_fn"] = wrong
        with pytest.raises(GoldenError, match="blocks are damaged"):
            decode_options(options)
    with pytest.raises(ConfigError, match="only hold blocks of bottleneck units"):
        encode_options({"blocks": [BLOCKS[0]._replace(unit_fn=print)]})


def test_blocks_of_the_other_version_are_missing_from_the_weights() -> None:
    other = [refnet.resnet_v2_block("block1", 4, 2, 2), refnet.resnet_v2_block("block2", 7, 2, 1)]
    with pytest.raises(refnet.RefnetError, match=r"lack .* tensors: resnet_v1/block1/unit_1/bottleneck_v2/preact"):
        refnet.forward(weights(), IMAGES, blocks=other)


def test_weights_without_a_recipe_say_that_theirs_is_missing(tmp_path: Path) -> None:
    ignored = refnet.Weights(weights(), options={"bias_before_batch_norm": False})
    refnet.save_weights(tmp_path / "a.ckpt", ignored)
    with pytest.warns(UserWarning, match="tensors are not part of the network"):
        loaded = refnet.load_weights(tmp_path / "a.ckpt")
    assert any("VGG's for its ResNet v1" in note for note in loaded.notes)
    assert not any("VGG" in note for note in refnet.load_weights(_saved(tmp_path), recipe=refnet.Recipe()).notes)


@pytest.mark.parametrize("name", ["w.ckpt", "w.npz", "w.safetensors"])
def test_released_weights_have_vggs_recipe_though_the_file_says_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = lively_weights(blocks=BLOCKS, num_classes=1000, scope="resnet_v1_50")
    assert refnet.Weights(released).recipe == VGG
    refnet.save_weights(tmp_path / name, released)
    loaded = refnet.load_weights(tmp_path / name)
    assert (loaded.recipe, loaded.notes) == (VGG, [])
    assert loaded.image_size == ((224, 224) if name == "w.ckpt" else None)
    image = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    expected = refnet.forward(released, refnet.preprocess(image, VGG))
    assert refnet.forward(loaded, image).tobytes() == expected.tobytes()
    assert main(["summary", str(tmp_path / name)]) == 0
    assert "recipe: shorter side resized to 256, the central 224 x 224, RGB, less VGG's mean" in capsys.readouterr().out
    # What somebody says counts, and travels.
    assert refnet.load_weights(tmp_path / name, recipe=refnet.Recipe()).recipe == refnet.Recipe()
    refnet.save_weights(tmp_path / name, refnet.Weights(released, recipe=refnet.Recipe()))
    assert refnet.load_weights(tmp_path / name).recipe == refnet.Recipe()


@pytest.mark.parametrize(("scope", "classes"), [("resnet_v1_50", 1001), ("resnet_v1_50", 7), ("mine", 1000)])
def test_other_weights_are_not_taken_for_released_ones(scope: str, classes: int, tmp_path: Path) -> None:
    refnet.save_weights(tmp_path / "w.ckpt", lively_weights(blocks=BLOCKS, num_classes=classes, scope=scope))
    loaded = refnet.load_weights(tmp_path / "w.ckpt")
    assert (loaded.recipe, loaded.image_size) == (refnet.Recipe(), None)
    assert any("VGG" in note for note in loaded.notes)


def _saved(folder: Path) -> Path:
    path = folder / "b.npz"
    refnet.save_weights(path, lively_weights(blocks=BLOCKS))
    return path


def test_a_deep_root_and_pooled_shortcuts() -> None:
    """ResNet-D of the first version: batch norm and ReLU follow every convolution of the root."""
    blocks = [BLOCKS[0], BLOCKS[1]._replace(args=[{**BLOCKS[1].args[0], "stride": 2}, BLOCKS[1].args[1]])]
    variables = lively_weights(blocks=blocks, root_depths=(8, 8, 16))
    options = {"avg_down": True, "stride_place": "first_unit", "pool_mode": "torch", "end_points": True}
    expected, ends = refnet.forward(variables, IMAGES, device="reference", **options)
    found, found_ends = refnet.forward(variables, IMAGES, **options)
    assert found.tobytes() == expected.tobytes()
    assert list(ends)[:4] == [f"resnet_v1/{name}" for name in ("conv1_1", "conv1_2", "conv1_3", "pool1")]
    assert all(found_ends[name].tobytes() == value.tobytes() for name, value in ends.items())
    assert all((ends[f"resnet_v1/conv1_{i}"] >= 0).all() for i in (1, 2, 3))
    assert "resnet_v1/block2/unit_1/bottleneck_v1/avg_pool" in ends
