"""Run a plan by the NumPy definitions, an operation at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.graph.plan import NormNames, Plan, Step
from refnet.run.compiled import Look, Variables, norm_of
from refnet_kernels.catalog import select
from refnet_kernels.contract import FloatArray, Norm


class ReferenceExecutor:
    """Each operation by its NumPy definition, nothing fused. Slow; for small networks and for doubts."""

    def __init__(self, plan: Plan, variables: Variables, dtype: np.dtype[Any]) -> None:
        self._plan = plan
        self._variables = variables
        self._dtype = dtype

    def run(self, images: FloatArray, stream: None = None, look: Look | None = None) -> list[FloatArray]:
        """The plan's outputs."""
        if look:
            look(images.min(), images.max())
        values = {self._plan.input: images.copy()}
        for step in self._plan.steps:
            self._run_step(step, values)
        outputs = []
        for index in self._plan.outputs:
            value = values[self._plan.aliases.get(index, index)]
            outputs.append(value.reshape(self._plan.shapes[index]).copy())
        return outputs

    def _run_step(self, step: Step, values: dict[int, FloatArray]) -> None:
        inputs = [values[index] for index in step.inputs]
        value = self._operation(step, inputs)
        if step.norm is not None:
            value = self._call("batch_norm", value, self._norm(step.norm), step.relu)
        elif step.relu and step.op == "conv":
            value = np.where(value < 0, self._dtype.type(0), value)
        if step.shortcut is not None:
            value = self._call("residual", values[step.shortcut], value, step.sum_relu)
        if step.out is not None:
            values[step.out] = value
        if step.preact is not None and step.next_norm is not None:
            values[step.preact] = self._call("batch_norm", value, self._norm(step.next_norm), True)

    def _operation(self, step: Step, inputs: list[FloatArray]) -> FloatArray:
        names = step.variables
        if step.op == "conv":
            bias = None if step.bias is None else self._variable(step.bias)
            return self._call("conv", inputs[0], self._variable(names["weights"]), step.geometry, bias)
        if step.op == "batch_norm_training":
            gamma = self._variable(names["gamma"]) if "gamma" in names else None
            mean, scale = select("batch_statistics", "reference").call(inputs[0], gamma, step.geometry)
            return self._call("batch_norm", inputs[0], Norm(mean, scale, self._variable(names["beta"])), step.relu)
        if step.op in ("subsample", "max_pool", "avg_pool"):
            return self._call(step.op, inputs[0], step.geometry)
        if step.op == "batch_norm":
            return self._call("batch_norm", inputs[0], self._norm(NormNames.of(step)), step.relu)
        if step.op == "residual":
            return self._call("residual", *inputs, step.relu)
        return self._call(step.op, *inputs)

    def _variable(self, name: str) -> FloatArray:
        value: FloatArray = self._variables[name].astype(self._dtype)
        return value

    def _norm(self, names: NormNames) -> Norm:
        return norm_of(names, self._variables, self._dtype)

    def _call(self, op: str, *arguments: Any) -> FloatArray:
        result: FloatArray = select(op, "reference").call(*arguments)
        return result
