"""Problems of group norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np

from refnet_kernels.catalog import Kernel
from refnet_kernels.contract import Flags, FloatArray, GroupNormGeometry, Target
from refnet_kernels.cpu.layout import pack_channels
from refnet_kernels.cpu.team import Launch
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.problems.base import Place, Problem, Truth, numbers
from tests.support.arrays import Arrays


def cancelling(x: FloatArray, groups: int) -> FloatArray:
    """Images with large numbers in each group that cancel: what the others leave in a sum depends on its order.

    Elsewhere sums of binary32 numbers in binary64 are often exact, and the same in any order.
    """
    batch, height, width, channels = x.shape
    each = channels // groups
    count = height * width * each
    group = x.reshape(batch, height * width, groups, each).swapaxes(1, 2).reshape(batch, groups, count)
    pairs = count // 4
    large = group[..., : 2 * pairs : 2] * x.dtype.type(2.0**40)
    group[..., : 2 * pairs : 2], group[..., count - pairs :] = large, -large
    return np.ascontiguousarray(group.reshape(batch, groups, height * width, each).swapaxes(1, 2)).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class GroupNormProblem(Problem):
    op: ClassVar = "group_norm"

    x: FloatArray
    gamma: FloatArray | None
    beta: FloatArray
    groups: int
    epsilon: float
    relu: bool

    @property
    def geometry(self) -> GroupNormGeometry:
        return GroupNormGeometry.of(self.x.shape, self.groups, self.epsilon)

    def inputs(self) -> Arrays:
        values = {"gamma": self.gamma, "beta": self.beta}
        return {"x": self.x} | {name: pack_channels(array) for name, array in values.items() if array is not None}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        return kernel.launch(self.geometry, addresses, Flags(self.relu), Target(self.x.dtype, workers=3))

    def exact(self, f: Format) -> Truth:
        each = self.geometry.group_channels

        @cache
        def statistics(image: int, channel: int) -> tuple[float, float]:
            first = channel // each * each
            # The group's channels, each [height][width].
            group = np.moveaxis(self.x[image, ..., first : first + each], -1, 0).tolist()
            gamma = None if self.gamma is None else self.gamma[channel].item()
            return ops.group_statistics(f, group, gamma, self.epsilon)

        def at(place: Place) -> dict[str, float]:
            norm = ops.Norm(*statistics(place[0], place[-1]), self.beta[place[-1]].item())
            value = ops.norm(f, self.x[place].item(), norm)
            return {"out": ops.relu(value) if self.relu else value}

        _, height, width, _ = self.x.shape
        return Truth(self.x.shape, 5 * height * width * each, at)

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> GroupNormProblem:
        groups, relu = integers["groups"], bool(integers["relu"])
        return cls(name, arrays["x"], arrays.get("gamma"), arrays["beta"], groups, arrays["epsilon"].item(), relu)

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> list[GroupNormProblem]:
        draw = partial(numbers, dtype=dtype)

        def case(
            name: str, kind: str, shape: tuple[int, ...], groups: int, relu: bool = False, epsilon: float = 1e-5
        ) -> GroupNormProblem:
            # Far from 0 only the images are: gamma and beta would hide what becomes of them.
            gamma, beta = (draw("normal", seed, shape[-1]) for seed in (2, 3))
            return cls(name, draw(kind, 1, *shape), gamma, beta, groups, epsilon, relu)

        constant = case("a constant group", "normal", (1, 2, 3, 8), 4)
        constant.x[..., 2:4] = dtype.type(0.1)
        order = case("the order of the sums", "normal", (1, 5, 3, 72), 8)
        order = replace(order, x=cancelling(order.x, 8), beta=np.zeros(72, dtype))
        no_gamma = cls("no gamma", draw("normal", 1, 2, 3, 4, 6), None, draw("normal", 3, 6), 3, 1e-3, False)
        return [
            case("several items", "normal", (2, 5, 4, 192), 32, relu=True),
            case("groups wider than an item", "normal", (1, 3, 2, 300), 2),
            case("many rows", "normal", (1, 35, 2, 64), 8),
            case("wide groups of many rows", "normal", (1, 10, 1, 64), 2),
            case("far from 0", "far from 0", (2, 7, 9, 12), 3),
            case("huge", "huge", (1, 3, 5, 8), 2),
            case("tiny, no epsilon", "tiny", (1, 3, 5, 8), 2, epsilon=0.0),
            case("special values", "rarely special", (3, 7, 5, 70), 35, relu=True),
            case("a pixel, and a channel to a group", "normal", (2, 1, 1, 9), 9),
            case("one group", "normal", (2, 3, 4, 5), 1),
            constant,
            order,
            no_gamma,
            case("no images", "normal", (0, 5, 7, 4), 2),
        ]
