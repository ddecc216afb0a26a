"""The same bits whatever should not matter: ``matrix.py`` here and in processes of every kind, and one hash."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.refnet import matrix

ROOT = Path(__file__).parent.parent.parent

#: Processors whose machine code this one runs, as Numba's variables name them. Without its features spelled out,
#: "generic" has on x86-64 no FMA and no AVX: fma comes from the C library.
PROCESSORS = {
    "x86_64": {"host": None, "haswell": "+avx2,+fma", "generic": ""},
    "aarch64": {"host": None, "cortex-a57": "", "generic": ""},
}.get(platform.machine(), {"host": None})
LANES = ("4", "8", "16")
CACHES = ("off", "cold", "warm")
STARTS = ("itself", "fork", "spawn")

FULL = list(itertools.product(PROCESSORS, LANES, CACHES, STARTS))
#: Nine rows in which any two values of two columns meet once (an orthogonal array).
PAIRS = [
    (processor, LANES[j], CACHES[(i + j) % 3], STARTS[(i + 2 * j) % 3])
    for i, processor in enumerate(PROCESSORS)
    for j in range(3)
]


@pytest.fixture(scope="module")
def expected() -> str:
    """The hash that the definitions have."""
    return matrix.sha256("reference")


def run(environment: dict[str, str], *arguments: str) -> dict[str, str]:
    """What a process with this environment prints, by the columns' names."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_CPU", "REFNET_"))}
    output = subprocess.run(
        [sys.executable, "-m", "tests.refnet.matrix", *arguments],
        env={**inherited, "PYTHONPATH": path, **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout
    return dict(zip(matrix.COLUMNS, output.strip(" |\n").split(" | "), strict=True))


@pytest.mark.parametrize("options", matrix.OPTIONS, ids=str)
def test_threads_batch_position_and_layout(options: dict) -> None:
    matrix.check_variations(options, full=True)


def test_every_result_has_the_bits_of_the_definitions() -> None:
    found = matrix.results("cpu")
    matrix.check_definitions(found)
    matrix.check_tunings(found)


@pytest.mark.parametrize(
    ("processor", "lanes", "cache", "start"),
    [pytest.param(*cell, marks=() if cell in PAIRS else pytest.mark.slow) for cell in FULL],
)
def test_processes(processor: str, lanes: str, cache: str, start: str, expected: str, tmp_path: Path) -> None:
    if processor == "haswell" and not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this processor does not run Haswell's instructions")
    features = PROCESSORS[processor]
    environment = {"REFNET_LANES": lanes, "REFNET_CACHE": "off" if cache == "off" else str(tmp_path / "cache")}
    if features is not None:
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    # The first process of a warm cache fills it; what may vary is varied in the one that finds its files.
    processes = [["--only-hash"]] if cache == "warm" else []
    processes.append([] if start == "itself" else ["--starts", start])
    for arguments in processes:
        found = run(environment, *arguments)
        assert found["SHA-256"] == expected
        assert found["lanes"] == lanes
        assert processor in ("host", found["processor"])
