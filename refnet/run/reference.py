"""Run a plan by the NumPy definitions, one operation at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnet.graph.plan import Plan, Step
from refnet.resources import check_room
from refnet.run.constants import Constants
from refnet_kernels.catalog import select
from refnet_kernels.contract import FloatArray, GroupNormGeometry, ImageGeometry, Norm, NormGeometry
from refnet_kernels.system.float_mode import contract_mode


class ReferenceExecutor:
    """Each operation by its NumPy definition, nothing fused. Slow; meant for small networks and for checks."""

    def __init__(self, plan: Plan, constants: Constants, dtype: np.dtype[Any]) -> None:
        self._plan = plan
        self._constants = constants
        self._dtype = dtype
        images = plan.shapes[plan.input]
        # All values stay to the end.
        each = dtype.itemsize * sum(math.prod(shape[1:]) for shape in plan.shapes.values())
        check_room(each, f"Images of shape {images}", images[0])

    @contract_mode()
    def run(self, images: FloatArray, stream: None = None) -> tuple[list[FloatArray], tuple[float, float] | None]:
        """The plan's outputs, and the least and the largest pixel."""
        values = {self._plan.input: images.copy()}
        for step in self._plan.steps:
            self._run_step(step, values)
        outputs = []
        for index in self._plan.outputs:
            value = values[self._plan.aliases.get(index, index)]
            outputs.append(value.reshape(self._plan.shapes[index]).copy())
        return outputs, (float(images.min()), float(images.max())) if images.size else None

    def _run_step(self, step: Step, values: dict[int, FloatArray]) -> None:
        inputs = [values[index] for index in step.inputs]
        value = self._operation(step, inputs)
        norm = self._norm(step, inputs[0])
        if norm is not None:
            value = self._call("batch_norm", value, norm, step.relu)
        elif step.relu:
            value = np.where(value < 0, self._dtype.type(0), value)
        if step.shortcut is not None:
            value = self._call("residual", values[step.shortcut], value, step.sum_relu)
        if step.out is not None:
            values[step.out] = value
        if step.preact is not None and step.next_norm is not None:
            next_norm = self._constants.norm(step.next_norm, self._dtype)
            values[step.preact] = self._call("batch_norm", value, next_norm, True)

    def _operation(self, step: Step, inputs: list[FloatArray]) -> FloatArray:
        """The first operation of a step; of a batch norm, its input."""
        if step.op == "conv":
            bias = None if step.bias is None else self._variable(step.bias)
            return self._call("conv", inputs[0], self._variable(step.variables["weights"]), step.geometry, bias)
        if isinstance(step.geometry, NormGeometry):
            return inputs[0]
        if isinstance(step.geometry, GroupNormGeometry):
            names, g = step.variables, step.geometry
            gamma = self._variable(names["gamma"]) if "gamma" in names else None
            return self._call("group_norm", inputs[0], gamma, self._variable(names["beta"]), g.groups, g.epsilon, False)
        # An array knows its own sizes.
        known = isinstance(step.geometry, ImageGeometry)
        return self._call(step.op, *inputs) if known else self._call(step.op, *inputs, step.geometry)

    def _norm(self, step: Step, x: FloatArray) -> Norm | None:
        """The step's batch norm: with stored statistics, or with those of the batch."""
        if step.norm is not None:
            return self._constants.norm(step.norm, self._dtype)
        if not isinstance(step.geometry, NormGeometry):
            return None
        names = step.variables
        gamma = self._variable(names["gamma"]) if "gamma" in names else None
        mean, scale = select("batch_statistics", "reference").call(x, gamma, step.geometry.epsilon)
        return Norm(mean, scale, self._variable(names["beta"]))

    def _variable(self, name: str) -> FloatArray:
        value: FloatArray = self._constants.variable(name).astype(self._dtype)
        return value

    def _call(self, op: str, *arguments: Any) -> FloatArray:
        result: FloatArray = select(op, "reference").call(*arguments)
        return result
