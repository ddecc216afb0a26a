"""BiT's files of TensorFlow 2: the same weights as in Google's .npz, and the function of the layers that were saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from tests.bit.networks import GOOGLES_EPSILON, by_google
from tests.bit.tensorflow2 import build
from tests.support.arrays import digest, random_images
from tests.support.tensorflow import quiet, tensorflow
from tests.timm.networks import Description, draw_state

BIT = Description(((32, 2), (32, 1), (64, 3)), 7, grouped=True, epsilon=GOOGLES_EPSILON)
STATE = draw_state(BIT, 3)
IMAGES = random_images(2, 65, 48, 3, seed=6)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def save_h5(net: Any, path: Path) -> Path:
    net.save_weights(str(path / "BiT-M-R50x1.h5"))
    return path / "BiT-M-R50x1.h5"


def save_checkpoint(net: Any, path: Path) -> Path:
    net.save_weights(str(path / "ckpt"))
    return path / "ckpt"


def save_inside(net: Any, path: Path) -> Path:
    """A training checkpoint of a model that has the network inside, with the slots of an optimizer."""
    with quiet():
        import tf_keras as keras

        outer = keras.Model()
        outer.net, outer.optimizer = net, keras.optimizers.SGD(0.0, momentum=0.9)
        outer.optimizer.build(net.trainable_variables)
    tensorflow().train.Checkpoint(model=outer, optimizer=outer.optimizer).save(str(path / "train"))
    return path


def save_module(net: Any, path: Path) -> Path:
    """As a module of TensorFlow Hub."""
    module = tensorflow().Module()
    module.variables_of_the_net = net.variables
    tensorflow().saved_model.save(module, str(path / "saved"))
    return path / "saved"


@pytest.mark.parametrize(
    ("save", "scoped"),
    [
        (save_h5, True), (save_module, True), (save_checkpoint, True),
        # These names repeat, and an .h5 file or a module cannot hold them.
        (save_checkpoint, False), (save_inside, False),
    ],
)  # fmt: skip
def test_the_same_weights_as_by_googles_names(save: Any, scoped: bool, tmp_path: Path) -> None:
    path = save(build(BIT, STATE, scoped), tmp_path)
    found, expected = refnet.load_weights(path, strict=True), refnet.Weights(by_google(STATE))
    assert found.keys() == expected.keys()
    assert digest(*(found[name] for name in expected)) == digest(*expected.values())
    assert (found.options, found.recipe) == (expected.options, expected.recipe)
    assert any("kernels are standardised" in note and "1e-10" in note for note in found.notes)


@pytest.mark.parametrize("scoped", [False, True])
def test_the_function_that_was_saved(scoped: bool, tmp_path: Path) -> None:
    """To within a rounding of each kernel to binary32; and in float32 no further off than twice TensorFlow's own."""
    truth = build(BIT, STATE, scoped, "float64")(IMAGES.astype(np.float64)).numpy()
    theirs = build(BIT, STATE, scoped)(IMAGES).numpy()
    path = save_checkpoint(build(BIT, STATE, scoped), tmp_path)
    scale = np.abs(truth).max()
    rounding = len(STATE) * 2.0**-24 * scale
    assert truth.dtype == np.float64
    assert np.abs(refnet.forward(path, IMAGES, dtype="float64") - truth).max() <= rounding
    assert np.abs(refnet.forward(path, IMAGES) - truth).max() <= max(2 * np.abs(theirs - truth).max(), rounding)


def test_a_head_of_ones_own(tmp_path: Path) -> None:
    """Fine-tuning on a module of the Hub: another dense layer behind it, by another name, which starts at zero."""
    tf, net = tensorflow(), build(BIT, STATE, scoped=True)
    module = tf.Module()
    module.body = [variable for variable in net.variables if "head" not in variable.name]
    module.head = [tf.Variable(np.zeros((256, 3), np.float32), name="my_bi_t_model/dense/kernel")]
    module.head.append(tf.Variable(np.float32([1, 2, 3]), name="my_bi_t_model/dense/bias"))
    tf.saved_model.save(module, str(tmp_path / "saved"))
    logits = refnet.forward(refnet.load_weights(tmp_path / "saved", strict=True), IMAGES)
    assert logits.tolist() == [[1, 2, 3]] * 2


def test_an_h5_file_of_a_model_around_it(tmp_path: Path) -> None:
    """Names begin with the scopes of the models around it, as in an .npz."""
    with quiet():
        import tf_keras as keras

        net = build(BIT, STATE, scoped=True)
        layer = keras.layers.Layer(name="keras_layer")
        layer.inner = net
        outer = keras.Sequential([layer, keras.layers.Dense(2)])
        outer.build((None, 256))
        outer.layers[-1].build((None, 256))
        outer.save_weights(str(tmp_path / "a.h5"))
    with pytest.warns(refnet.RefnetWarning, match="other heads are not run: dense "):
        found = refnet.load_weights(tmp_path / "a.h5")
    expected = refnet.Weights(by_google(STATE))
    assert digest(*(found[name] for name in expected)) == digest(*expected.values())
    kernel = refnet.load_weights(tmp_path / "a.h5", head="dense")["resnet_v2/logits/weights"]
    assert kernel.tobytes() == outer.layers[-1].kernel.numpy().tobytes()
