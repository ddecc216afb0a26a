"""The PTX of every CUDA kernel, run on the CPU, gives the bits of its definition, and breaks no rule on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from checked_device import CheckedDevice, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import DRAWN, NAMED, Problem, assert_same_bits

from refnet_kernels.catalog import rows, select

OPS = [op for op, backend in rows() if backend == "cuda"]
#: Of the device: as many as an H100 has, and so few that even small problems get the largest tile.
PROCESSORS = [132, 1]


@pytest.fixture(params=PROCESSORS, ids=lambda n: f"{n} processors")
def device(request: pytest.FixtureRequest, built: Path, monkeypatch: pytest.MonkeyPatch) -> CheckedDevice:
    device = CheckedDevice(built, processors=request.param)
    use(device, monkeypatch)
    return device


@pytest.mark.parametrize("problem", [p for p in NAMED if p.op in OPS], ids=lambda p: f"{p.op}-{p.name}")
def test_named_problems(problem: Problem, device: CheckedDevice) -> None:
    assert_same_bits(problem.call(select(problem.op, "cuda")), problem.defined())


@pytest.mark.parametrize("op", OPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_drawn_problems(op: str, device: CheckedDevice, data: st.DataObject) -> None:
    problem = data.draw(DRAWN[op])
    assert_same_bits(problem.call(select(op, "cuda")), problem.defined())
