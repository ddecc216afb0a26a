"""Group norm against ``slim.group_norm`` in float64."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from refnet.graph.graph import GROUPS, ArgScope, Graph
from refnet.run.compute import compute
from tests.problems.base import numbers
from tests.slim.error_bound import BINARY32, BINARY64, exact, group_norm, relu
from tests.support.tensorflow import quiet, tf_slim

PRECISIONS = {"float32": BINARY32, "float64": BINARY64}


class Case(NamedTuple):
    """A group norm of images of a kind."""

    shape: tuple[int, int, int, int]
    groups: int = GROUPS
    epsilon: float = 1e-5
    scale: bool = True
    relu: bool = False
    kind: str = "normal"

    def images(self) -> np.ndarray:
        return numbers(self.kind, 1, *self.shape)

    def variables(self) -> dict[str, np.ndarray]:
        roles = ["beta", "gamma"] if self.scale else ["beta"]
        return {f"GroupNorm/{role}": numbers("normal", 2 + i, self.shape[-1]) for i, role in enumerate(roles)}


@cache
def slim(case: Case) -> np.ndarray:
    """What tf_slim gives in float64; its variables have the names of refnet's."""
    lib = tf_slim()
    variables = case.variables()
    graph = lib.tf.Graph()
    with quiet(), graph.as_default():
        images = lib.tf.placeholder("float64", case.shape)
        activation = lib.tf.nn.relu if case.relu else None
        net = lib.slim.group_norm(
            images, case.groups, scale=case.scale, epsilon=case.epsilon, activation_fn=activation, scope="GroupNorm"
        )
        found = {v.op.name: v for v in graph.get_collection(lib.tf.GraphKeys.GLOBAL_VARIABLES)}
        assert found.keys() == variables.keys()
        with lib.tf.Session() as session:
            for name, variable in found.items():
                variable.load(variables[name].astype(np.float64), session)
            result: np.ndarray = session.run(net, {images: case.images().astype(np.float64)})
    return result


def refnet(case: Case, dtype: str, device: str) -> np.ndarray:
    """What refnet gives."""
    graph = Graph(case.variables(), ArgScope(batch_norm_epsilon=case.epsilon, batch_norm_scale=case.scale))
    net = graph.group_norm(graph.placeholder(case.shape), "GroupNorm", case.groups)
    result: np.ndarray = compute(graph, case.images().astype(dtype), graph.relu(net) if case.relu else net, device)
    return result


def check(case: Case, dtype: str, device: str = "cpu") -> None:
    """The truth is within tf_slim's roundings of tf_slim, and refnet within the contract's roundings of the truth."""
    variables, precision = case.variables(), PRECISIONS[dtype]
    truth = group_norm(
        exact(case.images(), precision),
        variables.get("GroupNorm/gamma"),
        variables["GroupNorm/beta"],
        case.groups,
        case.epsilon,
    )
    truth = relu(truth) if case.relu else truth
    found = refnet(case, dtype, device)
    assert found.dtype == dtype
    assert (np.abs(found - truth.value) <= truth.bound).all()
    expected = slim(case)
    assert (np.abs(expected - truth.value) <= slim_bound(case)).all()


def slim_bound(case: Case) -> Any:
    """How far tf_slim in float64 may lie from the truth.

    It computes ``x * gain + (beta - mean * gain)``: four roundings of terms whose sizes are those of the sum at most,
    of a mean and of a gain that themselves have the roundings of a sum over the group.
    """
    batch, height, width, channels = case.shape
    x = case.images().astype(np.longdouble).reshape(batch, height, width, case.groups, -1)
    count = x[0, :, :, 0].size
    variables = case.variables()
    variance = x.var((1, 2, 4), keepdims=True)
    gain = np.abs(variables.get("GroupNorm/gamma", np.ones(channels))).reshape(case.groups, -1)
    gain = gain / np.sqrt(variance + case.epsilon)
    # Of the mean, and of the variance, whose root has half of its relative error.
    sizes = np.abs(x).mean((1, 2, 4), keepdims=True)
    terms = (count + 8) * 2.0**-53
    spread = (np.abs(x) + sizes) * gain * terms * (1 + (np.abs(x) + sizes) / np.sqrt(variance + case.epsilon))
    return spread.reshape(case.shape) + np.abs(variables["GroupNorm/beta"]) * terms


CASES = {
    "the networks' groups": Case((2, 7, 5, 64), relu=True),
    "a channel to a group": Case((2, 3, 4, 32)),
    "one number to a group": Case((2, 1, 1, 32)),
    "one group": Case((2, 5, 3, 6), groups=1),
    "no gamma": Case((1, 4, 6, 12), groups=3, scale=False, epsilon=1e-3),
    "far from 0": Case((1, 9, 8, 12), groups=4, kind="far from 0"),
    "small integers": Case((1, 2, 2, 12), groups=6, kind="small integers"),
}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_group_norm(case: Case, device: str, dtype: str) -> None:
    check(case, dtype, device)
