"""Problems of the softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import BINARY32, Flags, FloatArray, ImageGeometry, Target
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers


@dataclass(frozen=True, eq=False)
class SoftmaxProblem(Problem):
    op: ClassVar = "softmax"

    x: FloatArray

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(ImageGeometry.of(self.x.shape), addresses, Flags(), Target(self.x.dtype))

    def exact(self, f: Format) -> Truth:
        def at(place: Place) -> dict[str, float]:
            return {"out": ops.softmax(f, self.x[place[:-1]].tolist())[place[-1]]}

        return Truth(self.x.shape, 40 * self.x.shape[-1], at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> SoftmaxProblem:
        return cls(name, arrays["x"])

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[SoftmaxProblem]:
        draw = partial(numbers, dtype=dtype)
        cases = [
            cls("several items", draw("normal", 1, 9, 1001) * dtype.type(20)),
            cls("special values", draw("special", 1, 40, 3)),
        ]
        return [*cases, cls("next to a tie", NEXT_TO_A_TIE)] if dtype == BINARY32 else cases


#: Logits whose softmax lies so close to the middle of two binary32 numbers that the last bit of the exp decides: found
#: by search, since of 10^10 random ones about one is such. The exp of the C library, one with fma, or one with a
#: coefficient fewer gives other bits here.
NEXT_TO_A_TIE = np.array(
    [
        [0, -0.3733517825603485, -1.7055180072784424],
        [0, -0.2654836177825928, -5.156560897827148],
        [0, -0.7415838837623596, -3.9887959957122803],
        [0, -1.0448946952819824, -6.82160758972168],
        [0, -1.520798683166504, -5.021670341491699],
        [0, -1.5358325242996216, -3.7070868015289307],
        [0, -2.567655086517334, -5.313163757324219],
        [0, -3.0248095989227295, -4.506378650665283],
        [0, -3.568624973297119, -6.601922035217285],
        [0, -5.300096035003662, -5.776457786560059],
        [0, -0.06171778589487076, -3.0526483058929443],
        [0, -1.0315377712249756, -5.3376264572143555],
        [0, -1.7314985990524292, -6.308123588562012],
        [0, -2.3848564624786377, -5.659251689910889],
    ],
    np.float32,
)
