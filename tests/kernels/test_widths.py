"""The same bits whatever the processor: each vector width, and no feature beyond the architecture's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from problems import NAMED, digest

SCRIPT = """
from problems import NAMED, digest
from refnet_kernels.catalog import select
from refnet_kernels.target import LANES
print(LANES, digest([problem.call(select(problem.op, "cpu")) for problem in NAMED]))
"""


@pytest.mark.parametrize(
    ("environment", "lanes"),
    [
        ({"REFNET_LANES": "4"}, "4"),
        ({"REFNET_LANES": "8"}, "8"),
        ({"REFNET_LANES": "16"}, "16"),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, "4"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_every_target_gives_the_bits_of_the_definitions(environment: dict[str, str], lanes: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "REFNET_CACHE": "off", **environment}
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout
    assert output.split() == [lanes, digest([problem.defined() for problem in NAMED])]
