"""The memory of the values between the steps: one arena, in which values that live at different times share memory.

`parts_of` runs the first steps on a few images of a batch at a time, so the values between those steps stay in the
caches, and take memory for only a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from refnet.graph.plan import Plan, Step
from refnet_kernels.system.cores import share_of


class Parts(NamedTuple):
    """How a plan is run: its first steps once per range of images, then the others once for all images.

    Attributes
    ----------
    steps : int
        Number of steps that are run once per range.
    images : list of range
        All images, in order.
    between : set of int
        The values that only those steps use: each part's take the place of the last part's.
    """

    steps: int
    images: list[range]
    between: set[int]


#: All steps once for all images.
WHOLE = Parts(0, [], set())


def parts_of(plan: Plan, sizes: Mapping[int, int], weights: Callable[[Step], int], most: int) -> Parts:
    """Parts for steps whose values of one image take more memory than their weights.

    Such a step gains more by values that are still in the caches than it loses by weights that are read again.

    Parameters
    ----------
    plan : Plan
    sizes : mapping of int to int
        Bytes of each value, for one image.
    weights : callable
        Gives the bytes of a step's weights.
    most : int
        Bytes that a step's values may take, if a part has more than one image.

    Returns
    -------
    Parts
    """
    steps, largest = 0, 1
    for step in plan.steps:
        size = sum(sizes[value] for value in {*step.reads, *step.writes})
        # Statistics need the whole batch.
        if step.op == "batch_norm_training" or size <= weights(step):
            break
        steps, largest = steps + 1, max(largest, size)
    count = max(1, most // largest)
    if steps < 2 or count >= plan.batch:
        return WHOLE
    parts = -(-plan.batch // count)
    images = [share_of(plan.batch, part, parts) for part in range(parts)]
    first, last = plan.steps[:steps], plan.steps[steps:]
    between = {value for step in first for value in step.writes}
    between -= {value for step in last for value in step.reads} | plan.returned
    return Parts(steps, images, between)


def assign_slots(plan: Plan, sizes: Mapping[int, int], parts: Parts = WHOLE) -> tuple[dict[int, int], int]:
    """Give each value a place in one arena; values that live at different times may share it.

    A residual sum takes the place of its shortcut if no later step reads that: it then writes to memory that it has
    just read.

    Parameters
    ----------
    plan : Plan
    sizes : mapping of int to int
        Bytes of each value, the input included, for one image.
    parts : Parts, optional

    Returns
    -------
    offsets : dict
        Offset of each value in bytes, a multiple of 64.
    total : int
        Bytes of the arena.
    """
    last_use = _last_uses(plan)
    # Values that the parts find, or leave, live from the first part to the last.
    first = plan.steps[: parts.steps]
    lasting = {value for step in first for value in (*step.reads, *step.writes)} - parts.between
    last_use |= {value: max(last_use[value], parts.steps - 1) for value in lasting}
    longest = max(map(len, parts.images), default=0)
    live: list[tuple[int, int, int]] = []  # (offset, end, value)
    offsets: dict[int, int] = {}
    total = 0

    def place(value: int) -> None:
        nonlocal total
        images = longest if value in parts.between else plan.batch
        size = -(-images * sizes[value] // 64) * 64
        offset = 0
        for start, end, _ in sorted(live):
            if start - offset >= size:
                break
            offset = max(offset, end)
        offsets[value] = offset
        live.append((offset, offset + size, value))
        total = max(total, offset + size)

    # What no step writes is there before the first one: the images, and what else a plan may begin with.
    given = {value for step in plan.steps for value in step.reads} - {v for step in plan.steps for v in step.writes}
    for value in sorted({plan.input} | given | lasting):
        place(value)
    for position, step in enumerate(plan.steps):
        in_place = _in_place(step, last_use, position)
        for value in step.writes:
            if value in lasting:
                continue
            if value == step.out and in_place is not None:
                offsets[value] = offsets[in_place]
                live[:] = [(*entry[:2], value) if entry[2] == in_place else entry for entry in live]
            else:
                place(value)
        live[:] = [entry for entry in live if last_use.get(entry[2], -1) > position]
    return offsets, total


def _in_place(step: Step, last_use: Mapping[int, int], position: int) -> int | None:
    """The shortcut of a step, if the step's output may overwrite it."""
    shortcut = step.shortcut
    if shortcut is None or shortcut in step.inputs or last_use[shortcut] > position:
        return None
    return shortcut


def _last_uses(plan: Plan) -> dict[int, int]:
    """The position of the last step that reads each value; outputs are kept to the end."""
    last = {value: position for position, step in enumerate(plan.steps) for value in step.reads}
    return last | dict.fromkeys(plan.returned, len(plan.steps))
