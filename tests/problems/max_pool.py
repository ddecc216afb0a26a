"""Problems of the max pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, Norm, PoolGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import (
    Place,
    Problem,
    Truth,
    definition,
    exact_norm,
    norm,
    numbers,
    packed_norm,
    vector_norm,
)
from tests.problems.pools import pool_keras, pool_same, vector_pool
from tests.support.arrays import Arrays


@dataclass(frozen=True, eq=False)
class MaxPoolProblem(Problem):
    op: ClassVar = "max_pool"
    outputs: ClassVar = ("out", "preact")

    x: FloatArray
    geometry: PoolGeometry
    next_norm: Norm | None = None

    def defined(self) -> Arrays:
        out = definition("max_pool", self.x, self.geometry)
        if self.next_norm is None:
            return {"out": out}
        return {"out": out, "preact": definition("batch_norm", out, self.next_norm, True)}

    def inputs(self) -> Arrays:
        return {"x": self.x} | packed_norm("next_", self.next_norm)

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        g = self.geometry
        window = ops.Window(g.stride, g.pad_top, g.pad_left)
        images = self.x.tolist()

        def at(place: Place) -> dict[str, float]:
            n, y, x, c = place
            m = ops.max_pool(images[n], g.window, window, bool(g.zero_padding), y, x, c)
            if self.next_norm is None:
                return {"out": m}
            return {"out": m, "preact": ops.preact(f, m, exact_norm(self.next_norm, c))}

        return Truth((g.batch, g.out_height, g.out_width, g.channels), g.window**2, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> MaxPoolProblem:
        return cls(name, arrays["x"], vector_pool(integers), vector_norm(arrays, "next_"))

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[MaxPoolProblem]:
        draw, draw_norm = partial(numbers, dtype=dtype), partial(norm, dtype=dtype)
        return [
            cls("pool1", draw("normal", 1, 2, 12, 13, 64), pool_same(2, 12, 13, 64, 3, 2), draw_norm("normal", 3, 64)),
            cls("special values", draw("special", 1, 1, 9, 9, 17), pool_same(1, 9, 9, 17, 3, 2)),
            cls("zeros win", -abs(draw("normal", 1, 2, 12, 13, 64)), pool_keras(2, 12, 13, 64)),
            cls("special values, zeros", draw("special", 1, 1, 9, 9, 17), pool_keras(1, 9, 9, 17)),
            cls("zeros of both signs", -draw("zeros and ones", 1, 1, 5, 6, 17), pool_keras(1, 5, 6, 17)),
        ]
