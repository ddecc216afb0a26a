"""Group norm in a graph: its variables, what is fused, and the same bits for any threads, batch and device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refnet.run.cpu
from refnet.errors import ConfigError, MissingTensorError
from refnet.graph.fuse import make_plan
from refnet.graph.graph import ArgScope, Graph, Tensor
from refnet.run.compute import compute
from tests.support.arrays import assert_same_bits, random_images


def unit(graph: Graph, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A normalised image, a convolution with group norm and ReLU, and one whose sum is normalised after it."""
    with graph.variable_scope("unit"):
        preact = graph.group_norm(images, "preact", 2)
        with graph.variable_scope("conv1"):
            net = graph.conv(graph.relu(preact), 32, (3, 3), 1, 1, same=True)
            net = graph.relu(graph.group_norm(net, "GroupNorm"))
        with graph.variable_scope("conv2"):
            net = graph.bias_add(graph.conv(net, 6, (1, 1), 2, 1, same=True))
            net = graph.add(graph.subsample(images, 2), graph.group_norm(net, "GroupNorm", 3))
    return net, {"preact": preact}


def weights(**options: Any) -> dict[str, np.ndarray]:
    """Random ones for `unit`."""
    graph = Graph({}, ArgScope(**options))
    unit(graph, graph.placeholder((1, 5, 6, 6)))
    generator = np.random.default_rng(0)
    return {name: generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in graph.missing}


IMAGES = random_images(5, 9, 8, 6)


def run(
    images: np.ndarray, device: str = "cpu", threads: int = 1, end_points: bool = False, **options: Any
) -> dict[str, np.ndarray]:
    graph = Graph(weights(**options), ArgScope(**options))
    net, others = unit(graph, graph.placeholder(images.shape))
    found, values = compute(graph, images, (net, others if end_points else {}), device, threads)
    return {"net": found, **values}


def test_the_variables_have_tf_slims_names() -> None:
    norms = {name for name in weights() if "weights" not in name and "biases" not in name}
    scopes = ("unit/preact", "unit/conv1/GroupNorm", "unit/conv2/GroupNorm")
    assert norms == {f"{scope}/{role}" for scope in scopes for role in ("gamma", "beta")}
    assert "unit/preact/gamma" not in weights(batch_norm_scale=False)


def test_missing_variables_are_named() -> None:
    graph = Graph({"GroupNorm/gamma": np.ones(64, np.float32)})
    graph.group_norm(graph.placeholder((1, 2, 2, 64)), "GroupNorm")
    with pytest.raises(MissingTensorError, match=r"GroupNorm/beta \(64,\)"):
        graph.check_variables()


@pytest.mark.parametrize(("channels", "groups"), [(40, 32), (16, 32), (7, 2)])
def test_channels_that_do_not_divide_are_refused(channels: int, groups: int) -> None:
    graph = Graph({})
    images, words = graph.placeholder((1, 2, 2, channels)), f"{channels} channels, .* multiple of {groups} "
    with graph.variable_scope("unit"), pytest.raises(ConfigError, match=f"^unit/preact is a group norm of {words}"):
        graph.group_norm(images, "preact", groups)


def test_the_relu_that_follows_is_fused() -> None:
    graph = Graph({})
    net, end_points = unit(graph, graph.placeholder((1, 5, 6, 6)))
    steps = make_plan(graph, [net]).steps
    assert [(step.op, step.relu) for step in steps if step.op == "group_norm"] == [
        ("group_norm", True), ("group_norm", True), ("group_norm", False)
    ]  # fmt: skip
    steps = make_plan(graph, [net, end_points["preact"]]).steps
    assert [step.op for step in steps][:2] == ["group_norm", "relu"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"batch_norm_scale": False, "batch_norm_epsilon": 1e-3}], ids=str)
def test_the_bits_are_those_of_the_definitions(options: dict[str, Any], dtype: str) -> None:
    images = IMAGES.astype(dtype)
    expected = run(images, "reference", **options)
    assert expected["net"].std() > 0.1
    for threads in (1, 2, 8):
        assert_same_bits(run(images, threads=threads, **options), expected)


def test_is_training_makes_no_difference() -> None:
    assert_same_bits(run(IMAGES, is_training=True), run(IMAGES))


def test_an_image_has_the_same_bits_in_any_batch() -> None:
    expected = run(IMAGES)["net"]
    for part in ([0], [4], [3, 1], [2, 2, 0]):
        assert_same_bits(run(IMAGES[part]), {"net": expected[part]})


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_batch_in_parts_has_the_same_bits(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(IMAGES)
    # The values of the largest step, the second one.
    monkeypatch.setattr(refnet.run.cpu, "PART_BYTES_PER_THREAD", images * 9 * 8 * 4 * (6 + 32 + 32))
    assert_same_bits(run(IMAGES), expected)
