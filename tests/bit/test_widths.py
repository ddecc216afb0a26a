"""BiT's widest networks, 101x3 and 152x4: whole as plans, since their kernels take 1.5 to 3.7 GB, and a unit as run."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

import refnet
from refnet.graph.fuse import make_plan
from refnet.graph.graph import ArgScope, Graph
from refnet.graph.memory import assign_slots, parts_of
from refnet.network.architecture import infer_architecture
from refnet.weights.homes import bit
from refnet_kernels.catalog import kernels_of
from refnet_kernels.contract import Flags, Target
from tests.bit.networks import GOOGLES_EPSILON, by_google, net_of
from tests.slim.networks import assert_is_the_truth
from tests.support.arrays import random_images
from tests.timm.networks import Description, TensorFlow, draw_state, run

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def of_width(width: int, units: tuple[int, ...], classes: int) -> Description:
    stages = tuple((64 * width * 2**i, count) for i, count in enumerate(units))
    return Description(stages, classes, grouped=True, epsilon=GOOGLES_EPSILON, root=64 * width)


#: Width, units, and parameters as published with 1000 classes.
WIDE = [(3, (3, 4, 23, 3), 387_934_888), (4, (3, 8, 36, 3), 936_533_224)]


@pytest.mark.parametrize(("width", "units", "parameters"), WIDE)
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_a_whole_network_is_planned(width: int, units: tuple[int, ...], parameters: int, backend: str) -> None:
    """With all channels, on images of 480 x 480; nothing is allocated."""
    description = of_width(width, units, 1000)
    shapes = description.shapes()
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    # Integers are not standardised: a later check refuses them.
    state = {name: np.broadcast_to(np.int8(1), shape) for name, shape in shapes.items()}
    named = bit.GOOGLE.read({name.removeprefix("resnet/"): value for name, value in by_google(state).items()})
    architecture = infer_architecture(named.tensors, stride_place="first_unit")
    assert architecture.scope == {3: "resnet_v2_101", 4: "resnet_v2_152"}[width]
    assert [(block.scope, list(block.args)) for block in architecture.blocks] == description.blocks()
    net, _ = architecture.trace(named.tensors, (1, 480, 480, 3), ArgScope(pool_mode="keras"), Graph)
    assert not net.graph.missing
    plan = make_plan(net.graph, [net])
    assert plan.shapes[plan.outputs[0]] == (1, 1000)
    ops = Counter(step.op for step in plan.steps)
    convolutions = 3 * sum(units) + 4 + 2
    assert (ops["conv"], ops["group_norm"]) == (convolutions, 3 * sum(units) + 1)
    for step in plan.steps:
        flags = Flags(step.relu, step.sum_relu, finite=True)
        for kernel in kernels_of(step.op, backend):
            kernel.launch(step.geometry, defaultdict(int), flags, Target(workers=2))
    sizes = {index: int(np.prod(shape[1:])) for index, shape in plan.shapes.items()}
    _, total = assign_slots(plan, sizes, parts_of(plan, sizes, lambda _: 0, 0))
    assert total < 2**31


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 4])
def test_the_widest_unit(width: int) -> None:
    """The last block's first unit, of 512 channels per width, behind the widest root; against TensorFlow's float64."""
    description = Description(((512 * width, 1),), 10, grouped=True, epsilon=GOOGLES_EPSILON, root=64 * width)
    state, images = draw_state(description, 1), random_images(1, 21, 21, 3, seed=2)
    truth = run(TensorFlow("float64"), description, state, images, "resnet_v2")["resnet_v2/logits"][:, 0, 0]
    weights = refnet.Weights(by_google(state))
    scale = np.abs(truth).max()
    assert np.abs(refnet.forward(weights, images, dtype="float64") - truth).max() < 1e-12 * scale
    # A sum has up to 9 * 2048 products, in runs of 64.
    assert np.abs(refnet.forward(weights, images) - truth).max() < 2.0**-24 * (64 + 9 * 2048 / 64) * scale


@pytest.mark.parametrize("width", [3, 4])
def test_a_small_network_of_a_width(width: int) -> None:
    """With the root of the width."""
    description = Description(((32, 1), (32 * width, 2)), 5, grouped=True, epsilon=GOOGLES_EPSILON, root=64 * width)
    state, images = draw_state(description, 1), random_images(1, 33, 40, 3, seed=2)
    truth = run(TensorFlow("float64"), description, state, images, "resnet_v2")
    assert_is_the_truth(net_of(description), refnet.Weights(by_google(state)), images, truth)
