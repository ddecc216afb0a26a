"""From the network's operations to the steps that kernels run, and the memory between them.

`fuse` joins operations that one kernel does in one go: a convolution with its bias, batch norm, ReLU, residual and the
ReLU of that sum, and with the ``preact`` of the next unit. The contract makes a fused step give the bits of its
operations one by one.
`assign_slots` lets values whose lifetimes do not meet share memory. `parts_of` has the first steps done for some images
of a batch after the others, so that what is between those steps stays in the caches, and takes memory for a few.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from refnet.graph import Graph, Tensor
from refnet_kernels.contract import ConvGeometry, PoolGeometry


class NormNames(NamedTuple):
    """The variables of a batch norm with stored statistics."""

    mean: str
    variance: str
    gamma: str | None
    beta: str
    epsilon: float

    @classmethod
    def of(cls, operation: Tensor | Step) -> NormNames:
        """The variables that a "batch_norm" operation, or a step of nothing else, names."""
        names = operation.variables
        return cls(
            names["moving_mean"], names["moving_variance"], names.get("gamma"), names["beta"], operation.geometry
        )


@dataclass
class Step:
    """One kernel's work. Values are named by their tensors' indices in the graph.

    ``out`` is the value after all of ``bias`` to ``sum_relu``; ``preact``, if any, is its batch norm ``next_norm``
    and ReLU. Either may be None where nobody reads it.
    """

    op: str
    inputs: list[int]
    out: int | None
    geometry: Any = None
    variables: Mapping[str, str] = field(default_factory=dict)
    bias: str | None = None
    norm: NormNames | None = None
    relu: bool = False
    shortcut: int | None = None
    sum_relu: bool = False
    next_norm: NormNames | None = None
    preact: int | None = None

    @property
    def reads(self) -> list[int]:
        """Every value that the step reads."""
        return self.inputs if self.shortcut is None else [*self.inputs, self.shortcut]

    @property
    def writes(self) -> list[int]:
        """Every value that the step writes."""
        return [value for value in (self.out, self.preact) if value is not None]


class Plan(NamedTuple):
    """Steps in order, the shape of each value, and the values to return.

    ``aliases`` maps a value that is another one under a new shape to that one.
    """

    input: int
    steps: list[Step]
    shapes: dict[int, tuple[int, ...]]
    outputs: list[int]
    aliases: dict[int, int]

    @property
    def batch(self) -> int:
        """The number of images."""
        return self.shapes[self.input][0]

    @property
    def returned(self) -> set[int]:
        """The values whose memory holds the outputs at the end."""
        return {self.aliases.get(value, value) for value in self.outputs}


def make_plan(graph: Graph, outputs: Collection[Tensor]) -> Plan:
    """The steps that compute ``outputs``, and nothing that they do not need."""
    needed = _needed(outputs)
    tensors = [tensor for tensor in graph.tensors if tensor.index in needed]
    aliases = {t.index: _root(t).index for t in tensors if t.op == "squeeze"}
    wanted = {_root(t).index for t in outputs}
    steps = fuse(tensors, wanted)
    shapes = {tensor.index: tensor.shape for tensor in tensors}
    return Plan(graph.tensors[0].index, steps, shapes, [t.index for t in outputs], aliases)


def _root(tensor: Tensor) -> Tensor:
    """The tensor whose memory this one shares."""
    return _root(tensor.inputs[0]) if tensor.op == "squeeze" else tensor


def _needed(outputs: Collection[Tensor]) -> set[int]:
    needed: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor.index not in needed:
            needed.add(tensor.index)
            waiting.extend(tensor.inputs)
    return needed


def fuse(tensors: list[Tensor], wanted: Collection[int]) -> list[Step]:
    """Join operations into steps, leaving every value of ``wanted`` in memory."""
    readers: dict[int, list[Tensor]] = {tensor.index: [] for tensor in tensors}
    for tensor in tensors:
        for source in tensor.inputs:
            readers[_root(source).index].append(tensor)
    fuser = _Fuser(readers, wanted)
    for tensor in tensors:
        if tensor.op not in ("input", "squeeze") and tensor.index not in fuser.done:
            fuser.add(tensor)
    return fuser.steps


class _Fuser:
    def __init__(self, readers: Mapping[int, list[Tensor]], wanted: Collection[int]) -> None:
        self.readers = readers
        self.wanted = wanted
        self.steps: list[Step] = []
        self.done: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Make the step that starts with ``tensor`` and takes in what may follow it."""
        inputs = [_root(source).index for source in tensor.inputs]
        step = Step(tensor.op, inputs, tensor.index, tensor.geometry, tensor.variables)
        self.done.add(tensor.index)
        last = tensor
        if tensor.op == "conv":
            last = self._take_in(step, last, ("bias_add", "batch_norm", "relu", "residual", "relu"))
        elif tensor.op in ("batch_norm", "batch_norm_training", "residual"):
            last = self._take_in(step, last, ("relu",))
        step.out = last.index
        if tensor.op in ("conv", "max_pool"):
            self._take_in_preact(step, last)
        self.steps.append(step)

    def _take_in(self, step: Step, last: Tensor, stages: tuple[str, ...]) -> Tensor:
        """Follow the only reader of each value, as long as the contract's order of an epilogue allows."""
        while stages:
            follower = self._only_reader(last)
            if follower is None or follower.op not in stages:
                return last
            if follower.op == "residual" and not self._take_in_shortcut(step, last, follower):
                return last
            if follower.op == "bias_add":
                step.bias = follower.variables["biases"]
            elif follower.op == "batch_norm":
                step.norm = NormNames.of(follower)
            elif follower.op == "relu" and step.shortcut is not None:
                step.sum_relu = True
            elif follower.op == "relu":
                step.relu = True
            stages = stages[stages.index(follower.op) + 1 :]
            self.done.add(follower.index)
            last = follower
        return last

    def _take_in_shortcut(self, step: Step, last: Tensor, add: Tensor) -> bool:
        shortcut, residual = (_root(source) for source in add.inputs)
        ready = shortcut.op == "input" or shortcut.index in self.done
        if residual is not last or shortcut is last or not ready:
            return False
        step.shortcut = shortcut.index
        return True

    def _take_in_preact(self, step: Step, last: Tensor) -> None:
        """Take in one batch norm and ReLU of the value, beside which the value itself may be read by others."""
        for norm in self.readers[last.index]:
            if norm.op != "batch_norm":
                continue
            relu = self._only_reader(norm)
            if relu is not None and relu.op == "relu":
                step.next_norm, step.preact = NormNames.of(norm), relu.index
                self.done |= {norm.index, relu.index}
                if len(self.readers[last.index]) == 1 and last.index not in self.wanted:
                    step.out = None
                return

    def _only_reader(self, tensor: Tensor) -> Tensor | None:
        readers = self.readers[tensor.index]
        return readers[0] if len(readers) == 1 and tensor.index not in self.wanted else None


class Parts(NamedTuple):
    """How a plan is run: its first steps once for each of some ranges of images, then the others for all images.

    Attributes
    ----------
    steps : int
        How many steps are run so.
    images : list of range
        All images, in order.
    between : set of int
        The values that only those steps have to do with: one part's take the place of another's.
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
        The bytes of a step's weights.
    most : int
        Bytes that a step's values may take, if there is more than one image in a part.
    """
    from refnet_kernels.team import share_of

    steps, largest = 0, 1
    for step in plan.steps:
        size = sum(sizes[value] for value in {*step.reads, *step.writes})
        # Statistics are those of the batch.
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


def for_images(step: Step, images: int) -> Step:
    """The step for so many images."""
    if isinstance(step.geometry, ConvGeometry | PoolGeometry):
        return replace(step, geometry=step.geometry._replace(batch=images))
    return step


def assign_slots(plan: Plan, sizes: Mapping[int, int], parts: Parts = WHOLE) -> tuple[dict[int, int], int]:
    """Give each value a place in one arena; values that live at different times may share it.

    A residual sum takes the place of its shortcut, where nobody else reads that: it then writes to memory that it has
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
        Where each value starts, a multiple of 64 bytes.
    total : int
        Bytes of the arena.
    """
    last_use = _last_uses(plan)
    # What the parts leave, or find, is there from the first part to the last.
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

    for value in sorted({plan.input} | lasting):
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
