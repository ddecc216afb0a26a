"""Ports that prepare the image otherwise: what they do is named, and another decoder is not a mistake."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet.diagnosis import search
from refnet.diagnosis.images import MISTAKES
from refnet.images.preprocess import Recipe
from tests.ports.mistakes import Mistake
from tests.ports.networks import draw_variables, run_numpy, small_net, smooth_images
from tests.ports.pixels import Steps, decoded, images_of, slim_v1, slim_v2, torchvision

SIZE = 48
NET = small_net(2, (1, 1), classes=20)
VARIABLES = draw_variables(NET, SIZE, seed=0)
RAW = smooth_images(1, 110, 140, 3, seed=7)[0]
SIDE = SIZE * 256 // 224
RECIPES = [
    (slim_v2(SIZE), Recipe(SIZE, SIZE)),
    (slim_v1(SIZE), Recipe(SIZE, SIZE, 1.0, "vgg", SIDE)),
    (torchvision(SIZE), Recipe(SIZE, SIZE, 1.0, "torch", SIDE, "bilinear")),
]
PLANTED = [
    [("channels-reversed", None), ("mode", "vgg"), ("resize", "half-pixel bilinear"), ("half-for-one", None)],
    [("mean-rounded", None), ("mode", "torch"), ("crop", "0.875"), ("layout-reshaped", None), ("mode-twice", None)],
    [("mean-reversed", None), ("axes-swapped", None), ("resize", "nearest"), ("crop", "none")],
]
CASES = [
    (steps, recipe, Mistake(name, None, value))
    for (steps, recipe), planted in zip(RECIPES, PLANTED, strict=True)
    for name, value in planted
]


def logits(steps: Steps, *mistakes: Mistake, raw: np.ndarray = RAW) -> np.ndarray:
    return run_numpy(VARIABLES, images_of(raw, steps, mistakes), NET)["resnet_v2/logits"]


@pytest.mark.parametrize(("steps", "recipe", "mistake"), CASES, ids=str)
def test_what_is_done_to_the_image_is_named(
    steps: Steps, recipe: Recipe, mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MISTAKES", MISTAKES)  # a part of the catalogue, for speed
    weights = refnet.Weights(VARIABLES, recipe=recipe)
    found = refnet.diagnose(weights, RAW, logits(steps, mistake), pairs=False, threads=1)
    assert [(entry.id, entry.value) for entry in found.mistakes] == [(mistake.id, mistake.value)]


@pytest.mark.parametrize(("steps", "recipe"), RECIPES, ids=str)
def test_another_preparation_in_the_same_way_is_right(steps: Steps, recipe: Recipe) -> None:
    weights = refnet.Weights(VARIABLES, recipe=recipe)
    assert refnet.diagnose(weights, RAW, logits(steps), pairs=False, threads=1).correct


def test_another_decoder_is_not_a_mistake(tmp_path: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(RAW).save(file, "JPEG", quality=80)
    path = tmp_path / "image.jpg"
    path.write_bytes(file.getvalue())
    raw = decoded(path, "plain chroma")
    assert not np.array_equal(raw, decoded(path))
    found = refnet.diagnose(
        refnet.Weights(VARIABLES, recipe=RECIPES[0][1]), path, logits(RECIPES[0][0], raw=raw), pairs=False, threads=1
    )
    assert not found.explained
    assert not found.mistakes


def test_what_the_network_takes_is_an_image_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MISTAKES", MISTAKES)
    steps, recipe = RECIPES[2]
    images = images_of(RAW, steps)
    weights = refnet.Weights(VARIABLES, recipe=recipe)
    theirs = run_numpy(VARIABLES, images[..., ::-1], NET)["resnet_v2/logits"]
    (entry,) = refnet.diagnose(weights, images, theirs, pairs=False, threads=1).mistakes
    assert entry.id == "channels-reversed"
