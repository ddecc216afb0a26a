"""Steps and memory: nothing lost, nothing overwritten before it is read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refnet.graph.fuse import make_plan
from refnet.graph.graph import ArgScope, Graph
from refnet.graph.memory import WHOLE, assign_slots, parts_of
from refnet.graph.plan import Plan, Step
from refnet.network.resnet_v2 import network_blocks, resnet_v2
from tests.support.arrays import digest, random_images
from tests.support.nets import post_activation_unit, post_activation_weights, small_blocks


def plan_of(
    wanted: list[int] | None = None, network: str | None = None, is_training: bool = False, batch: int = 2
) -> Plan:
    graph = Graph({}, ArgScope(is_training=is_training))
    blocks = network_blocks(network) if network else small_blocks()
    net, end_points = resnet_v2(graph.placeholder((batch, 64, 64, 3)), blocks, 7)
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


def until(plan: Plan, stop: int) -> Callable[[Step], int]:
    """Weights that outweigh a step's values from the step of that number on."""
    return lambda step: 0 if any(step is other for other in plan.steps[:stop]) else 10**9


@given(
    wanted=st.lists(st.integers(0, 99), max_size=6),
    is_training=st.booleans(),
    batch=st.integers(1, 5),
    stop=st.integers(0, 20),
    images=st.integers(1, 3),
)
def test_no_value_shares_memory_with_one_that_is_still_needed(
    wanted: list[int], is_training: bool, batch: int, stop: int, images: int
) -> None:
    """Played through with names in place of numbers: each read finds the value that was written."""
    plan = plan_of(wanted, is_training=is_training, batch=batch)
    sizes = {index: int(np.prod(shape[1:])) for index, shape in plan.shapes.items()}
    largest = max(sum(sizes[v] for v in {*step.reads, *step.writes}) for step in plan.steps[: max(stop, 1)])
    parts = parts_of(plan, sizes, until(plan, stop), images * largest)
    offsets, total = assign_slots(plan, sizes, parts)
    memory = np.full(total, -1)

    def place(index: int, images: range) -> slice:
        first = 0 if index in parts.between else images.start
        return slice(*(offsets[index] + sizes[index] * i for i in (first, first + len(images))))

    def content(index: int, images: range) -> np.ndarray:
        return np.repeat(100 * index + np.array(images), sizes[index])

    def check(index: int, images: range) -> None:
        assert (memory[place(index, images)] == content(index, images)).all()

    def run(step: Step, images: range) -> None:
        # A kernel reads its shortcut just before it writes the sum, which may go to the same place.
        in_place = step.shortcut is not None and step.out is not None and offsets[step.out] == offsets[step.shortcut]
        if in_place:
            assert step.shortcut not in step.inputs
            check(step.shortcut, images)
        # Otherwise the writes come first: a kernel may write its output while it still reads its input.
        for index in step.writes:
            memory[place(index, images)] = content(index, images)
        for index in step.inputs if in_place else step.reads:
            check(index, images)

    everything = range(batch)
    memory[place(plan.input, everything)] = content(plan.input, everything)
    for some in parts.images:
        for step in plan.steps[: parts.steps]:
            run(step, some)
    for step in plan.steps[parts.steps :]:
        run(step, everything)
    for index in plan.outputs:
        check(plan.aliases.get(index, index), everything)
    assert all(offset % 64 == 0 for offset in offsets.values())


def test_parts_are_of_the_steps_whose_values_outweigh_their_weights() -> None:
    plan = plan_of(network="resnet_v2_50", batch=7)
    sizes = {index: 4 * int(np.prod(shape[1:])) for index, shape in plan.shapes.items()}
    needs = [sum(sizes[index] for index in {*step.reads, *step.writes}) for step in plan.steps]
    parts = parts_of(plan, sizes, until(plan, 9), 2 * max(needs[:9]))
    assert parts.steps == 9
    assert parts.images == [range(1), range(1, 3), range(3, 5), range(5, 7)]
    read_later = {index for step in plan.steps[9:] for index in step.reads}
    assert parts.between == {index for step in plan.steps[:9] for index in step.writes} - read_later
    assert parts_of(plan, sizes, until(plan, 9), 7 * max(needs[:9])) == WHOLE
    assert parts_of(plan, sizes, until(plan, 1), 0) == WHOLE
    # What is equal in weight gains nothing.
    heavy = plan.steps[4]
    assert parts_of(plan, sizes, lambda step: needs[4] if step is heavy else 0, 0).steps == 4
    assert parts_of(plan, sizes, lambda step: needs[4] - 1 if step is heavy else 0, 0).steps > 4


def test_statistics_of_a_batch_are_never_those_of_a_part() -> None:
    plan = plan_of(is_training=True, batch=3)
    parts = parts_of(plan, dict.fromkeys(plan.shapes, 1), lambda step: 0, 1)
    assert parts.images == [range(1), range(1, 2), range(2, 3)]
    assert [step.op for step in plan.steps].index("batch_norm_training") == parts.steps


def test_residual_sums_take_the_place_of_their_shortcuts() -> None:
    """In resnet_v2_50 all that are read again: 16 units, of which 4 give nothing but the next one's preact."""
    plan = plan_of(network="resnet_v2_50")
    offsets, _ = assign_slots(plan, {index: 4 * int(np.prod(shape[1:])) for index, shape in plan.shapes.items()})
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
