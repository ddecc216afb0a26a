"""Processes of every kind, of which each must print the hash that the definitions have."""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from pathlib import Path

import llvmlite.binding as llvm

from tests.refnet import matrix
from tests.refnet.test_matrix import CACHES, LANES, PROCESSORS, STARTS, run
from tests.reliability.figures import Row


def processes(minutes: float) -> Row:
    """Cells of processor, lanes, cache and start, in an order by chance, until the time is over."""
    expected, end = matrix.sha256("reference"), time.monotonic() + 60 * minutes
    cells = list(itertools.product(PROCESSORS, LANES, CACHES, STARTS))
    if not llvm.get_host_cpu_features().get("avx2"):
        cells = [cell for cell in cells if cell[0] != "haswell"]
    random.Random(0).shuffle(cells)
    done = 0
    for processor, lanes, cache, start in cells:
        with tempfile.TemporaryDirectory() as folder:
            environment = {"REFNET_LANES": lanes, "REFNET_CACHE": "off" if cache == "off" else str(Path(folder) / "c")}
            if (features := PROCESSORS[processor]) is not None:
                environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
            for _ in range(2 if cache == "warm" else 1):
                found = run([] if start == "itself" else [start], environment)["SHA-256"]
                assert found == expected, f"{processor}, {lanes} lanes, cache {cache}, by {start}: {found}"
        done += 1
        if time.monotonic() > end:
            break
    return Row(f"processor x lanes x cache x start: cells of {len(cells)}", done, f"one hash, `{expected[:12]}...`")


def variations(options: list[dict[str, object]]) -> Row:
    for chosen in options:
        matrix.check_variations(chosen, full=True)
    count = len(options) * len(matrix.THREADS) * len(matrix.PARTS) * len(matrix.LAYOUTS)
    return Row("threads x images of the batch x layout, for several options", count, "the same bits")


def short() -> list[Row]:
    # ``tests/refnet/test_matrix.py`` has every option, and nine of the processes.
    return [variations(matrix.OPTIONS[:1])]


def long(minutes: float) -> list[Row]:
    return [variations(matrix.OPTIONS), processes(minutes)]
