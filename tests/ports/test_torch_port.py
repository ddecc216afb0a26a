"""The port to PyTorch: the network without mistakes, and with each mistake what the port to TensorFlow gives."""

from functools import partial

import numpy as np
import pytest

from tests.ports.agreement import VERSIONS, disagreements, outputs, problem
from tests.ports.torch_port import LEFT_OUT, run
from tests.slim import error_bound

pytest.importorskip("torch")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pool_mode", ["slim", "keras", "torch"])
def test_the_port_without_mistakes_computes_the_network(version: int, pool_mode: str) -> None:
    net, variables, x = problem(version)
    net = net.replace(pool_mode=pool_mode)
    got = run(variables, x, net, dtype="float64")
    bounds = error_bound.end_points(net, variables, x, precision=error_bound.BINARY64)
    assert set(bounds) == set(got)
    for path, expected in bounds.items():
        assert np.abs(got[path] - expected.value).max() <= 2.0**9 * expected.bound.max(), path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [{}, {"channels_last": True}, {"onednn": False}], ids=str)
def test_it_agrees_with_the_port_to_tensorflow(version: int, options: dict[str, bool]) -> None:
    assert disagreements(outputs(partial(run, **options), version, LEFT_OUT), version) == []
