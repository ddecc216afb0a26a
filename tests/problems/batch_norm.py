"""Problems of batch norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, Norm, NormGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, exact_norm, norm, numbers, vector_norm
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class BatchNormProblem(Problem):
    op: ClassVar = "batch_norm"

    x: FloatArray
    norm: Norm
    relu: bool

    def inputs(self) -> Arrays:
        return {"x": self.x, **self.norm._asdict()}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(NormGeometry.of(self.x.shape), addresses, Flags(self.relu), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        def at(place: Place) -> dict[str, float]:
            value = ops.norm(f, self.x[place].item(), exact_norm(self.norm, place[-1]))
            return {"out": ops.relu(value) if self.relu else value}

        return Truth(self.x.shape, 2, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> BatchNormProblem:
        statistics = vector_norm(arrays)
        assert statistics is not None
        return cls(name, arrays["x"], statistics, bool(integers["relu"]))

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[BatchNormProblem]:
        draw, draw_norm = partial(numbers, dtype=dtype), partial(norm, dtype=dtype)
        return [
            cls("several items", draw("normal", 1, 2, 33, 35, 65), draw_norm("normal", 2, 65), True),
            cls("no ReLU", draw("rarely special", 1, 2, 3, 5, 17), draw_norm("special", 2, 17), False),
        ]
