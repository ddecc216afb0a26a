"""What a Keras user does first: load, preprocess, predict, name the classes; and Keras' arguments."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet.cli import main
from refnet.errors import ConfigError, WeightsError
from refnet.images.preprocess import fields_of
from tests.documentation import python_blocks
from tests.keras.models import Network
from tests.slim.error_bound import BINARY32
from tests.slim.oracle import draw_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:You are saving your model as an HDF5")

RESNET50 = Network(1, 50)
#: No square, and no multiple of 32.
SHAPE = (65, 97, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A ResNet50 in Keras in both precisions, and the file that Keras saved of it."""
    import keras

    options = {"input_shape": (224, 224, 3), "classifier_activation": "softmax"}
    model = RESNET50.build(keras, **options)
    weights = draw_weights({name: tuple(v.shape) for name, v in RESNET50.variables_of(model).items()}, seed=4)
    path = tmp_path_factory.mktemp("keras") / "resnet50.h5"
    RESNET50.fill(model, weights).save(str(path))
    truth = RESNET50.fill(RESNET50.build_in_float64(keras, **options), weights)
    pixels = np.random.default_rng(5).integers(0, 256, (224, 224, 3), np.uint8)
    return SimpleNamespace(keras=keras, path=path, model=model, truth=truth, weights=weights, pixels=pixels)


def assert_as_close_as_keras(found: np.ndarray, keras32: Any, keras64: Any) -> None:
    """Within twice the error that Keras' own float32 has, and a rounding."""
    truth = np.asarray(keras64)
    assert truth.dtype == np.float64
    assert found.shape == truth.shape
    allowed = 2 * np.abs(np.asarray(keras32) - truth).max() + BINARY32.u * np.abs(truth).max()
    assert np.abs(found - truth).max() <= allowed


def test_the_page_for_keras_users(saved: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.path.parent)
    Image.fromarray(saved.pixels).save("cat.jpg")
    found: dict[str, Any] = {}
    exec(compile(python_blocks("docs/keras.md"), "docs/keras.md", "exec"), found)
    assert found["probabilities"].shape == (1, 1000)


def test_the_walk_through(saved: SimpleNamespace) -> None:
    from keras.applications.resnet import preprocess_input

    batch = preprocess_input(saved.pixels[None].astype(np.float32))
    keras32, keras64 = saved.model(batch), saved.truth(batch.astype(np.float64))
    weights = refnet.load_weights(saved.path)
    logits, end_points = refnet.forward(weights, saved.pixels, end_points=["predictions"])
    assert_as_close_as_keras(end_points["predictions"][None], keras32, keras64)
    # A float image is taken as preprocessed; Keras' values are as large as that, and no warning says otherwise.
    assert refnet.forward(weights, batch)[0].tobytes() == logits.tobytes()
    model = refnet.KerasModel(saved.path)
    assert model.predict(saved.pixels).tobytes() == end_points["predictions"].tobytes()
    assert model.predict(batch).tobytes() == end_points["predictions"].tobytes()
    decoded = refnet.decode_predictions(model.predict(batch), top=5)[0]
    assert [entry.score for entry in decoded] == sorted(np.asarray(end_points["predictions"]))[:-6:-1]


@pytest.mark.parametrize("classifier_activation", ["softmax", None])
def test_with_the_top(saved: SimpleNamespace, classifier_activation: str | None) -> None:
    model = refnet.KerasModel(saved.path, classes=1000, classifier_activation=classifier_activation, pooling="max")
    net = refnet.forward(saved.path, saved.pixels, end_points=["predictions"])
    expected = net[0] if classifier_activation is None else net[1]["predictions"]
    found = model.predict(saved.pixels)
    assert found.shape == (1, 1000)
    assert found.tobytes() == expected.tobytes()


def test_predict_in_parts(saved: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    model, pixels = refnet.KerasModel(saved.path), np.stack([saved.pixels, saved.pixels[::-1], saved.pixels[:, ::-1]])
    whole = model.predict(pixels)
    assert capsys.readouterr().err == ""
    for batch_size in (1, 2, 3, 32):
        assert model.predict(pixels, batch_size=batch_size).tobytes() == whole.tobytes()
    model.predict(pixels, batch_size=2, verbose=1)
    assert capsys.readouterr().err.splitlines() == ["2/3 images", "3/3 images"]


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_without_the_top(saved: SimpleNamespace, pooling: str | None, tmp_path: Path) -> None:
    """By a file without a classifier, which Keras calls "notop", and by one with it."""
    options = {"include_top": False, "pooling": pooling, "input_shape": SHAPE}
    keras32 = RESNET50.fill(RESNET50.build(saved.keras, **options), saved.weights)
    keras64 = RESNET50.fill(RESNET50.build_in_float64(saved.keras, **options), saved.weights)
    images = np.random.default_rng(6).uniform(-120, 120, (2, *SHAPE)).astype(np.float32)
    keras32.save_weights(str(tmp_path / "notop.weights.h5"))
    found = refnet.KerasModel(tmp_path / "notop.weights.h5", include_top=False, pooling=pooling).predict(images)
    assert_as_close_as_keras(found, keras32(images), keras64(images.astype(np.float64)))
    again = refnet.KerasModel(saved.path, include_top=False, pooling=pooling).predict(images)
    assert again.tobytes() == found.tobytes()
    assert refnet.load_weights(tmp_path / "notop.weights.h5", strict=True).recipe.mode == "caffe"
    with pytest.raises(ConfigError, match="no classifier: pass include_top=False"):
        refnet.KerasModel(tmp_path / "notop.weights.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling is 'mean'; it can be None, 'avg' or 'max'"),
        ({"classifier_activation": "relu"}, "classifier_activation is 'relu'; it can be 'softmax' or None"),
        ({"classes": 10}, "num_classes is 10, but the weights have 1000"),
        ({"classes": 1001}, "background"),
        ({"weights": "imagenet"}, "refnet downloads no weights"),
    ],
)
def test_bad_arguments(saved: SimpleNamespace, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refnet.KerasModel(**({"weights": saved.path} | options))


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="mapping of names to arrays, not NoneType"):
        refnet.KerasModel(None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        refnet.KerasModel(tmp_path / "none.h5")


def test_predict_on_the_command_line_prints_names(
    saved: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(saved.pixels).save(tmp_path / "image.png")
    arguments = ["predict", str(tmp_path / "image.png"), "--weights", str(saved.path), "--json"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    (image,) = json.loads(output.out)["images"]
    expected = refnet.decode_predictions(refnet.KerasModel(saved.path).predict(saved.pixels))[0]
    assert [(p["label"], p["probability"]) for p in image["predictions"]] == [(p.name, p.score) for p in expected]
    assert "BGR, less Caffe's mean" in output.err
    assert "labels: ImageNet's" in output.err
    (tmp_path / "index.json").write_text(json.dumps({str(i): [f"n{i}", f"name {i}"] for i in range(1000)}))
    assert main([*arguments, "--labels", str(tmp_path / "index.json")]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert all(p["label"] == f"name {p['class']}" for p in image["predictions"])


def test_summary_on_the_command_line(saved: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(saved.path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    # Keras' documentation.
    assert summary["parameters"] == {"total": 25_636_712, "trainable": 25_583_592, "non_trainable": 53_120}
    assert (summary["scope"], summary["num_classes"]) == ("resnet_v1_50", 1000)
    assert summary["recipe"] == fields_of(refnet.Recipe(224, 224, 1.0, "caffe"))
    assert main(["summary", str(saved.path)]) == 0
    lines = capsys.readouterr().out
    for words in (
        "block4/unit_3/Relu", "classes: 1000 (as ImageNet; offset 0)", "resized to 224 x 224, BGR",
        "bias_before_batch_norm: True", "pool_mode: keras",
    ):  # fmt: skip
        assert words in lines
