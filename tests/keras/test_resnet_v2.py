"""Keras Applications' ResNetV2 as Keras runs it: its files, its layers in both precisions, its preprocessing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import refnet
from tests.slim.networks import assert_close_to_truth
from tests.slim.oracle import Net, draw_images, draw_weights, resnet_v2_blocks

#: Odd and even: Keras pads both alike, TF-Slim's SAME does not.
SHAPE = (2, 97, 64, 3)
CLASSES = 1000
#: Parameters, from Keras' documentation.
PARAMETERS = {50: 25_613_800, 101: 44_675_560, 152: 60_380_648}
LAYERS = {"conv1_conv": "conv1", "pool1_pool": "pool1", "post_relu": "postnorm", "avg_pool": "pool5"}
IN_UNIT = {
    "preact_relu": "/preact",
    "0_conv": "/shortcut",
    "1_relu": "/conv1",
    "2_relu": "/conv2",
    "3_conv": "/conv3",
    "out": "",
}
PLACES = {"preact_bn": "preact", "1_bn": "conv1/BatchNorm", "2_bn": "conv2/BatchNorm", "0_conv": "shortcut"}
ROLES = {"kernel": "weights", "bias": "biases"}


# Keras' own: it converts its arrays in a way that NumPy deprecates, and does not like the format .h5. And the images
# are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:You are saving your model as an HDF5", "ignore:The images are .* recipe"
)


def slim_name(layer: str, depth: int, names: dict[str, str], in_unit: dict[str, str], joint: str = "") -> str | None:
    """Where TF-Slim has what Keras calls so."""
    if layer in names:
        return f"resnet_v2_{depth}/{names[layer]}"
    match = re.fullmatch(r"conv(\d)_block(\d+)_(\w+)", layer)
    if match is None or match[3] not in in_unit:
        return None
    return f"resnet_v2_{depth}/block{int(match[1]) - 1}/unit_{match[2]}/bottleneck_v2{joint}{in_unit[match[3]]}"


def variable_name(layer: str, role: str, depth: int) -> str:
    ends = {"conv1_conv": "conv1", "post_bn": "postnorm", "predictions": "logits"}
    places = {**PLACES, "1_conv": "conv1", "2_conv": "conv2", "3_conv": "conv3"}
    return f"{slim_name(layer, depth, ends, places, '/')}/{ROLES.get(role, role)}"


def build(keras: Any, depth: int) -> Any:
    make = getattr(keras.applications, f"ResNet{depth}V2")
    return make(weights=None, input_shape=SHAPE[1:], classes=CLASSES, classifier_activation=None)


def build_in_float64(keras: Any, depth: int) -> Any:
    keras.config.set_dtype_policy("float64")
    try:
        return build(keras, depth)
    finally:
        keras.config.set_dtype_policy("float32")


def variables_of(model: Any, depth: int) -> dict[str, Any]:
    """The model's variables by TF-Slim's names; in Keras 2 a variable's name holds its layer's."""
    return {
        variable_name(layer.name, variable.name.split("/")[-1].removesuffix(":0"), depth): variable
        for layer in model.layers
        for variable in layer.weights
    }


def fill(model: Any, depth: int, weights: dict[str, np.ndarray]) -> None:
    for name, variable in variables_of(model, depth).items():
        variable.assign(weights[name].reshape(variable.shape))


def layers_of(keras: Any, model: Any, depth: int, images: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer that is an end point, in the order of the layers."""
    names = {layer.name: slim_name(layer.name, depth, LAYERS, IN_UNIT) for layer in model.layers}
    names["predictions"] = f"resnet_v2_{depth}/logits"
    wanted = [layer for layer, name in names.items() if name is not None]
    outputs = keras.Model(model.input, [model.get_layer(layer).output for layer in wanted])(images)
    values = {str(names[layer]): np.asarray(value) for layer, value in zip(wanted, outputs, strict=True)}
    return {name: value if value.ndim == 4 else value[:, None, None] for name, value in values.items()}


@pytest.fixture(scope="session", params=[50, *(pytest.param(d, marks=pytest.mark.slow) for d in (101, 152))])
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A network in Keras, with drawn weights."""
    import keras

    model = build(keras, request.param)
    shapes = {name: tuple(variable.shape) for name, variable in variables_of(model, request.param).items()}
    # TF-Slim's kernel of the logits is a convolution's.
    logits = f"resnet_v2_{request.param}/logits/weights"
    shapes[logits] = (1, 1, *shapes[logits])
    weights = draw_weights(shapes, seed=1)
    fill(model, request.param, weights)
    return SimpleNamespace(keras=keras, depth=request.param, model=model, weights=weights)


def save(case: SimpleNamespace, path: Path) -> None:
    """The same weights as each Keras writes them."""
    if path.name.startswith("keras2"):
        import tf_keras

        model = build(tf_keras, case.depth)
        fill(model, case.depth, case.weights)
    else:
        model = case.model
    # Alone, or below the group "model_weights".
    (model.save_weights if "weights" in path.name else model.save)(str(path))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("keras3.h5", "Keras .h5"),
        ("keras3.weights.h5", "Keras .weights.h5"),
        ("keras3.keras", "Keras .keras"),
        ("keras2.h5", "Keras .h5"),
        ("keras2_weights.h5", "Keras .h5"),
    ],
)
def test_every_file_holds_the_same_weights(case: SimpleNamespace, name: str, source: str, tmp_path: Path) -> None:
    save(case, tmp_path / name)
    weights = refnet.load_weights(tmp_path / name, strict=True)
    assert weights.source == source
    assert sum(value.size for value in weights.values()) == PARAMETERS[case.depth]
    assert weights.keys() == case.weights.keys()
    for slim, value in case.weights.items():
        assert weights[slim].tobytes() == value.tobytes(), slim
    assert weights.options == {"batch_norm_epsilon": 1.001e-5, "pool_mode": "keras"}
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, "tf")
    assert len(weights.conversion.renamed) == len(weights)
    assert weights.conversion.renamed[f"resnet_v2_{case.depth}/logits/weights"] == "predictions/kernel"


def test_every_layer(case: SimpleNamespace, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    images = draw_images(SHAPE, seed=2)
    model64 = build_in_float64(case.keras, case.depth)
    fill(model64, case.depth, case.weights)
    keras32 = layers_of(case.keras, case.model, case.depth, images)
    keras64 = layers_of(case.keras, model64, case.depth, images.astype(np.float64))
    assert all(value.dtype == np.float64 for value in keras64.values())
    save(case, tmp_path / "a.weights.h5")
    weights = refnet.load_weights(tmp_path / "a.weights.h5")
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert end_points.keys() - keras64.keys() == {"global_pool", "predictions"} | {
        f"resnet_v2_{case.depth}/block{i}" for i in range(1, 5)
    }
    net = Net(
        resnet_v2_blocks(case.depth), CLASSES, batch_norm_epsilon=1.001e-5, pool_mode="keras",
        scope=f"resnet_v2_{case.depth}",
    )  # fmt: skip
    assert_close_to_truth(net, weights, images, end_points, keras32, keras64)


def test_zeros_win_at_the_border(case: SimpleNamespace, tmp_path: Path) -> None:
    """In this test the two paddings differ, and Keras' own values are those of its mode."""
    images = draw_images(SHAPE, seed=2)
    keras32 = layers_of(case.keras, case.model, case.depth, images)
    name = f"resnet_v2_{case.depth}/pool1"
    for mode, same in (("keras", True), ("slim", False)):
        _, found = refnet.forward(case.weights, images, pool_mode=mode, end_points=[name])
        assert np.allclose(found[name][:, 0], keras32[name][:, 0], atol=1e-4) is same
        assert (np.abs(keras32[name][:, 0]) == 0).any()


def test_options_travel_through_every_format(case: SimpleNamespace, tmp_path: Path) -> None:
    save(case, tmp_path / "a.weights.h5")
    weights = refnet.load_weights(tmp_path / "a.weights.h5")
    image = draw_images(SHAPE[1:], seed=3)
    expected = refnet.forward(weights, image)
    for name in ("b.npz", "b.safetensors", "b.ckpt"):
        refnet.save_weights(tmp_path / name, weights)
        loaded = refnet.load_weights(tmp_path / name)
        assert (loaded.options, loaded.recipe) == (weights.options, weights.recipe)
        assert refnet.forward(loaded, image).tobytes() == expected.tobytes()


def test_without_a_top_there_are_features(tmp_path: Path) -> None:
    import keras

    model = keras.applications.ResNet50V2(weights=None, include_top=False, input_shape=(64, 64, 3))
    model.save_weights(str(tmp_path / "a.weights.h5"))
    weights = refnet.load_weights(tmp_path / "a.weights.h5", strict=True)
    features = refnet.forward(weights, np.zeros((64, 64, 3), np.float32), global_pool=False)
    assert features.shape == (2, 2, 2048)


def test_the_first_resnet_is_refused_by_name(tmp_path: Path) -> None:
    import keras

    keras.applications.ResNet50(weights=None, include_top=False).save_weights(str(tmp_path / "a.weights.h5"))
    with pytest.raises(refnet.RefnetError, match="ResNet v1"):
        refnet.load_weights(tmp_path / "a.weights.h5")


def test_the_keras_files_of_keras_2_have_no_names(case: SimpleNamespace, tmp_path: Path) -> None:
    save(case, tmp_path / "keras2.keras")
    with pytest.raises(refnet.RefnetError, match=r"no layers' names: save as \.h5"):
        refnet.load_weights(tmp_path / "keras2.keras")


def test_preprocessing_has_keras_bits() -> None:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    pixels.ravel()[:256] = np.arange(256)
    expected = keras.applications.resnet_v2.preprocess_input(pixels.astype(np.float32))
    found = refnet.preprocess(pixels, refnet.Recipe(224, 224, 1.0, "tf"))
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
