"""What the benchmarks share: the machine, fair timing, and the form of a result file.

A result is a JSON object: ``benchmark``, ``case`` (what was measured), ``machine``, and ``rows``, by name, each with
the minimum and the median in ``ms``. `benchmarks/compare.py` compares any two of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
#: Seconds before each inference. The threads of the engine before it spin for a while (ONNX Runtime's for 40 ms),
#: which would cost the next engine a core.
PAUSE = 0.05
#: The processor features for which kernels are written.
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


class Case(NamedTuple):
    """What is computed: logits, or with ``classes`` None the dense features of a segmentation network."""

    network: str
    size: int
    batch: int
    threads: int
    output_stride: int | None
    classes: int | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The images' shape."""
        return self.batch, self.size, self.size, 3

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of TF-Slim's function and of refnet's."""
        return {
            "num_classes": self.classes,
            "global_pool": self.classes is not None,
            "output_stride": self.output_stride,
        }


def lively(weights: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights with batch norms and biases that do something, and values that stay near 1 in a deep network.

    The stored results were measured on these weights. The tests' and `refnet.seeded`'s have other shares of zeros after
    a ReLU, and with them other times.
    """
    generator = np.random.default_rng(seed)
    result = {}
    for name, value in weights.items():
        leaf = name.rsplit("/", 1)[-1]
        if name.endswith("conv3/weights"):
            # Without the statistics of a trained network, each unit would add more than its input.
            result[name] = (value / 3).astype(np.float32)
        elif leaf == "weights":
            result[name] = value
        elif leaf in ("gamma", "moving_variance"):
            result[name] = (value * np.exp(generator.standard_normal(value.shape) / 4)).astype(np.float32)
        else:
            result[name] = (value + generator.standard_normal(value.shape) / 4).astype(np.float32)
    return result


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """The L2 norm of the difference, divided by that of the truth; the mean over the images."""
    pairs = zip(found, truth, strict=True)
    return float(np.mean([np.linalg.norm(image - exactly) / np.linalg.norm(exactly) for image, exactly in pairs]))


def alternate(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    pause: float = 0.0,
    progress: Callable[[int], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of each run, in turn, so that the machine's changes of speed affect all equally.

    Parameters
    ----------
    runs : mapping of str to callable
    rounds : int
    pause : float
        Seconds before each run, in which the threads of the run before may go to sleep.
    progress : callable, optional
        Called with the number of each finished round.
    clock : callable
        Gives seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for done in range(rounds):
        for name, run in runs.items():
            time.sleep(pause)
            start = clock()
            run()
            times[name].append((clock() - start) * 1e3)
        if progress is not None:
            progress(done + 1)
    return times


def summary(times: Iterable[float]) -> dict[str, float]:
    """The minimum, the median and the 99th percentile, the ``ms`` of a result."""
    values = list(times)
    return {"min": min(values), "median": statistics.median(values), "p99": float(np.percentile(values, 99))}


def peak_rss_mb() -> float:
    """The most memory that this process itself has held, in MiB.

    ``ru_maxrss`` survives ``exec``: in a child it starts at its parent's memory.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """The processor, its cores and its load, and the versions of Python, refnet's own packages and ``packages``."""
    from refnet_kernels.system.cores import count_cores  # no other engine's process imports refnet

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", values.get("Features", "")).split()
    return {
        "cpu": values.get("model name", platform.processor() or platform.machine()),
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": count_cores(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("refnet", "numba", "llvmlite", "numpy", *packages)},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--quick`` and ``--output``, which every benchmark has."""
    parser.add_argument("--quick", action="store_true", help="a tiny case, to see that it runs")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")


def write_result(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result, if a file is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


def read_result(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """A result file; the program ends with the parser's error if it is not one."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"{path} cannot be read: {error}")
    if not isinstance(result, dict) or not {"benchmark", "case", "machine", "rows"} <= result.keys():
        parser.error(f"{path} is not the result of a benchmark.")
    return result
