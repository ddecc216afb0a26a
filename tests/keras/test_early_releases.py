"""The ResNet50 of Keras 2's first releases: built in Keras, saved, and compared layer by layer in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from tests.slim.networks import assert_is_the_truth
from tests.slim.oracle import Net
from tests.support.arrays import random_images

# Keras' own: it converts its arrays in a way that NumPy deprecates, and does not like the format .h5.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:You are saving your model as an HDF5",
    "ignore:The images are .* recipe",
    "ignore:Float images are",
)

#: Width and units of each stage; the first unit of each but the first one strides.
STAGES = ((4, 2), (5, 3))
SHAPE = (2, 33, 40, 3)


def build(keras: Any, padded: bool) -> Any:
    """The network, by the names that its layers had."""
    layers = keras.layers

    def conv_norm(
        x: Any, conv: str, norm: str, filters: int, size: int, strides: int = 1, padding: str = "valid"
    ) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding=padding, name=conv)(x)
        return layers.BatchNormalization(name=norm)(x)

    images = layers.Input(SHAPE[1:])
    x = conv_norm(layers.ZeroPadding2D(3)(images), "conv1", "bn_conv1", 64, 7, 2)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1)(x) if padded else x
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, (width, units) in enumerate(STAGES, 2):
        for unit in range(units):
            place, strides = f"{stage}{'abc'[unit]}_branch", 2 if stage > 2 and unit == 0 else 1
            shortcut = x
            if unit == 0:
                shortcut = conv_norm(x, f"res{place}1", f"bn{place}1", 4 * width, 1, strides)
            x = conv_norm(x, f"res{place}2a", f"bn{place}2a", width, 1, strides)
            x = layers.Activation("relu", name=f"{place}_relu1")(x)
            x = conv_norm(x, f"res{place}2b", f"bn{place}2b", width, 3, padding="same")
            x = layers.Activation("relu", name=f"{place}_relu2")(x)
            x = conv_norm(x, f"res{place}2c", f"bn{place}2c", 4 * width, 1)
            x = layers.Activation("relu", name=f"{place}_out")(layers.add([x, shortcut]))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(images, layers.Dense(7, name="fc1000")(x))


def end_points() -> dict[str, str]:
    """TF-Slim's names of the layers' outputs, with the stride in the first convolutions as here."""
    names = {"conv1_relu": "conv1", "pool1": "pool1"}
    for stage, (_, units) in enumerate(STAGES, 2):
        for unit in range(units):
            keras, slim = f"{stage}{'abc'[unit]}_branch", f"block{stage - 1}/unit_{unit + 1}/bottleneck_v1"
            names |= {f"bn{keras}1": f"{slim}/shortcut"} if unit == 0 else {}
            names |= {f"{keras}_relu1": f"{slim}/conv1", f"{keras}_relu2": f"{slim}/conv2"}
            names |= {f"bn{keras}2c": f"{slim}/conv3", f"{keras}_out": slim}
    return {layer: f"resnet_v1/{name}" for layer, name in {**names, "avg_pool": "pool5", "fc1000": "logits"}.items()}


def draw(model: Any) -> dict[str, list[np.ndarray]]:
    """Values for the variables of each layer that has some."""
    random = np.random.default_rng(1)

    def one(variable: Any) -> np.ndarray:
        noise = random.standard_normal(variable.shape)
        leaf = variable.name.split("/")[-1].removesuffix(":0")
        if leaf == "kernel":
            noise *= np.sqrt(2 / np.prod(variable.shape[:-1]))
        elif leaf in ("gamma", "moving_variance"):
            noise = random.uniform(0.5, 1.5, variable.shape)
        return np.asarray(noise / 4 if leaf == "beta" else noise, np.float32)

    return {layer.name: [one(variable) for variable in layer.weights] for layer in model.layers if layer.weights}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", ["a.h5", "a.weights.h5", "keras2.h5"])
def test_float64_is_the_truth(name: str, padded: bool, tmp_path: Path) -> None:
    import keras

    keras.config.set_dtype_policy("float64")
    try:
        truth_model = build(keras, padded)
    finally:
        keras.config.set_dtype_policy("float32")
    if name == "keras2.h5":
        import tf_keras

        model = build(tf_keras, padded)
    else:
        model = build(keras, padded)
    for layer, values in draw(truth_model).items():
        for built in (truth_model, model):
            built.get_layer(layer).set_weights(values)
    (model.save if name == "a.h5" else model.save_weights)(str(tmp_path / name))
    images, wanted = random_images(*SHAPE, seed=2), end_points()
    outputs = keras.Model(truth_model.input, [truth_model.get_layer(layer).output for layer in wanted])(images)
    truth = {slim: np.asarray(value) for slim, value in zip(wanted.values(), outputs, strict=True)}
    truth = {slim: value if value.ndim == 4 else value[:, None, None] for slim, value in truth.items()}
    weights = refnet.load_weights(tmp_path / name, strict=True)
    assert weights.options["batch_norm_epsilon"] == 1e-3
    assert weights.recipe.mode == "caffe"
    assert any("no padding before the max pool" in note for note in weights.notes)
    pool_mode = "keras" if padded else "valid"
    found = refnet.forward(weights, images, dtype="float64", pool_mode=pool_mode)
    logits = truth["resnet_v1/logits"][:, 0, 0]
    assert np.abs(found - logits).max() < 1e-12 * np.abs(logits).max()
    # The layers, in the places where Keras strides.
    weights = weights.replace(options={**weights.options, "pool_mode": pool_mode, "stride_place": "first_conv"})
    blocks = [(block.scope, list(block.args)) for block in weights.architecture.blocks]
    net = Net(
        blocks, 7, batch_norm_epsilon=1e-3, pool_mode=pool_mode, bias_before_batch_norm=True,
        scope="resnet_v1", version=1,
    )  # fmt: skip
    assert_is_the_truth(net, weights, images, truth)
