"""Networks with group norm: ports in TensorFlow with a mistake in the norm, or in how they standardise kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.diagnosis import search
from refnet.diagnosis.diagnosis import Diagnosis
from refnet.diagnosis.groups import MISTAKES
from tests.bit.networks import GOOGLES_EPSILON, by_google
from tests.support.arrays import random_images
from tests.timm.networks import Description, TensorFlow, draw_state, run

BIT = Description(((32, 1), (32, 1)), 12, grouped=True, epsilon=GOOGLES_EPSILON)
#: Kernels whose means are small beside their deviations, as trained ones are: float32 standardises them well.
STATE = {name: value + np.float32(0.01) for name, value in draw_state(BIT._replace(epsilon=None), seed=3).items()}
IMAGES = random_images(1, 33, 36, 3)


class Port(TensorFlow):
    """A port, with the way in which it standardises kernels and divides channels."""

    def __init__(self, standardization: str | float = GOOGLES_EPSILON, groups: int | str = 32, ddof: int = 0) -> None:
        super().__init__("float32")
        self._standardization, self._groups, self._ddof = standardization, groups, ddof

    def standardized(self, kernel: np.ndarray, epsilon: float) -> np.ndarray:
        how = self._standardization
        if how == "not at all":
            return kernel
        if how == "without the mean":
            return np.asarray(kernel / kernel.std((1, 2, 3), keepdims=True, dtype=np.float64), np.float32)
        if how == "unbiased variance":
            count = kernel[0].size
            return super().standardized(kernel, epsilon) * np.float32(np.sqrt((count - 1) / count))
        return super().standardized(kernel, float(how))

    def group_norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        tf, channels = self.tf, x.shape[-1]
        groups = self._groups if isinstance(self._groups, int) else channels // int(self._groups)
        parts = tf.reshape(x, (*x.shape[:3], groups, channels // groups))
        mean, variance = tf.nn.moments(parts, (1, 2, 4), keepdims=True)
        count = int(np.prod(x.shape[1:])) // groups
        variance *= count / (count - self._ddof)
        normalized = tf.reshape((parts - mean) / tf.sqrt(variance + 1e-5), x.shape)
        return tf.nn.relu(normalized * self.images(weight) + self.images(bias))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> refnet.Weights:
    path: Path = tmp_path_factory.mktemp("bit") / "bit.npz"
    np.savez(path, **by_google(STATE))
    return refnet.load_weights(path)


def diagnosed(weights: refnet.Weights, port: Port, name: str = "logits") -> Diagnosis:
    found = run(port, BIT, STATE, IMAGES, "resnet_v2")
    what = found["resnet_v2/logits"].ravel() if name == "logits" else found
    return refnet.diagnose(weights, IMAGES, what, pairs=False, threads=1)


def test_the_port_without_a_mistake_is_right(weights: refnet.Weights) -> None:
    assert diagnosed(weights, Port()).correct


@pytest.mark.parametrize(
    ("port", "id", "value"),
    [
        (Port("not at all"), "kernel-standardization", "not at all"),
        (Port("unbiased variance"), "kernel-standardization", "unbiased variance"),
        (Port("without the mean"), "kernel-standardization", "without the mean"),
        (Port(1e-5), "kernel-standardization", 1e-5),
        (Port(groups=16), "group-norm-groups", 16),
        (Port(groups="16"), "group-norm-groups", "16 channels per group"),
        (Port(groups="1"), "group-norm-groups", "one channel per group"),
        (Port(ddof=1), "group-norm-unbiased", None),
    ],
    ids=lambda value: str(value) if not isinstance(value, Port) else "",
)
def test_each_mistake_is_named(
    weights: refnet.Weights, port: Port, id: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MISTAKES", MISTAKES)  # a part of the catalogue, for speed
    found = diagnosed(weights, port, "all")
    assert [(entry.id, entry.site, entry.value) for entry in found.mistakes] == [(id, "everywhere", value)]


@pytest.mark.parametrize(
    "port", [Port("not at all"), pytest.param(Port(groups=16), marks=pytest.mark.slow)], ids=["kernels", "groups"]
)
def test_from_the_logits_alone_among_all_mistakes(weights: refnet.Weights, port: Port) -> None:
    (entry,) = diagnosed(weights, port).mistakes
    assert entry.id in ("kernel-standardization", "group-norm-groups")
    assert "1e-10" in entry.should or entry.id == "group-norm-groups"
