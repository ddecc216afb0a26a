"""Problems of a batch's own mean and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, NormGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class StatisticsProblem(Problem):
    op: ClassVar = "batch_statistics"
    outputs: ClassVar = ("mean", "scale")

    x: FloatArray
    gamma: FloatArray | None
    epsilon: float

    def inputs(self) -> Arrays:
        return {"x": self.x} if self.gamma is None else {"x": self.x, "gamma": self.gamma}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(NormGeometry.of(self.x.shape, self.epsilon), addresses, Flags(), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        pixels = self.x.reshape(-1, self.x.shape[-1])

        def at(place: Place) -> dict[str, float]:
            gamma = None if self.gamma is None else self.gamma[place].item()
            values = pixels[:, place[0]].tolist()
            return dict(zip(self.outputs, ops.batch_statistics(f, values, gamma, self.epsilon), strict=True))

        return Truth(self.x.shape[-1:], 4 * len(pixels), at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> StatisticsProblem:
        return cls(name, arrays["x"], arrays.get("gamma"), arrays["epsilon"].item())

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[StatisticsProblem]:
        draw = partial(numbers, dtype=dtype)
        return [
            cls("several items", draw("normal", 1, 2, 9, 7, 200), draw("normal", 2, 200), 1e-5),
            cls("far from 0", draw("far from 0", 1, 2, 9, 7, 30), draw("normal", 2, 30), 1e-5),
            cls("no gamma", draw("rarely special", 1, 3, 5, 7, 3), None, 1e-3),
            cls("no images", draw("normal", 1, 0, 5, 7, 3), None, 1e-3),
        ]
