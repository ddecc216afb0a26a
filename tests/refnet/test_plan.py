"""Steps and memory: nothing lost, nothing overwritten before it is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import digest, post_activation_unit, post_activation_weights, random_images, small_blocks

from refnet.graph import ArgScope, Graph
from refnet.plan import Plan, assign_slots, make_plan
from refnet.resnet_v2 import network_blocks, resnet_v2


def plan_of(wanted: list[int] | None = None, network: str | None = None, is_training: bool = False) -> Plan:
    graph = Graph({}, ArgScope(is_training=is_training))
    blocks = network_blocks(network) if network else small_blocks()
    net, end_points = resnet_v2(graph.placeholder((2, 64, 64, 3)), blocks, 7)
    names = list(end_points)
    return make_plan(graph, [net, *(end_points[names[i % len(names)]] for i in wanted or [])])


@given(wanted=st.lists(st.integers(0, 99), max_size=6), is_training=st.booleans())
def test_every_value_is_written_once_before_it_is_read(wanted: list[int], is_training: bool) -> None:
    plan = plan_of(wanted, is_training=is_training)
    written = {plan.input}
    for step in plan.steps:
        assert set(step.reads) <= written
        assert not set(step.writes) & written
        written |= set(step.writes)
    assert {plan.aliases.get(index, index) for index in plan.outputs} <= written


@given(wanted=st.lists(st.integers(0, 99), max_size=6), is_training=st.booleans())
def test_no_value_shares_memory_with_one_that_is_still_needed(wanted: list[int], is_training: bool) -> None:
    """Played through with names in place of numbers: each read finds the value that was written."""
    plan = plan_of(wanted, is_training=is_training)
    sizes = {index: int(np.prod(shape)) for index, shape in plan.shapes.items()}
    offsets, total = assign_slots(plan, sizes)
    memory = np.full(total, -1)

    def place(index: int) -> slice:
        return slice(offsets[index], offsets[index] + sizes[index])

    memory[place(plan.input)] = plan.input
    for step in plan.steps:
        # A kernel reads its shortcut just before it writes the sum, which may go to the same place.
        in_place = step.shortcut is not None and step.out is not None and place(step.out) == place(step.shortcut)
        if in_place:
            assert step.shortcut not in step.inputs
            assert (memory[place(step.shortcut)] == step.shortcut).all()
        # Otherwise the writes come first: a kernel may write its output while it still reads its input.
        for index in step.writes:
            memory[place(index)] = index
        for index in step.inputs if in_place else step.reads:
            assert (memory[place(index)] == index).all()
    for index in plan.outputs:
        root = plan.aliases.get(index, index)
        assert (memory[place(root)] == root).all()
    assert all(offset % 64 == 0 for offset in offsets.values())


def test_residual_sums_take_the_place_of_their_shortcuts() -> None:
    """In resnet_v2_50 all that are read again: 16 units, of which 4 give nothing but the next one's preact."""
    plan = plan_of(network="resnet_v2_50")
    offsets, _ = assign_slots(plan, {index: 4 * int(np.prod(shape)) for index, shape in plan.shapes.items()})
    sums = [step for step in plan.steps if step.shortcut is not None and step.out is not None]
    assert len(sums) == 12
    assert all(offsets[step.out] == offsets[step.shortcut] for step in sums)


def test_a_unit_is_three_convolutions_and_a_shortcut() -> None:
    """conv1 and pool1, 16 units of 3 convolutions, 4 projected and 3 subsampled shortcuts, mean and logits."""
    plan = plan_of(network="resnet_v2_50")
    assert [step.op for step in plan.steps].count("conv") == 1 + 16 * 3 + 4 + 1
    assert sorted({step.op for step in plan.steps}) == ["conv", "max_pool", "mean", "subsample"]
    assert len(plan.steps) == 1 + 1 + 16 * 3 + 4 + 3 + 1 + 1


def test_a_wanted_value_is_not_fused_away() -> None:
    graph = Graph({})
    net, end_points = resnet_v2(graph.placeholder((1, 64, 64, 3)), small_blocks(), 7)
    conv3 = end_points["resnet_v2/block1/unit_1/bottleneck_v2/conv3"]
    plan = make_plan(graph, [net, conv3])
    assert "residual" in {step.op for step in plan.steps}
    assert conv3.index in {index for step in plan.steps for index in step.writes}


def test_the_relu_of_a_sum_belongs_to_the_convolution_before_it() -> None:
    graph = Graph({})
    net = post_activation_unit(graph.placeholder((1, 5, 6, 3)))
    plan = make_plan(graph, [net])
    assert [(step.op, step.relu, step.sum_relu) for step in plan.steps] == [
        ("conv", False, False),
        ("conv", True, False),
        ("conv", False, True),
    ]


def test_the_relu_of_a_sum_that_follows_no_convolution_belongs_to_the_sum() -> None:
    graph = Graph({}, ArgScope(is_training=True))
    plan = make_plan(graph, [post_activation_unit(graph.placeholder((1, 5, 6, 3)))])
    assert (plan.steps[-1].op, plan.steps[-1].relu) == ("residual", True)


@pytest.mark.parametrize("is_training", [False, True])
def test_the_relu_of_a_sum_is_the_same_fused_or_not(is_training: bool) -> None:
    images = random_images(2, 5, 6, 3)
    options = {"variables": post_activation_weights(), "is_training": is_training}
    fused, defined = (post_activation_unit(images, device=device, **options) for device in ("cpu", "reference"))
    assert 0.2 < (fused == 0).mean() < 0.8
    assert fused.min() == 0
    assert digest(fused) == digest(defined)
