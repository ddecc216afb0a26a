"""Problems of subsampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, SubsampleGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Problem, Truth, numbers
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class SubsampleProblem(Problem):
    op: ClassVar = "subsample"

    x: FloatArray
    factor: int

    @property
    def geometry(self) -> SubsampleGeometry:
        batch, height, width, channels = self.x.shape
        return SubsampleGeometry(batch, height, width, channels, self.factor)

    def call(self, kernel: Kernel) -> Arrays:
        return {"out": kernel.call(self.x, self.geometry)}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))

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
