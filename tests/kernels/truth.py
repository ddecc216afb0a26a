"""The check of a kernel's outputs against exact arithmetic, place by place."""

from __future__ import annotations

import math
import random

import numpy as np

from refnet_kernels.catalog import select
from tests.problems import Problem
from tests.problems.base import FORMATS, Place, Truth
from tests.support.arrays import Arrays

#: Exact operations that one check takes, about 20 ms; places beyond it are left to other draws.
BUDGET = 15_000


def _places(truth: Truth, seed: int) -> list[Place]:
    """The first place, the last one, and as many others as the budget allows."""
    size = math.prod(truth.shape)
    count = min(size, max(2, BUDGET // max(truth.operations, 100)))
    chosen = random.Random(seed).sample(range(size), count)
    if size:
        chosen[:2] = [0, size - 1]
    return [tuple(map(int, np.unravel_index(i, truth.shape))) for i in chosen]


def same(found: float, exact: float) -> bool:
    """The same number and sign, or both NaN."""
    if math.isnan(found) or math.isnan(exact):
        return math.isnan(found) and math.isnan(exact)
    return found == exact and math.copysign(1, found) == math.copysign(1, exact)


def solve(problem: Problem, backend: str) -> Arrays:
    """By a kernel as it is fused; by the reference one op after another."""
    return problem.defined() if backend == "reference" else problem.call(select(problem.op, backend))


def check(problem: Problem, backend: str, seed: int) -> None:
    """Hold a backend's outputs to exact arithmetic, at places that the seed chooses."""
    case = f"{problem.op} on {backend}, {problem.name!r}"
    found = solve(problem, backend)
    truth = problem.exact(FORMATS[problem.x.dtype])
    for name, array in found.items():
        assert (array.shape, array.dtype) == (truth.shape, problem.x.dtype), f"{case}: {name}"
    for place in _places(truth, seed):
        exact = truth.at(place)
        assert list(found) == list(exact), case
        for name, value in exact.items():
            other = found[name][place].item()
            assert same(other, value), f"{case}: {name}{list(place)} is {other.hex()}, exactly {value.hex()}"
