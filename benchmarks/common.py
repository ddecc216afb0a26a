"""What the benchmarks share: the machine, fair timing, and the form of a result file.

A result is a JSON object: ``benchmark``, ``case`` (what was measured), ``machine`` (where, when and by which version),
and ``rows``, by name, each with the minimum and the median in ``ms``. `benchmarks/compare.py` compares any two of them.
`benchmarks/results/` keeps one file per case in a folder per processor; `place_of` says which. The tables in the
documentation are made of these files by `tools/make_tables.py`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: Seconds before each inference. The threads of the engine before it spin for a while (ONNX Runtime's for 40 ms),
#: which would cost the next engine a core.
PAUSE = 0.05
#: The processor features for which kernels are written.
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
#: Processors by LLVM's names; any other is called as LLVM calls it.
PROCESSORS = {
    "znver1": "Zen 1", "znver2": "Zen 2", "znver3": "Zen 3", "znver4": "Zen 4", "znver5": "Zen 5",
    "haswell": "Haswell", "skylake": "Skylake", "skylake-avx512": "Skylake Server", "cascadelake": "Cascade Lake",
    "icelake-server": "Ice Lake", "sapphirerapids": "Sapphire Rapids", "emeraldrapids": "Emerald Rapids",
    "graniterapids": "Granite Rapids", "neoverse-n1": "Neoverse N1", "neoverse-v1": "Neoverse V1",
    "neoverse-v2": "Neoverse V2",
}  # fmt: skip


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
    """The day, the processor, its cores and its load, and the versions: of refnet, Python, and ``packages``.

    ``revision`` is a commit, with ``-dirty`` behind it if the source differs from it. ``target`` is there if the
    kernels were compiled for another processor, or for another width of vectors, than this machine's.
    """
    import llvmlite.binding as llvm  # no other engine's process imports refnet, or Numba

    from refnet_kernels.system.cores import count_cores
    from refnet_kernels.system.settings import setting

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", values.get("Features", "")).split()
    lanes = setting("REFNET_LANES")
    target = os.environ.get("NUMBA_CPU_NAME") or (lanes and f"{lanes} lanes")
    return {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "revision": _revision(),
        "cpu": values.get("model name", platform.processor() or platform.machine()),
        "processor": llvm.get_host_cpu_name(),
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": count_cores(),
        "caches": _caches(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("refnet", "numba", "llvmlite", "numpy", *packages)},
    } | ({"target": target} if target else {})


def _revision() -> str | None:
    """The last commit that changed the source; None outside of a repository."""
    source = ["--", "refnet", "kernels", "benchmarks", ":!benchmarks/results"]

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments, *source], cwd=ROOT, capture_output=True, text=True)

    try:
        commit = git("log", "-1", "--format=%h").stdout.strip()
        changed = git("diff", "--quiet", "HEAD")
    except OSError:
        return None
    return commit + "-dirty" * bool(changed.returncode) if commit else None


def _caches() -> dict[str, int]:
    """Bytes of the first core's caches of data, by level, as far as Linux says."""
    found = {}
    for place in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((place / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction" and re.fullmatch(r"\d+K", size):
            found[f"L{level}"] = int(size[:-1]) * 1024
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def folder_of(about: Mapping[str, Any]) -> str:
    """The folder of a machine's results: its GPU's name, or its processor's, for instance ``h200`` or ``zen4``."""
    if "device" in about:
        return str(about["device"]).split()[-1].lower()
    title = PROCESSORS.get(about["processor"], about["processor"])
    names = [re.sub(r"^Zen ", "Zen", title), *([f"for {about['target']}"] if "target" in about else [])]
    return re.sub(r"[ -]+", "_", " ".join(names)).lower()


def name_of(benchmark: str, case: Mapping[str, Any]) -> str:
    """The name of a case's file, without its folder."""
    parts = [benchmark, case.get("shapes", case.get("network")), case.get("size") if "network" in case else None]
    if case.get("output_stride") is not None:
        parts.append(f"os{case['output_stride']}")
    parts.append(case.get("batch"))
    if benchmark != "kernels" or case["threads"] > 1:
        parts.append(case.get("threads"))
    if case.get("zeros"):
        # Of a half, the usual share after a ReLU, the name does not say how many.
        parts.append("zeros" if case["zeros"] == 0.5 else f"zeros{100 * case['zeros']:g}")
    return "_".join(str(part) for part in parts if part is not None) + ".json"


def place_of(result: Mapping[str, Any]) -> Path:
    """Where a result belongs: ``benchmarks/results/<processor>/<case>.json``."""
    return RESULTS / folder_of(result["machine"]) / name_of(result["benchmark"], result["case"])


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--quick``, ``--output`` and ``--record``, which every benchmark has."""
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="a tiny case, to see that it runs")
    kind.add_argument(
        "--record", action="store_true", help="write it where it belongs: benchmarks/results/PROCESSOR/CASE.json"
    )


def write_result(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Write a result where the options say, if they do."""
    for path in (options.output, place_of(result) if options.record else None):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
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
