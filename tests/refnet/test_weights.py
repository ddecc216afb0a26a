"""Weights: random, saved, loaded, read for their architecture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet.network.architecture import infer_architecture
from refnet.network.resnet_v2 import network_blocks
from refnet.weights.formats.npz import write_npz
from refnet.weights.initial import _quantiles
from tests.support.arrays import random_images
from tests.support.nets import lively_weights, small_blocks

# Variables, parameters and depth of the published networks, from TF-Slim itself (1001 classes).
PUBLISHED = {
    "resnet_v2_50": (272, 25_615_849),
    "resnet_v2_101": (544, 44_677_609),
    "resnet_v2_152": (816, 60_382_697),
    "resnet_v2_200": (1072, 64_896_489),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_variables(name: str) -> None:
    weights = refnet.random_weights(name)
    assert (len(weights), sum(value.size for value in weights.values())) == PUBLISHED[name]
    architecture = weights.architecture
    assert architecture.scope == name
    assert architecture.num_classes == 1001
    assert architecture.blocks == network_blocks(name)


def test_a_root_of_several_convolutions() -> None:
    """ResNet-D's, by DeepLab's names: batch norms between them, and biases after the last one."""
    weights = refnet.random_weights(small_blocks(), num_classes=5, channels=4, root_depths=(3, 5, 8))
    root = {name: value.shape for name, value in weights.items() if name.startswith("resnet_v2/conv1")}
    assert {name: shape for name, shape in root.items() if "BatchNorm" not in name} == {
        "resnet_v2/conv1_1/weights": (3, 3, 4, 3),
        "resnet_v2/conv1_2/weights": (3, 3, 3, 5),
        "resnet_v2/conv1_3/weights": (3, 3, 5, 8),
        "resnet_v2/conv1_3/biases": (8,),
    }
    assert {name.split("/")[1] for name in root if "BatchNorm" in name} == {"conv1_1", "conv1_2"}
    architecture = weights.architecture
    assert (architecture.include_root_block, architecture.channels) == (True, 4)
    assert architecture.root_depths == (3, 5, 8)
    assert infer_architecture(refnet.random_weights(small_blocks())).root_depths is None
    net, end_points = refnet.forward(weights, random_images(33, 40, 4), end_points=True)
    assert net.shape == (5,)
    assert [end_points[f"resnet_v2/conv1_{i}"].shape for i in (1, 2, 3)] == [(17, 20, depth) for depth in (3, 5, 8)]
    assert (end_points["resnet_v2/conv1_2"] >= 0).all()
    assert (end_points["resnet_v2/conv1_3"] < 0).any()


def test_random_weights_depend_on_seed_and_name_alone() -> None:
    one = refnet.random_weights(small_blocks(units=1), num_classes=5, seed=3)
    two = refnet.random_weights(small_blocks(units=2), num_classes=5, seed=3)
    other = refnet.random_weights(small_blocks(units=1), num_classes=5, seed=4)
    name = "resnet_v2/block1/unit_1/bottleneck_v2/conv1/weights"
    assert np.array_equal(one[name], two[name])
    assert not np.array_equal(one[name], other[name])
    assert not one[name].flags.writeable


def test_random_kernels_follow_the_truncated_normal_distribution() -> None:
    """TF-Slim's variance_scaling_initializer: standard deviation sqrt(1.3 * 2 / fan_in) before the cut at two."""
    kernel = refnet.random_weights("resnet_v2_50")["resnet_v2_50/block4/unit_1/bottleneck_v2/conv2/weights"]
    numbers = np.sort(kernel.ravel().astype(np.float64)) / math.sqrt(1.3 * 2 / (9 * 512))
    assert abs(numbers).max() <= 2.0000001
    phi = [0.5 + 0.5 * math.erf(x / math.sqrt(2)) for x in numbers[::1000]]
    low, high = (0.5 + 0.5 * math.erf(x / math.sqrt(2)) for x in (-2, 2))
    distribution = (np.array(phi) - low) / (high - low)
    empirical = np.arange(0, numbers.size, 1000) / numbers.size
    # Kolmogorov and Smirnov's statistic: a right sampler passes 1.95 / sqrt(n) with probability 0.999.
    assert abs(distribution - empirical).max() < 1.95 / math.sqrt(numbers.size)


def test_quantiles_against_the_error_function() -> None:
    quantiles = _quantiles()
    total = math.erf(math.sqrt(2))
    found = np.array([math.erf(x / math.sqrt(2)) / total for x in quantiles])
    assert np.abs(found - np.linspace(-1, 1, quantiles.size)).max() < 1e-14


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.ckpt", "w.ckpt-17"])
def test_save_and_load_keep_every_bit_and_the_recipe(name: str, tmp_path: Path) -> None:
    weights = refnet.Weights(lively_weights(), recipe=refnet.Recipe(20, 30, 1.0), labels=list("abcdefg"))
    refnet.save_weights(tmp_path / name, weights)
    loaded = refnet.load_weights(tmp_path / name)
    assert dict(loaded).keys() == dict(weights).keys()
    assert all(loaded[name].tobytes() == weights[name].tobytes() for name in weights)
    assert (loaded.recipe, loaded.labels) == (weights.recipe, weights.labels)


def test_a_recipe_from_before_it_had_a_resize_side() -> None:
    stored = {"height": 20, "width": 30, "central_fraction": 0.9, "mode": "tf"}
    assert refnet.weights.files.recipe_from(stored) == refnet.Recipe(20, 30, 0.9, "tf", None)
    stored["central_fraction"] = 1.0
    assert refnet.weights.files.recipe_from({**stored, "resize_side": 32}) == refnet.Recipe(20, 30, 1.0, "tf", 32)
    with pytest.raises(refnet.RefnetError, match="not understood"):
        refnet.weights.files.recipe_from({**stored, "filter": "bicubic"})


def test_load_weights_notes_what_is_no_part_of_the_network(tmp_path: Path) -> None:
    tensors = {**lively_weights(), "global_step": np.int64(7), "beta1_power": np.float32(0.9), "lost": np.float32(1)}
    tensors["resnet_v2/conv1/biases"] = tensors["resnet_v2/conv1/biases"].astype(np.float64)
    np.savez(tmp_path / "w.npz", **tensors)
    with pytest.warns(UserWarning, match="1 tensors are not part of the network: lost"):
        weights = refnet.load_weights(tmp_path / "w.npz")
    notes = "\n".join(weights.notes)
    for part in ("global_step", "beta1_power", "conv1/biases was converted from float64"):
        assert part in notes
    with pytest.raises(errors.WeightsError, match="beta1_power"):
        refnet.load_weights(tmp_path / "w.npz", strict=True)


def test_nan_and_infinity_in_a_file_are_named_and_counted(tmp_path: Path) -> None:
    tensors = lively_weights()
    tensors["resnet_v2/conv1/biases"][:3] = np.nan
    tensors["resnet_v2/postnorm/beta"][1] = np.inf
    np.savez(tmp_path / "w.npz", **tensors)
    with pytest.raises(errors.CorruptError, match=r"conv1/biases \(3\).*postnorm/beta \(1\)"):
        refnet.load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "options", [[], {"pool_mode": 1}, {"stride_place": 2}, {"batch_norm_epsilon": "x"}, {"is_training": True}]
)
def test_options_that_no_weights_have(tmp_path: Path, options: object) -> None:
    write_npz(tmp_path / "w.npz", lively_weights(), {"options": options})
    with pytest.raises(errors.WeightsError, match="options of the network are not understood"):
        refnet.load_weights(tmp_path / "w.npz")


def test_the_caller_overrules_the_options_of_the_weights() -> None:
    options = {"batch_norm_epsilon": 0.5, "pool_mode": "keras"}
    weights, image = refnet.Weights(lively_weights(), options=options), random_images(19, 24, 3)
    travelled = refnet.forward(weights, image)
    assert np.array_equal(travelled, refnet.forward(weights, image, device="reference"))
    assert np.array_equal(travelled, refnet.forward(lively_weights(), image, **options))
    for name, value in {"batch_norm_epsilon": 1e-5, "pool_mode": "slim"}.items():
        overruled = refnet.forward(weights, image, **{name: value})
        assert np.array_equal(overruled, refnet.forward(lively_weights(), image, **{**options, name: value}))
        assert not np.array_equal(overruled, travelled)


def test_an_unknown_pool_mode() -> None:
    with pytest.raises(errors.ConfigError, match="pool_mode"):
        refnet.forward(lively_weights(), random_images(19, 24, 3), pool_mode="caffe")


@pytest.mark.parametrize("labels", [["a"], list("abcdefgh")])
def test_labels_of_the_wrong_length(tmp_path: Path, labels: list[str]) -> None:
    refnet.save_weights(tmp_path / "w.npz", lively_weights())
    with pytest.raises(errors.ConfigError, match=f"{len(labels)} labels, but the weights have 7 classes"):
        refnet.load_weights(tmp_path / "w.npz", labels=labels)


def test_another_architecture_lists_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"dense/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(errors.MissingTensorError, match="dense/kernel"):
        refnet.load_weights(tmp_path / "w.npz")


def test_two_networks_in_one_file_ask_which() -> None:
    both = {**lively_weights(scope="a"), **lively_weights(seed=1, scope="b/c")}
    image = random_images(32, 32, 3)
    with pytest.raises(errors.ConfigError, match="'a', 'b/c'"):
        refnet.forward(both, image)
    assert refnet.forward(both, image, scope="b/c").shape == (7,)


def test_any_scope_and_ten_blocks_in_their_natural_order() -> None:
    blocks = [refnet.resnet_v2_block(f"block{i}", base_depth=i, num_units=1, stride=1) for i in range(1, 12)]
    weights = refnet.random_weights(blocks, num_classes=None, scope="deep/er")
    architecture = weights.architecture
    assert architecture.scope == "deep/er"
    assert [block.scope for block in architecture.blocks] == [block.scope for block in blocks]
    assert [block.args[0]["stride"] for block in architecture.blocks] == [2] * 10 + [1]
    assert architecture.num_classes is None


def test_a_gap_in_the_units_is_a_missing_tensor() -> None:
    weights = {n: v for n, v in lively_weights().items() if "block1/unit_1/" not in n}
    with pytest.raises(errors.MissingTensorError, match=r"block1/unit_1/bottleneck_v2/conv1/weights is missing"):
        infer_architecture(weights)


def test_unknown_networks_are_named_with_those_that_exist() -> None:
    with pytest.raises(errors.ConfigError, match="resnet_v2_152"):
        refnet.random_weights("resnet_v2_5")


def test_replaced_weights_keep_their_architecture() -> None:
    weights = refnet.random_weights(small_blocks(), 7)
    found = weights.architecture
    for same in (weights.replace(labels=list("abcdefg")), weights.replace(options={"pool_mode": "keras"})):
        assert same.architecture is found
    other = weights.replace(options={"stride_place": "first_unit"}).architecture
    assert other == infer_architecture(weights, stride_place="first_unit") != found


def test_loaded_weights_have_the_architecture_of_their_tensors(tmp_path: Path) -> None:
    for place in ("last_unit", "first_unit"):
        weights = refnet.Weights(lively_weights(), options={"stride_place": place})
        refnet.save_weights(tmp_path / "w.npz", weights)
        loaded = refnet.load_weights(tmp_path / "w.npz")
        assert loaded.architecture == infer_architecture(loaded, stride_place=place)
