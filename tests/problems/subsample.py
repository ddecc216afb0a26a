"""Problems of subsampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import FloatArray
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Problem, Truth, numbers


@dataclass(frozen=True, eq=False)
class SubsampleProblem(Problem):
    op: ClassVar = "subsample"

    x: FloatArray
    factor: int

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(*self.x.shape, self.factor, addresses, self.x.dtype)

    def exact(self, f: Format) -> Truth:
        batch, height, width, channels = self.x.shape
        images = self.x.tolist()
        shape = (batch, math.ceil(height / self.factor), math.ceil(width / self.factor), channels)
        return Truth(shape, 1, lambda place: {"out": ops.subsample(images[place[0]], self.factor, *place[1:])})

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> SubsampleProblem:
        return cls(name, arrays["x"], integers["factor"])

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[SubsampleProblem]:
        return [
            cls("several items", numbers("special", 1, 2, 7, 9, 33, dtype=dtype), 2),
            cls("no images", numbers("special", 1, 0, 7, 9, 33, dtype=dtype), 2),
        ]
