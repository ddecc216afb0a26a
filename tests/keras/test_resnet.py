"""Keras Applications' ResNets of both versions as Keras runs them: its files, its layers, its preprocessing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import refnet
from tests.keras.models import CLASSES, Network
from tests.slim.networks import assert_close_to_truth
from tests.slim.oracle import Net, draw_weights, published_blocks
from tests.support.arrays import random_images

#: Parameters, from Keras' documentation.
PARAMETERS = {
    Network(2, 50): 25_613_800,
    Network(1, 50): 25_636_712,
    Network(2, 101): 44_675_560,
    Network(2, 152): 60_380_648,
    Network(1, 101): 44_707_176,
    Network(1, 152): 60_419_944,
}
OPTIONS = {"batch_norm_epsilon": 1.001e-5, "pool_mode": "keras"}

# Keras' own: it converts its arrays in a way that NumPy deprecates, and does not like the format .h5. And the images
# are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:You are saving your model as an HDF5",
    "ignore:The images are .* recipe",
    "ignore:Float images are",
)

NETWORKS = [
    pytest.param(network, id=network.application, marks=[pytest.mark.slow] if network.depth > 50 else [])
    for network in PARAMETERS
]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A network in Keras, with drawn weights."""
    import keras

    network: Network = request.param
    model = network.build(keras)
    shapes = {name: tuple(variable.shape) for name, variable in network.variables_of(model).items()}
    # TF-Slim's kernel of the logits is a convolution's.
    logits = f"{network.scope}/logits/weights"
    shapes[logits] = (1, 1, *shapes[logits])
    weights = draw_weights(shapes, seed=1)
    network.fill(model, weights)
    options = OPTIONS if network.version == 2 else OPTIONS | {"bias_before_batch_norm": True}
    return SimpleNamespace(keras=keras, network=network, model=model, weights=weights, options=options)


def save(case: SimpleNamespace, path: Path) -> Path:
    """The same weights as each Keras writes them."""
    model = case.model
    if path.name.startswith("keras2"):
        import tf_keras

        model = case.network.fill(case.network.build(tf_keras), case.weights)
    # Alone, or below the group "model_weights".
    (model.save_weights if "weights" in path.name else model.save)(str(path))
    return path


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
    weights = refnet.load_weights(save(case, tmp_path / name), strict=True)
    assert weights.source == source
    assert sum(value.size for value in weights.values()) == PARAMETERS[case.network]
    assert weights.keys() == case.weights.keys()
    for slim, value in case.weights.items():
        assert weights[slim].tobytes() == value.tobytes(), slim
    assert weights.options == case.options
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, {1: "caffe", 2: "tf"}[case.network.version])
    assert len(weights.conversion.renamed) == len(weights)
    assert weights.conversion.renamed[f"{case.network.scope}/logits/weights"] == "predictions/kernel"


def test_every_layer(case: SimpleNamespace, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    network = case.network
    images = random_images(*network.shape, seed=2)
    model64 = network.fill(network.build_in_float64(case.keras), case.weights)
    keras32 = network.layers_of(case.keras, case.model, images)
    keras64 = network.layers_of(case.keras, model64, images.astype(np.float64))
    assert all(value.dtype == np.float64 for value in keras64.values())
    weights = refnet.load_weights(save(case, tmp_path / "a.weights.h5"))
    # In the first version Keras strides where the next block begins.
    stored = network.version == 1
    logits, end_points = refnet.forward(
        weights, images, end_points=True, spatial_squeeze=False, store_non_strided_activations=stored
    )
    assert end_points.keys() - keras64.keys() == {"global_pool", "predictions"} | {
        f"{network.scope}/block{i}" for i in range(1, 5)
    }
    net = Net(
        published_blocks(network.depth), CLASSES, **case.options, store_non_strided_activations=stored,
        scope=network.scope, version=network.version,
    )  # fmt: skip
    assert_close_to_truth(net, weights, images, end_points, keras32, keras64)
    assert refnet.forward(weights, images).tobytes() == logits.tobytes()


def test_zeros_win_at_the_border(case: SimpleNamespace, tmp_path: Path) -> None:
    """In this test the two paddings differ, and Keras' own values are those of its mode."""
    if case.network.version == 1:
        pytest.skip("after a ReLU no zero wins")
    images = random_images(*case.network.shape, seed=2)
    keras32 = case.network.layers_of(case.keras, case.model, images)
    name = f"{case.network.scope}/pool1"
    for mode, same in (("keras", True), ("slim", False)):
        _, found = refnet.forward(case.weights, images, pool_mode=mode, end_points=[name])
        assert np.allclose(found[name][:, 0], keras32[name][:, 0], atol=1e-4) is same
        assert (np.abs(keras32[name][:, 0]) == 0).any()


def test_options_travel_through_every_format(case: SimpleNamespace, tmp_path: Path) -> None:
    weights = refnet.load_weights(save(case, tmp_path / "a.weights.h5"))
    image = random_images(*case.network.shape[1:], seed=3)
    expected = refnet.forward(weights, image)
    for name in ("b.npz", "b.safetensors", "b.ckpt"):
        refnet.save_weights(tmp_path / name, weights)
        loaded = refnet.load_weights(tmp_path / name)
        assert (loaded.options, loaded.recipe) == (weights.options, weights.recipe)
        assert refnet.forward(loaded, image).tobytes() == expected.tobytes()


def test_the_keras_files_of_keras_2_have_no_names(case: SimpleNamespace, tmp_path: Path) -> None:
    save(case, tmp_path / "keras2.keras")
    with pytest.raises(refnet.RefnetError, match=r"no layer names: save as \.h5"):
        refnet.load_weights(tmp_path / "keras2.keras")


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_preprocessing_has_keras_bits(mode: str) -> None:
    from keras.applications.imagenet_utils import preprocess_input

    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    for channel in range(3):
        pixels[0, 0, :, channel], pixels[0, 1, :32, channel] = np.arange(224), np.arange(224, 256)
    expected = np.ascontiguousarray(preprocess_input(pixels.astype(np.float32), mode=mode))
    found = refnet.preprocess(pixels, refnet.Recipe(224, 224, 1.0, mode))
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_the_pixels_of_load_img(tmp_path: Path) -> None:
    from keras.applications.imagenet_utils import preprocess_input
    from keras.utils import img_to_array, load_img

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 250, 3), np.uint8)).save(tmp_path / "a.png")
    expected = preprocess_input(img_to_array(load_img(tmp_path / "a.png", target_size=(224, 200))), mode="tf")
    recipe = refnet.Recipe(224, 200, 1.0, "tf", interpolation="nearest")
    found = refnet.preprocess(refnet.load_image(tmp_path / "a.png"), recipe)
    np.testing.assert_array_equal(found.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))
