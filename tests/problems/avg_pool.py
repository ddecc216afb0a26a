"""Problems of the average pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, PoolGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers
from tests.problems.pools import pool_cut_off, pool_keras, pool_same, vector_pool


@dataclass(frozen=True, eq=False)
class AvgPoolProblem(Problem):
    op: ClassVar = "avg_pool"

    x: FloatArray
    geometry: PoolGeometry

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        g = self.geometry
        window = ops.Window(g.stride, g.pad_top, g.pad_left)
        images = self.x.tolist()

        def at(place: Place) -> dict[str, float]:
            n, y, x, c = place
            return {"out": ops.avg_pool(f, images[n], g.window, window, bool(g.zero_padding), y, x, c)}

        return Truth((g.batch, g.out_height, g.out_width, g.channels), g.window**2, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> AvgPoolProblem:
        return cls(name, arrays["x"], vector_pool(integers))

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[AvgPoolProblem]:
        draw = partial(numbers, dtype=dtype)
        return [
            cls("cut off at the border", draw("normal", 1, 2, 9, 12, 65), pool_cut_off(2, 9, 12, 65)),
            cls("nearly special", draw("rarely special", 1, 1, 8, 7, 17), pool_same(1, 8, 7, 17, 3, 2)),
            cls("zeros count", draw("far from 0", 1, 2, 6, 5, 16), pool_keras(2, 6, 5, 16)),
            cls("windows outside", draw("huge", 1, 1, 2, 3, 6), PoolGeometry(1, 2, 3, 6, 3, 3, 2, 2, 3, 2)),
        ]
