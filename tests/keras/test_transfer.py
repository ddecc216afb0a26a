"""Networks that users build on Keras Applications' ResNets: other heads, outer layers, two networks in one file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import errors
from tests.support.arrays import random_images

IMAGES = random_images(2, 64, 64, 3, seed=3)
FEATURES = 20

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def small_base(keras: Any, name: str = "small") -> Any:
    """A ResNetV2 of two stages by Keras' own functions."""
    from keras.src.applications import resnet

    def stacks(x: Any) -> Any:
        x = resnet.stack_residual_blocks_v2(x, 4, 2, name="conv2")
        return resnet.stack_residual_blocks_v2(x, FEATURES // 4, 2, stride1=1, name="conv3")

    return resnet.ResNet(stacks, True, True, name=name, include_top=False, weights=None, input_shape=(64, 64, 3))


def drawn(model: Any) -> Any:
    """The model with weights that do something."""
    rng = np.random.default_rng(1)
    model.set_weights(
        [(rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w).astype(np.float32) for w in model.get_weights()]
    )
    return model


def on_features(keras: Any, *layers: Any) -> Any:
    base = small_base(keras)
    net = keras.layers.GlobalAveragePooling2D()(base.output)
    for layer in layers:
        net = layer(net)
    return drawn(keras.Model(base.input, net))


def outer_sequence(keras: Any) -> Any:
    pool = keras.layers.GlobalAveragePooling2D()
    return drawn(keras.Sequential([small_base(keras), pool, keras.layers.Dense(5)]))


def outer_model(keras: Any) -> Any:
    images = keras.Input((64, 64, 3))
    features = keras.layers.GlobalAveragePooling2D()(small_base(keras)(images))
    return drawn(keras.Model(images, keras.layers.Dense(5)(features)))


def two_networks(keras: Any) -> Any:
    images, pool = keras.Input((64, 64, 3)), keras.layers.GlobalAveragePooling2D()
    both = [pool(small_base(keras, name)(images)) for name in ("left", "right")]
    return drawn(keras.Model(images, keras.layers.Dense(5)(keras.layers.Concatenate()(both))))


@pytest.fixture(params=["h5", "weights.h5", "keras"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Any], Path]]:
    def save(model: Any) -> Path:
        path = tmp_path / f"a.{request.param}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (model.save_weights if request.param == "weights.h5" else model.save)(path)
        return path

    return save


def assert_runs_as(model: Any, dense: Any, path: Path) -> None:
    """The features by Keras' own tensors, and the dense layer on them, within the roundings of its sum."""
    weights = refnet.load_weights(path, strict=True)
    logits = refnet.forward(weights, IMAGES)
    features = refnet.forward(weights, IMAGES, num_classes=None).reshape(2, -1).astype(np.float64)
    kernel, bias = (np.asarray(value, np.float64) for value in dense.get_weights())
    terms = np.abs(features) @ np.abs(kernel) + np.abs(bias)
    assert (np.abs(logits - (features @ kernel + bias)) <= (FEATURES + 2) * 2.0**-24 * terms).all()
    assert (logits.argmax(-1) == np.asarray(model(IMAGES)).argmax(-1)).all()


@pytest.mark.parametrize("make", [outer_sequence, outer_model])
def test_an_outer_layer_changes_nothing(make: Any, keras: Any, saved: Callable[[Any], Path]) -> None:
    model = make(keras)
    assert_runs_as(model, model.layers[-1], saved(model))


@pytest.mark.parametrize("name", ["dense", "my_classes"])
def test_a_lone_dense_layer_is_the_classifier(name: str, keras: Any, saved: Callable[[Any], Path]) -> None:
    model = on_features(keras, keras.layers.Dense(5, name=name))
    path = saved(model)
    assert_runs_as(model, model.layers[-1], path)
    predicted = refnet.KerasModel(path).predict(IMAGES)
    assert predicted.shape == (2, 5)


@pytest.mark.parametrize("name", ["predictions", "dense"])
def test_a_norm_before_the_classifier_is_an_error(name: str, keras: Any, saved: Callable[[Any], Path]) -> None:
    norm = keras.layers.BatchNormalization(name="neck")
    path = saved(on_features(keras, norm, keras.layers.Dense(5, name=name)))
    with pytest.raises(errors.WeightsError, match=f"the classifier {name} there can be neck.*head={name!r}"):
        refnet.load_weights(path)


def test_a_longer_head_gives_features(keras: Any, saved: Callable[[Any], Path]) -> None:
    hidden = keras.layers.Dense(16, "relu", name="fc1")
    path = saved(on_features(keras, hidden, keras.layers.Dense(5, name="predictions")))
    with pytest.warns(refnet.RefnetWarning, match=r"features only, without logits: of the head, fc1 \[20, 16\]"):
        weights = refnet.load_weights(path)
    assert refnet.forward(weights, IMAGES).shape == (2, 1, 1, FEATURES)


def test_of_two_networks_one_is_chosen(keras: Any, saved: Callable[[Any], Path]) -> None:
    model = two_networks(keras)
    path = saved(model)
    scopes = ["left", "right"] if path.name == "a.h5" else ["functional", "functional_1"]
    with pytest.raises(errors.ConfigError, match=rf"scope= can be '{scopes[0]}', '{scopes[1]}'"):
        refnet.load_weights(path)
    for scope, name in zip(scopes, ("left", "right"), strict=True):
        with pytest.warns(refnet.RefnetWarning, match="2 tensors are not part of the network: dense"):
            weights = refnet.load_weights(path, scope=scope)
        kernel = np.asarray(model.get_layer(name).get_layer("conv1_conv").get_weights()[0])
        assert any("another network" in why for why in weights.conversion.left_out.values())
        assert weights[f"{weights.architecture.scope}/conv1/weights"].tobytes() == kernel.tobytes()
