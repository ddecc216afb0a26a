"""What the compiler is told of the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GENERIC = {"NUMBA_CPU_NAME": "generic"}


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_CPU", "REFNET_"))}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-c", "from refnet_kernels.target import LANES; print(LANES)"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("environment", "lanes"),
    [
        (GENERIC, "4"),
        ({**GENERIC, "NUMBA_CPU_FEATURES": "+avx2,+fma"}, "8"),
        ({**GENERIC, "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx512f"}, "16"),
        ({**GENERIC, "REFNET_LANES": "16"}, "16"),
        ({"REFNET_LANES": "4"}, "4"),
    ],
    ids=str,
)
def test_the_lanes_follow_the_features_unless_they_are_given(environment: dict[str, str], lanes: str) -> None:
    assert run(environment).stdout.split() == [lanes]


def test_no_other_number_of_lanes() -> None:
    assert "REFNET_LANES is '5'; it can be 4, 8 or 16" in run({"REFNET_LANES": "5"}).stderr
