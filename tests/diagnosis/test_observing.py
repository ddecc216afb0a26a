"""What a port gave, in the forms in which people have it: what it was taken for is right, or is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refnet
from refnet.diagnosis import padding, search
from refnet.diagnosis.diagnosis import Diagnosis
from refnet.errors import InputError
from tests.ports.mistakes import Mistake
from tests.ports.networks import draw_variables, inception_scaled, small_net, smooth_images
from tests.ports.tensorflow_port import run

NET = small_net(2, (1, 2), classes=21)
VARIABLES = draw_variables(NET, 48, seed=0)
IMAGE = inception_scaled(smooth_images(1, 48, 52, 3, seed=5))
UNIT = "resnet_v2/block1/unit_1/bottleneck_v2"


def observed(*mistakes: Mistake) -> dict[str, np.ndarray]:
    return run(VARIABLES, IMAGE, NET, mistakes)


def diagnosed(what: Any, images: np.ndarray = IMAGE) -> Diagnosis:
    return refnet.diagnose(VARIABLES, images, what, pairs=False, threads=1)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_single_value_is_what_its_name_says(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last block's channels there are many values: the unit's is not the network's features."""
    monkeypatch.setattr(search, "MISTAKES", padding.MISTAKES)
    name = "resnet_v2/block2/unit_1/bottleneck_v2"
    right, wrong = (found[name] for found in (observed(), observed(Mistake("conv1-same"))))
    if layout == "NCHW":
        right, wrong = right.transpose(0, 3, 1, 2), wrong.transpose(0, 3, 1, 2)
    assert diagnosed({name: right}).correct
    assert [entry.id for entry in diagnosed({name: wrong}).mistakes] == ["conv1-same"]


def test_what_an_array_without_a_name_was_taken_for_is_said() -> None:
    (note,) = diagnosed(observed()["resnet_v2/postnorm"]).notes
    assert "postnorm" in note
    assert "{name: array}" in note


def test_probabilities_by_the_name_of_logits_are_said_to_be_some() -> None:
    probabilities = observed()["predictions"].reshape(1, -1)
    found = diagnosed({"logits": probabilities})
    assert found.correct
    assert found.notes == ("logits holds probabilities, not logits: they were compared as what they are.",)
    assert diagnosed({"predictions": probabilities}).notes == ()


def test_values_of_half_precision_are_said_to_be_judged_by_it() -> None:
    (note,) = diagnosed(observed()["resnet_v2/logits"].astype(np.float16)).notes
    assert "float16" in note


def test_fewer_classes_are_said() -> None:
    """The last one is missing: an offset does not explain that."""
    found = diagnosed(observed()["resnet_v2/logits"].ravel()[:-1])
    assert not found.explained
    assert "array has 20 classes and the network 21: compare the same classes." in found.notes


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (np.arange(21), "21 whole numbers and 1 images.*labels.*floats"),
        (np.zeros((3, 21), np.float32), "for 1 image. Pass the outputs of all images"),
        (np.zeros((1, 21), int), "no arrays of floats to compare in the outputs"),
    ],
    ids=["whole numbers", "other images", "whole numbers in rows"],
)
def test_what_cannot_be_used_is_told(what: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        diagnosed(what)


def test_labels_off_by_one_are_named_with_how_sure_that_is() -> None:
    net = small_net(1, (1, 1), classes=30)
    variables = draw_variables(net, 40, seed=1)
    images = inception_scaled(smooth_images(20, 40, 40, 3, seed=3))
    labels = run(variables, images, net)["resnet_v1/logits"].reshape(20, -1).argmax(1)
    assert labels.min() > 0

    def found(observed: np.ndarray) -> Diagnosis:
        return refnet.diagnose(variables, images, observed, threads=1)

    one_less = found(labels - 1)
    assert [(entry.id, entry.value) for entry in one_less.mistakes] == [("class-offset", -1)]
    assert any("20 of 20 labels: by chance" in note for note in one_less.notes)
    # One image that is not explained, and two images alone.
    but_one = np.r_[labels[:-1] - 1, (labels[-1] + 5) % 30]
    assert "1 labels are others for a reason that these do not tell." in found(but_one).notes
    few = refnet.diagnose(variables, images[:2], labels[:2] - 1, threads=1)
    assert not few.explained
    assert few.nearest[0].id == "class-offset"


class Tensor:
    """As PyTorch's: NumPy has no view of one with a gradient, and none of bfloat16."""

    __module__ = "torch"
    dtype = "torch.bfloat16"

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def detach(self) -> Tensor:
        return self

    def float(self) -> np.ndarray:
        return self._array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Can't call numpy() on Tensor that requires grad.")


def test_a_tensor_with_a_gradient_is_an_array_like_any_other() -> None:
    logits = observed()["resnet_v2/logits"].reshape(1, -1)
    for what in (Tensor(logits), {"logits": Tensor(logits)}):
        assert diagnosed(what).correct


def test_an_image_with_channels_first_is_told() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 3, 48, 52\).*looks like CHW: move the channels last"):
        diagnosed(observed()["resnet_v2/logits"], IMAGE.transpose(0, 3, 1, 2))
