"""The convolution with a copy of the inputs that are not 0, whatever this processor prefers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refnet_kernels.target import CAN_COMPACT

SCRIPT = """
import numpy as np

import refnet_kernels.conv.cpu as conv_cpu

conv_cpu.COMPACTS = True
from refnet_kernels.catalog import select
from tests.kernels.test_kernels import assert_launch_gives
from refnet_kernels.contract import ConvGeometry
from tests.problems.conv import ConvProblem, conv_problem

for dtype in map(np.dtype, ("float32", "float64")):
    problems = ConvProblem.named(dtype)
    for size, out, stride, rate in ((7, 7, 1, 1), (8, 8, 1, 3), (13, 7, 2, 1)):
        geometry = ConvGeometry(1, size, size, 128, out, out, 136, 3, 3, stride, rate, rate, rate)
        problem = conv_problem("taps that pixels share", geometry, "many zeros", "bias,relu", dtype=dtype)
        # Runs of every length, from none to all: of one vector, and of several.
        shares = np.random.default_rng(0).random(problem.x.shape[:-1])[..., None]
        problem.x[np.random.default_rng(1).random(problem.x.shape) < shares] = 0
        problems.append(problem)
    for problem in problems:
        assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), 3)
print("equal")
"""


@pytest.mark.skipif(not CAN_COMPACT, reason="needs AVX-512")
def test_a_copy_of_the_inputs_changes_no_bit() -> None:
    # The cache knows the sources, not what this test makes of them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": "off"}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["equal"], done.stderr
