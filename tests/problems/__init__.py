"""Problems: what an op is given, and what it must give by its definition. Every backend gets the same ones.

A file per op has how its problems are made and solved: by the definitions in NumPy, one op after another; in exact
arithmetic, place by place; by a kernel's ``call``; and by its ``launch``, over memory of the test's own. What
Hypothesis draws is in ``strategies.py``, apart from what the benchmarks use.
"""

from __future__ import annotations

from tests.problems.avg_pool import AvgPoolProblem
from tests.problems.base import DTYPES, HOST_ROWS, Problem, identity, in_binary32
from tests.problems.batch_norm import BatchNormProblem
from tests.problems.batch_statistics import StatisticsProblem
from tests.problems.conv import ConvProblem
from tests.problems.group_norm import GroupNormProblem
from tests.problems.max_pool import MaxPoolProblem
from tests.problems.mean import MeanProblem
from tests.problems.residual import ResidualProblem
from tests.problems.softmax import SoftmaxProblem
from tests.problems.subsample import SubsampleProblem

__all__ = ["DTYPES", "HOST_ROWS", "NAMED", "PROBLEMS", "Problem", "identity", "in_binary32"]

PROBLEMS: dict[str, type[Problem]] = {
    problem.op: problem
    for problem in (
        ConvProblem,
        BatchNormProblem,
        StatisticsProblem,
        SubsampleProblem,
        ResidualProblem,
        MaxPoolProblem,
        AvgPoolProblem,
        MeanProblem,
        SoftmaxProblem,
        GroupNormProblem,
    )
}

#: In this order ``tests/refnet/matrix.py`` hashes their results.
NAMED: list[Problem] = [case for dtype in DTYPES for problem in PROBLEMS.values() for case in problem.named(dtype)]
