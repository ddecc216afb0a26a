"""ResNets as exporters write them: every layer against ONNX's own evaluator in float64, and ONNX Runtime's float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import refnet
from tests.onnx.models import STYLES, Model, model, values
from tests.slim.error_bound import BINARY32, end_points
from tests.slim.networks import assert_close_to_truth
from tests.slim.oracle import Net
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
    _, found_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    is_softmax = style.head in ("conv", "matmul")
    last = "predictions" if is_softmax else f"{net.scope}/logits"
    for each in (truth, theirs):
        each[last] = each.pop("output").reshape(found_points[last].shape)
    assert len(truth) > 20
    assert_close_to_truth(net, weights, images, found_points, theirs, truth)


@pytest.mark.parametrize(
    ("depth", "unit", "units"),
    [
        (18, "basic", (2, 2, 2, 2)), (34, "basic", (3, 4, 6, 3)), (50, "bottleneck", (3, 4, 6, 3)),
        (101, "bottleneck", (3, 4, 23, 3)), (152, "bottleneck", (3, 8, 36, 3)),
    ],
)  # fmt: skip
def test_networks_have_their_names(depth: int, unit: str, units: tuple[int, ...], tmp_path: Path) -> None:
    for style in (STYLES["Gluon v1"], STYLES["Gluon V2"], STYLES["tf2onnx, TF-Slim V2"]):
        stages = tuple((2 + i, count) for i, count in enumerate(units))
        made = model(
            style._replace(unit=unit, stages=stages, place=style.place if unit == "bottleneck" else "first_unit")
        )
        assert (
            refnet.load_weights(save(tmp_path / "a.onnx", made)).architecture.scope
            == f"resnet_v{style.version}_{depth}"
        )


DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["v1", "v1_basic", "v2"])
def test_files_of_torch(name: str, exporter: str) -> None:
    """Of both exporters; timm's networks with deep stems. ``tools/make_onnx_files.py`` wrote them."""
    path, images = DATA / f"{name}_{exporter}.onnx", random_images(2, 97, 64, 3, seed=5)
    weights = refnet.load_weights(path, strict=True)
    assert weights.options.items() >= {"pool_mode": "torch", "stride_place": "first_unit", "avg_down": True}.items()
    proto = onnx.load(path)
    logits = refnet.forward(weights, images)
    outputs = [output.name for output in proto.graph.output]
    truth, theirs = (values(proto, images, outputs, dtype)[0] for dtype in ("float64", "float32"))
    net = Net(
        [(block.scope, list(block.args)) for block in weights.architecture.blocks], 5, pool_mode="torch",
        version=1 if name.startswith("v1") else 2, unit="basic" if "basic" in name else "bottleneck", avg_down=True,
        root_depths=weights.architecture.root_depths, scope=weights.architecture.scope, bias_before_batch_norm=None,
    )  # fmt: skip
    bounded = end_points(net, weights, images)[f"{net.scope}/logits"]
    assert np.abs(bounded.value[:, 0, 0] - truth).max() <= 2.0**-20 * bounded.bound.max()
    assert (np.abs(logits - truth) <= bounded.bound[:, 0, 0]).all()
    # Of ten numbers the largest error is a matter of luck.
    assert np.abs(logits - truth).max() <= 4 * np.abs(theirs - truth).max() + BINARY32.u * np.abs(truth).max()
