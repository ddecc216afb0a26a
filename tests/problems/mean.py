"""Problems of the global mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers


@dataclass(frozen=True, eq=False)
class MeanProblem(Problem):
    op: ClassVar = "mean"

    x: FloatArray

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        batch, height, width, channels = self.x.shape
        pixels = self.x.reshape(batch, height * width, channels)

        def at(place: Place) -> dict[str, float]:
            return {"out": ops.mean(f, pixels[place[0], :, place[-1]].tolist())}

        return Truth((batch, 1, 1, channels), height * width, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> MeanProblem:
        return cls(name, arrays["x"])

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[MeanProblem]:
        largest = np.finfo(dtype).max
        return [
            cls("several items", numbers("normal", 1, 2, 7, 7, 600, dtype=dtype)),
            cls("overflow, in binary32 of a sum alone", np.full((1, 4, 4, 3), largest * dtype.type(0.9))),
        ]
