"""TensorFlow's official ResNets, by the order of their variables: every layer against the same function in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet.images.preprocess import VGG
from tests.slim.networks import assert_is_the_truth
from tests.support.arrays import random_images
from tests.support.tensorflow import tensorflow
from tests.tf_official.networks import Description, Model

DESCRIPTIONS = {
    f"{'bottleneck' if bottleneck else 'basic'} v{version}": Description(version, ((64, 2), (5, 1), (6, 2)), bottleneck)
    for version in (1, 2)
    for bottleneck in (True, False)
}
KINDS = pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
IMAGES = random_images(2, 33, 40, 3, seed=4)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The images are .* recipe", "ignore:Float images are"
)


def model_of(description: Description) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A state, and the float64 truth for it."""
    state: dict[str, np.ndarray] = {}
    return state, Model(description, state, "float64", f"resnet_v{description.version}").run(IMAGES)


def save(path: Path, state: dict[str, np.ndarray]) -> Path:
    """A checkpoint that TensorFlow writes, with the counter of steps."""
    tensors = state | {"global_step": np.array(7, np.int64)}
    tensorflow().raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return path


@KINDS
def test_float64_is_the_truth(description: Description, tmp_path: Path) -> None:
    state, truth = model_of(description)
    weights = refnet.load_weights(save(tmp_path / "model.ckpt-1", state), strict=True)
    assert (weights.options, weights.recipe) == ({"stride_place": "first_unit"}, VGG)
    assert set(weights.conversion.renamed.values()) == state.keys()
    assert all(not weights[name].any() for name in weights.conversion.added)
    assert_is_the_truth(description.net(f"resnet_v{description.version}"), weights, IMAGES, truth)


def test_models_for_tpus_have_no_scope(tmp_path: Path) -> None:
    description = DESCRIPTIONS["bottleneck v1"]
    state, truth = model_of(description)
    state = {name.removeprefix("resnet_model/"): value for name, value in state.items()}
    slots = {f"{name}/Momentum": value for name, value in state.items()}
    weights = refnet.load_weights(save(tmp_path / "model.ckpt-1", state | slots))
    assert set(weights.conversion.renamed.values()) == state.keys()
    assert any("for TPUs" in note and "recipe=refnet.Recipe(224, 224" in note for note in weights.notes)
    assert_is_the_truth(description.net("resnet_v1"), weights, IMAGES, truth)


@KINDS
def test_the_order_is_that_of_the_numbers(description: Description, tmp_path: Path) -> None:
    """Not that of the file, nor that of the alphabet."""
    state, _ = model_of(description)
    shuffled = dict(sorted(state.items(), key=lambda item: hash(item[1].tobytes())))
    np.savez(tmp_path / "a.npz", **shuffled)
    found, expected = refnet.load_weights(tmp_path / "a.npz"), refnet.load_weights(save(tmp_path / "b.ckpt", state))
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.parametrize(
    ("version", "units", "bottleneck", "name"),
    [
        (1, (3, 4, 6, 3), True, "resnet_v1_50"),
        (2, (3, 4, 6, 3), True, "resnet_v2_50"),
        (2, (2, 2, 2, 2), False, "resnet_v2_18"),
        (1, (3, 4, 6, 3), False, "resnet_v1_34"),
    ],
)
def test_published_networks(version: int, units: tuple[int, ...], bottleneck: bool, name: str, tmp_path: Path) -> None:
    description = Description(version, tuple(zip((4, 5, 6, 7), units, strict=True)), bottleneck)
    state, _ = model_of(description)
    np.savez(tmp_path / "a.npz", **state)
    weights = refnet.load_weights(tmp_path / "a.npz", strict=True)
    assert weights.architecture.scope == name
    # Of resnet_v2_50 53 convolutions and 49 batch norms, of v1 53 and 53.
    counts = {
        kind: len({n.rsplit("/", 1)[0] for n in state if kind in n}) for kind in ("conv2d", "batch_normalization")
    }
    if bottleneck:
        assert counts == {"conv2d": 53, "batch_normalization": 49 if version == 2 else 53}


BAD = {
    "a gap": (lambda state: state.pop("resnet_model/conv2d_3/kernel"), "a conv2d is missing between 0 and"),
    "a batch norm too few": (
        lambda state: [state.pop(name) for name in list(state) if "batch_normalization_15/" in name],
        "there are 15 batch norms and kernels of the sizes 7, 1, 1, 3, 1, ",
    ),
    "other kernels": (
        lambda state: state.update({"resnet_model/conv2d_2/kernel": np.ones((5, 5, 1, 1), np.float32)}),
        "the kernels' sizes are 1, 5, ",
    ),
    "two layers of one number": (
        lambda state: state.update({"resnet_model/conv2d_0/kernel": state["resnet_model/conv2d/kernel"]}),
        "conv2d and conv2d_0 have one number",
    ),
    "the root of CIFAR": (
        lambda state: state.update({"resnet_model/conv2d/kernel": np.ones((3, 3, 3, 16), np.float32)}),
        "kernels of the sizes 3, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_others_are_refused(what: str, tmp_path: Path) -> None:
    state, _ = model_of(DESCRIPTIONS["bottleneck v2"])
    change, words = BAD[what]
    change(state)
    np.savez(tmp_path / "a.npz", **state)
    with pytest.raises(errors.MissingTensorError, match=f"numbered as in the official ResNets.*{words}"):
        refnet.load_weights(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet_model/conv2d/weights", "'conv2d/kernel' and 'conv2d/weights' are both"),
        ("resnet_v2/conv1/biases", "'resnet_v2/conv1/biases' is a name of TF-Slim's"),
    ],
)
def test_no_tensor_takes_another_ones_place(name: str, words: str, tmp_path: Path) -> None:
    state, _ = model_of(DESCRIPTIONS["bottleneck v2"])
    np.savez(tmp_path / "a.npz", **state, **{name: np.ones(64, np.float32)})
    with pytest.raises(errors.FormatError, match=words):
        refnet.load_weights(tmp_path / "a.npz")


def test_one_of_two_networks(tmp_path: Path) -> None:
    state, truth = model_of(DESCRIPTIONS["basic v2"])
    np.savez(tmp_path / "a.npz", **state, **{f"other/{name}": value for name, value in state.items()})
    with pytest.raises(
        errors.ConfigError, match="several networks; scope= can be 'other/resnet_model', 'resnet_model'"
    ):
        refnet.load_weights(tmp_path / "a.npz")
    weights = refnet.load_weights(tmp_path / "a.npz", scope="resnet_model")
    found = refnet.forward(weights, IMAGES, dtype="float64")
    logits = truth["resnet_v2/logits"][:, 0, 0]
    assert np.abs(found - logits).max() < 1e-12 * np.abs(logits).max()
