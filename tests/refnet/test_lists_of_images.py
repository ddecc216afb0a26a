"""Raw images of different sizes, in a list, wherever an engine takes images."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.errors import InputError
from tests.support.nets import lively_weights

WEIGHTS = refnet.Weights(lively_weights(), recipe=refnet.Recipe(33, 33, 0.875))
IMAGES = [np.random.default_rng(i).integers(0, 256, (40 + i, 60 - i, 3), np.uint8) for i in range(3)]
ONE_BY_ONE = np.stack([refnet.forward(WEIGHTS, image) for image in IMAGES])


def test_forward_and_engine() -> None:
    assert refnet.forward(WEIGHTS, IMAGES).tobytes() == ONE_BY_ONE.tobytes()
    net, end_points = refnet.Engine(WEIGHTS)(tuple(IMAGES), end_points=["predictions"])
    assert net.tobytes() == ONE_BY_ONE.tobytes()
    assert end_points["predictions"].shape == (3, 7)
    assert refnet.forward(WEIGHTS, IMAGES[:1]).tobytes() == ONE_BY_ONE[:1].tobytes()
    assert refnet.forward(WEIGHTS, [IMAGES[0], IMAGES[0]]).tobytes() == ONE_BY_ONE[[0, 0]].tobytes()


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 9])
def test_keras_model(batch_size: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    model = refnet.KerasModel(WEIGHTS, classifier_activation=None)
    assert model.predict(IMAGES, batch_size=batch_size, verbose=1).tobytes() == ONE_BY_ONE.tobytes()
    assert len(capsys.readouterr().err.splitlines()) == {1: 3, 2: 2}.get(batch_size or 9, 0)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 channels; the network takes 3\. To take grey images as coloured ones"):
        refnet.forward(WEIGHTS, [IMAGES[0], IMAGES[1][..., :1]])
    with pytest.raises(InputError, match="no pixels"):
        refnet.forward(WEIGHTS, [IMAGES[0], IMAGES[1][:0]])
    with pytest.raises(InputError, match="different shapes"):
        refnet.forward(WEIGHTS.replace(recipe=refnet.Recipe(None, None, 1.0)), IMAGES)
    with pytest.raises(InputError, match="these weights have no recipe"):
        refnet.forward(dict(WEIGHTS), IMAGES)
