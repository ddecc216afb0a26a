"""The published networks at 224 x 224 with 1001 classes, against tf_slim in binary32 and binary64."""

from typing import Any

import numpy as np
import pytest

import refnet
from tests.slim.networks import assert_close_to_truth, run_refnet
from tests.slim.oracle import Net, Slim, draw_weights, published_blocks
from tests.support.arrays import random_images

SHAPE = (1, 224, 224, 3)
#: TF-Slim's inventory: variables, parameters, end points of tf_slim 1.1.0.
INVENTORY = {
    (2, 50): (272, 25_615_849, 75),
    (2, 101): (544, 44_677_609, 143),
    (2, 152): (816, 60_382_697, 211),
    (2, 200): (1072, 64_896_489, 275),
    # The parameters of PyTorch's networks, one class more and the moving statistics; of 200 layers by their units.
    (1, 50): (267, 25_612_201, 75),
    (1, 101): (522, 44_656_553, 143),
    (1, 152): (777, 60_346_281, 211),
    (1, 200): (1017, 64_851_881, 275),
}


def _network(version: int, depth: int) -> Net:
    scope = f"resnet_v{version}_{depth}"
    return Net(published_blocks(depth), num_classes=1001, scope=scope, version=version)


@pytest.fixture(scope="session", params=[(2, 50), *(pytest.param(n, marks=pytest.mark.slow) for n in [*INVENTORY][1:])])
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A network's weights, image, and the results of both precisions of tf_slim; made once."""
    net = _network(*request.param)
    slim = Slim(net, SHAPE)
    variables, images = draw_weights(slim.shapes, seed=1), random_images(*SHAPE, seed=2)
    results = {dtype: Slim(net, SHAPE, dtype).run(variables, images) for dtype in ("float32", "float64")}
    return {"network": request.param, "net": net, "slim": slim, "variables": variables, "images": images} | results


def test_inventory(run: dict[str, Any]) -> None:
    variables, parameters, end_points = INVENTORY[run["network"]]
    assert len(run["variables"]) == variables
    assert sum(a.size for a in run["variables"].values()) == parameters
    assert len(run["slim"].slim_end_points) == end_points
    weights = refnet.random_weights(run["net"].scope, num_classes=1001)
    assert {name: a.shape for name, a in weights.items()} == run["slim"].shapes


def test_end_points(run: dict[str, Any]) -> None:
    _, end_points = run_refnet(run["net"], run["variables"], run["images"])
    assert [name for name in end_points if name in run["slim"].slim_end_points] == run["slim"].slim_end_points
    slim32, slim64 = run["float32"][1], run["float64"][1]
    assert_close_to_truth(run["net"], run["variables"], run["images"], end_points, slim32, slim64)


def test_float64_is_the_truth(run: dict[str, Any]) -> None:
    """The roundings of binary64 are 2**-29 of binary32's; 2**9 is room for TensorFlow's own order of the sums."""
    _, end_points = run_refnet(run["net"], run["variables"], run["images"], dtype="float64")
    slim_error = 0.0
    for name, truth in run["float64"][1].items():
        largest = np.abs(truth).max()
        slim_error = max(slim_error, np.abs(run["float32"][1][name] - truth).max() / largest)
        assert np.abs(end_points[name] - truth).max() / largest <= 2.0 ** (9 - 29) * slim_error, name


def test_blocks_are_read_off_the_weights(run: dict[str, Any]) -> None:
    """Without ``blocks`` the names and shapes of the weights, and TF-Slim's rule for strides, give the same network."""
    logits = refnet.forward(run["variables"], run["images"])
    expected, _ = run_refnet(run["net"], run["variables"], run["images"])
    np.testing.assert_array_equal(logits, expected[:, 0, 0])
