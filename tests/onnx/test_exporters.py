"""ResNets as exporters write them: every layer against ONNX's own evaluator in float64, and ONNX Runtime's float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from tests.onnx.models import STYLES, Model, model, values
from tests.slim.networks import assert_close_to_truth
from tests.support.arrays import random_images

pytestmark = pytest.mark.filterwarnings("ignore:The images are .* recipe")


def nhwc(value: np.ndarray) -> np.ndarray:
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def layers(found: Model, images: np.ndarray, dtype: str, epsilon: float) -> dict[str, np.ndarray]:
    """Every layer, as refnet names and shapes them."""
    arrays = values(found.proto, images, list(found.points.values()), dtype, epsilon)
    return dict(zip(found.points, map(nhwc, arrays), strict=True))


def save(path: Path, found: Model) -> Path:
    path.write_bytes(found.proto.SerializeToString())
    return path


@pytest.mark.parametrize("name", STYLES)
def test_every_layer(name: str, tmp_path: Path) -> None:
    style = STYLES[name]
    found, images = model(style, seed=1), random_images(2, 75, 66, 3, seed=2)
    truth, theirs = (layers(found, images, dtype, style.epsilon) for dtype in ("float64", "float32"))
    weights = refnet.load_weights(save(tmp_path / "a.onnx", found), strict=True)
    net = style.net()
    assert [(block.scope, list(block.args)) for block in weights.architecture.blocks] == net.blocks
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    is_softmax = style.head in ("conv", "matmul")
    last = "predictions" if is_softmax else f"{net.scope}/logits"
    for each in (truth, theirs):
        each[last] = each.pop("output").reshape(end_points[last].shape)
    assert len(truth) > 20
    assert_close_to_truth(net, weights, images, end_points, theirs, truth)
