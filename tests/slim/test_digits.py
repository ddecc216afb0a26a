"""The trained network that refnet ships, against tf_slim's logits of its held-out images."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from tests.slim import error_bound
from tests.slim.networks import assert_within
from tests.slim.oracle import Net, block

DIGITS = Path(refnet.__file__).parent / "data" / "digits"
NET = Net(
    [block("block1", 8, 2, 2), block("block2", 16, 2, 2), block("block3", 32, 2, 1)],
    num_classes=10,
    scope="resnet_v2_digits",
)
RECIPE = refnet.Recipe(height=32, width=32, central_fraction=1.0)


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "goldens" / "digits_logits.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "held_out.npz") as stored:
        return {"images": np.repeat(stored["images"][..., None], 3, -1), "labels": stored["labels"]}


@pytest.fixture(scope="module")
def weights() -> refnet.Weights:
    return refnet.load_weights(DIGITS / "digits.ckpt", recipe=RECIPE)


@pytest.fixture(scope="module")
def logits(weights: refnet.Weights, held_out: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(refnet.forward(weights, held_out["images"]))


def test_the_goldens_are_those_of_the_shipped_checkpoint(goldens: dict[str, np.ndarray]) -> None:
    metadata = json.loads(str(goldens["metadata"]))
    data = (DIGITS / "digits.ckpt.data-00000-of-00001").read_bytes()
    assert hashlib.sha256(data).hexdigest() == metadata["checkpoint_sha256"], f"regenerate: {metadata['command']}"


def test_predictions_agree_with_slim(logits: np.ndarray, goldens: dict[str, np.ndarray]) -> None:
    for dtype in ("float32", "float64"):
        np.testing.assert_array_equal(logits.argmax(-1), goldens[f"logits_{dtype}"].argmax(-1))


def test_held_out_accuracy(logits: np.ndarray, held_out: dict[str, np.ndarray]) -> None:
    assert (logits.argmax(-1) == held_out["labels"]).sum() == 358


def test_logits_are_within_the_bound(
    logits: np.ndarray, goldens: dict[str, np.ndarray], weights: refnet.Weights, held_out: dict[str, np.ndarray]
) -> None:
    images = refnet.preprocess(held_out["images"], RECIPE)
    expected = error_bound.end_points(NET, weights, images)["resnet_v2_digits/logits"]
    expected = error_bound.Bounded(*(a[:, 0, 0] for a in expected))
    difference = np.abs(expected.value - goldens["logits_float64"]).max()
    assert difference <= 2.0**-20 * expected.bound.max(), "the bound is not about TensorFlow's values"
    assert_within("logits", logits, expected)


def test_error_is_no_larger_than_slims(logits: np.ndarray, goldens: dict[str, np.ndarray]) -> None:
    truth = goldens["logits_float64"]
    slim_error = np.abs(goldens["logits_float32"] - truth).max()
    assert np.abs(logits - truth).max() <= 2 * slim_error + error_bound.BINARY32.u * np.abs(truth).max()
