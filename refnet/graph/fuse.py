"""Join operations that one kernel computes together.

A convolution takes in its bias, batch norm, ReLU, residual and the ReLU of that sum, and the ``preact`` of the next
unit. By the contract a fused step gives the same bits as its operations one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from refnet.graph.graph import Graph, Tensor
from refnet.graph.plan import NormNames, Plan, Step


def make_plan(graph: Graph, outputs: Collection[Tensor]) -> Plan:
    """The steps that compute ``outputs``, and nothing that they do not need."""
    needed = _needed(outputs)
    tensors = [tensor for tensor in graph.tensors if tensor.index in needed]
    aliases = {t.index: root_of(t).index for t in tensors if t.op == "squeeze"}
    wanted = {root_of(t).index for t in outputs}
    steps = fuse(tensors, wanted)
    shapes = {tensor.index: tensor.shape for tensor in tensors}
    return Plan(graph.tensors[0].index, steps, shapes, [t.index for t in outputs], aliases)


def root_of(tensor: Tensor) -> Tensor:
    """The tensor whose memory this one shares."""
    return root_of(tensor.inputs[0]) if tensor.op == "squeeze" else tensor


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
            readers[root_of(source).index].append(tensor)
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
        """Make the step that starts with ``tensor`` and takes in the operations that may follow."""
        inputs = [root_of(source).index for source in tensor.inputs]
        step = Step(tensor.op, inputs, tensor.index, tensor.geometry, tensor.variables)
        self.done.add(tensor.index)
        last = tensor
        if tensor.op == "batch_norm":
            step.norm = NormNames.of(tensor)
        if tensor.op == "conv":
            last = self._take_in(step, last, ("bias_add", "batch_norm", "relu", "residual", "relu"))
        elif tensor.op in ("batch_norm", "batch_norm_training", "group_norm", "residual"):
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
        shortcut, residual = (root_of(source) for source in add.inputs)
        ready = shortcut.op == "input" or shortcut.index in self.done
        if residual is not last or shortcut is last or not ready:
            return False
        step.shortcut = shortcut.index
        return True

    def _take_in_preact(self, step: Step, last: Tensor) -> None:
        """Take in one batch norm and ReLU of the value; other operations may still read the value itself."""
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
