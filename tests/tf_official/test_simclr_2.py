"""SimCLR's ResNets of TensorFlow 2, as Keras 2 saves them: every layer against the same function in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import errors
from tests.slim.networks import assert_is_the_truth
from tests.support.arrays import random_images
from tests.support.tensorflow import quiet, tensorflow
from tests.tf_official.networks import Description, Model
from tests.tf_official.tensorflow2 import build

#: Widths 1, 2 and 4, and either kind of unit.
DESCRIPTIONS = {
    "bottleneck x1": Description(1, ((5, 2), (6, 1), (4, 2))),
    "basic x2": Description(1, ((5, 2), (6, 1), (4, 2)), bottleneck=False, root=128),
    "bottleneck x4": Description(1, ((5, 1), (4, 2)), root=256),
}
SMALL = DESCRIPTIONS["bottleneck x1"]
IMAGES = random_images(2, 33, 40, 3, seed=4)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The images are .* recipe", "ignore:Float images are"
)


def state_of(description: Description) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A state, and the float64 truth for it."""
    state: dict[str, np.ndarray] = {}
    return state, Model(description, state, "float64", "resnet_v1").run(IMAGES)


def save_checkpoint(net: Any, path: Path) -> Path:
    """As SimCLR's ``run.py`` does."""
    tf = tensorflow()
    with quiet():
        import tf_keras as keras

        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
        optimizer.build(net.trainable_variables)
    step = tf.Variable(7, dtype=tf.int64)
    tf.train.Checkpoint(model=net, global_step=step, optimizer=optimizer).save(str(path / "ckpt"))
    return path


def save_module(net: Any, path: Path) -> Path:
    """A SavedModel, as the published ones."""
    module = tensorflow().Module()
    module.model = net
    tensorflow().saved_model.save(module, str(path / "saved"))
    return path / "saved"


@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
@pytest.mark.parametrize("save", [save_checkpoint, save_module])
def test_float64_is_the_truth(description: Description, save: Any, tmp_path: Path) -> None:
    state, truth = state_of(description)
    synchronized = save is save_checkpoint
    path = save(build(description, state, synchronized=synchronized), tmp_path)
    weights = refnet.load_weights(path, strict=True)
    assert weights.options == {"stride_place": "first_unit"}
    assert len(weights) == len(state)
    assert_is_the_truth(description.net("resnet_v1"), weights, IMAGES, truth)


@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_the_function_that_was_saved(description: Description) -> None:
    """Keras' own layers compute the truth of the test above."""
    state, truth = state_of(description)
    logits = truth["resnet_v1/logits"][:, 0, 0]
    found = build(description, state, dtype="float64")(IMAGES.astype(np.float64)).numpy()
    # Keras keeps its epsilon of 1e-5 as a float32.
    assert np.abs(found - logits).max() < 1e-12 * np.abs(logits).max()


def test_numbers_start_anywhere(tmp_path: Path) -> None:
    state, truth = state_of(SMALL)
    build(SMALL, state)
    net = build(SMALL, state, anew=False)
    assert "resnet_1/conv2d_fixed_padding_" in net.resnet_model.variables[0].name
    weights = refnet.load_weights(save_module(net, tmp_path), strict=True)
    logits = truth["resnet_v1/logits"][:, 0, 0]
    assert np.abs(refnet.forward(weights, IMAGES, dtype="float64") - logits).max() < 1e-12 * np.abs(logits).max()


def test_the_projection_head_is_not_run(tmp_path: Path) -> None:
    state, truth = state_of(SMALL)
    path = save_module(build(SMALL, state, projection=True), tmp_path)
    with pytest.warns(refnet.RefnetWarning, match=r"projection head \(projection_head\) is not run.*ft_proj_selector"):
        weights = refnet.load_weights(path)
    left_out = [name for name, why in weights.conversion.left_out.items() if "not run" in why]
    assert len(left_out) == 2 + 4 + 3
    assert all(name.startswith("projection_head/nl_") for name in left_out)
    logits = truth["resnet_v1/logits"][:, 0, 0]
    assert np.abs(refnet.forward(weights, IMAGES, dtype="float64") - logits).max() < 1e-12 * np.abs(logits).max()
    assert refnet.load_weights(path, head=None, strict=True).architecture.num_classes is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sk__conv2d/conv2d_99/kernel", r"selective kernels \(sk_ratio\)"),
        ("se__layer_2/conv2d_99/kernel", r"squeeze and excitation \(se_ratio\)"),
    ],
)
def test_variants_are_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    net = build(SMALL, state_of(SMALL)[0])
    state = {re.sub(":0$", "", variable.name): variable.numpy() for variable in net.variables}
    state[f"resnet/block_group1/bottleneck_block/{name}"] = np.ones((1, 1, 5, 5), np.float32)
    np.savez(tmp_path / "a.npz", **state)
    with pytest.raises(errors.MissingTensorError, match=f"SimCLR's ResNets of TensorFlow 2.*{words}"):
        refnet.load_weights(tmp_path / "a.npz")
