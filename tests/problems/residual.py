"""Problems of a shortcut's addition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class ResidualProblem(Problem):
    op: ClassVar = "residual"

    shortcut: FloatArray
    x: FloatArray
    relu: bool

    def inputs(self) -> Arrays:
        return {"shortcut": self.shortcut, "x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(self.relu), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        def at(place: Place) -> dict[str, float]:
            total = f.add(self.shortcut[place].item(), self.x[place].item())
            return {"out": ops.relu(total) if self.relu else total}

        return Truth(self.x.shape, 1, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> ResidualProblem:
        return cls(name, arrays["shortcut"], arrays["x"], bool(integers.get("relu")))

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[ResidualProblem]:
        draw = partial(numbers, dtype=dtype)
        return [
            cls("several items", draw("normal", 1, 150_000), draw("special", 2, 150_000), False),
            cls("ReLU", draw("normal", 1, 1003), draw("rarely special", 2, 1003), True),
            cls("ReLU of special values", draw("special", 1, 300), draw("special", 2, 300), True),
        ]
