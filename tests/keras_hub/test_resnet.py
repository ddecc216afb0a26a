"""KerasHub's ResNets: its files, and every layer against the same function in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from tests.keras_hub.networks import Description, renamed, run_keras_hub
from tests.refnet.formats.test_keras import write
from tests.slim.networks import assert_is_the_truth
from tests.slim.oracle import Net
from tests.support.arrays import random_images
from tests.timm import networks as timm
from tests.torchvision import networks as torchvision

#: KerasHub wants 64 channels in the first stack, and projects where a stack begins.
STAGES = ((64, 2), (5, 1), (4, 2))
DESCRIPTIONS: dict[str, Description] = {
    "v1": torchvision.Description(STAGES, 7),
    "v1 basic": torchvision.Description(STAGES, 7, basic=True),
    "v1 vd": torchvision.Description(STAGES, 7, deep=(5, 6, 8), pooled=True),
    "v2": timm.Description(STAGES, 7),
    "v2 basic": timm.Description(STAGES, 7, basic=True),
}
KINDS = pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
IMAGES = random_images(2, 33, 40, 3, seed=4)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The images are .* recipe", "ignore:Float images are"
)


def drawn(description: Description) -> tuple[Any, str, Net, dict[str, np.ndarray]]:
    """The module of the definition, the scope, the network for the bounds, and a state by timm's names."""
    if isinstance(description, timm.Description):
        unit = "basic" if description.basic else "bottleneck"
        net = Net(description.blocks(), 7, pool_mode="torch", scope="resnet_v2", unit=unit)
        return timm, "resnet_v2", net, timm.draw_state(description, 3)
    return torchvision, "resnet_v1", description.net("resnet_v1"), torchvision.draw_state(description, 3)


@KINDS
def test_float64_is_the_truth(description: Description, tmp_path: Path) -> None:
    module, scope, net, state = drawn(description)
    operations = timm.TensorFlow("float64") if scope == "resnet_v2" else torchvision.TensorFlowV1("float64")
    truth = module.run(operations, description, state, IMAGES, scope)
    weights = refnet.load_weights(write(tmp_path / "a.h5", renamed(description, state)), strict=True)
    pooled = {"avg_down": True} if net.avg_down else {}
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit", **pooled}
    assert weights.recipe.mode == ("inception" if scope == "resnet_v2" else "torch")
    assert set(weights.conversion.renamed.values()) == renamed(description, state).keys()
    assert_is_the_truth(net, weights, IMAGES, truth)


@KINDS
def test_the_librarys_own_layers(description: Description, tmp_path: Path) -> None:
    pytest.importorskip("keras_hub")
    _, scope, net, state = drawn(description)
    path = tmp_path / "task.weights.h5"
    truth = run_keras_hub(description, renamed(description, state), IMAGES, scope, str(path))
    weights = refnet.load_weights(path, strict=True)
    assert_is_the_truth(net, weights, IMAGES, truth)
