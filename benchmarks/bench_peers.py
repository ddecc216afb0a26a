"""A whole network in refnet and in other engines: checked first, then timed in turn.

    uv run --group bench benchmarks/bench_peers.py [--size 321 --output-stride 8 --classes none] [--plot bars.png]

All engines get the same random weights and images. First comes the relative L2 error of each against TF-Slim in
binary64, then rounds with one inference of each. Last come fresh processes, also in turn, with warm caches: medians of
the time from the start to the first output, and of the peak memory. A loop of FMAs in registers takes turns with them,
with as many FMAs as the convolutions have products inside the image: the floor for engines that compute them all.
refnet leaves out products with zeros, so its time depends on the weights and images; the share of zeros is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import refnet
from benchmarks import peers
from benchmarks.common import (
    PAUSE,
    ROOT,
    Case,
    add_output_options,
    alternate,
    lively,
    machine,
    relative_error,
    summary,
    write_result,
)
from benchmarks.models import network_graph, share_of_zeros
from benchmarks.peers import PEERS, Opened
from benchmarks.plots import check_plot, save_bars
from benchmarks.slim import SlimNetwork
from refnet.benchmark.work import products_inside
from refnet_kernels.cpu.measure import FmaPeak
from tests.support.arrays import random_images

WARM_UP = 3
#: Fresh processes per engine.
FRESH = 5
#: The largest error allowed, in multiples of that of TF-Slim's own binary32. Half precision rounds 2**13 times as
#: coarsely: this is the middle between the two, in powers of 2, and no order of sums comes near it.
LARGEST_ERROR = 2**6.5


def _classes(text: str) -> int | None:
    return None if text == "none" else int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet_v2_50", choices=["resnet_v2_50", "resnet_v2_101", "resnet_v2_152"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output-stride", type=int, choices=[4, 8, 16, 32])
    parser.add_argument("--classes", type=_classes, default=1001, help='a number, or "none": dense features')
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), help="by default all that are installed")
    parser.add_argument("--plot", type=Path, help="where to write the figure with the bars")
    add_output_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.size, options.rounds = 64, 2
    for option in ("size", "batch", "threads", "rounds"):
        if getattr(options, option) < 1:
            parser.error(f"--{option} is {getattr(options, option)}; it is 1 or more.")
    missing = [PEERS[name].package for name in options.peers or () if not PEERS[name].installed]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}; `uv run --group bench` installs every peer.")
    if not PEERS["tf-slim"].installed:
        parser.error(
            "the truth is TF-Slim's binary64, but tf-slim is not installed; `uv run --group bench` installs it."
        )
    if options.plot is not None:
        check_plot(parser, options.plot)
    return options


def _chosen(asked: list[str] | None) -> list[str]:
    """refnet, then the chosen peers, or all that are installed."""
    names = list(dict.fromkeys(["refnet", *(asked or PEERS)]))
    for name in names:
        if not PEERS[name].installed:
            print(f"{PEERS[name].title} is left out: {PEERS[name].package} is not installed.")
    return [name for name in names if PEERS[name].installed]


def _open_all(
    names: list[str], case: Case, weights: Mapping[str, np.ndarray], images: np.ndarray, folder: Path
) -> dict[str, Opened]:
    """Write the files that the engines read, and open the engines."""
    (folder / "case.json").write_text(json.dumps(case._asdict()))
    np.save(folder / "images.npy", images)
    for name in names:
        PEERS[name].write(case, weights, folder / PEERS[name].file)
    return {name: PEERS[name].open(case, folder / PEERS[name].file) for name in names}


def _errors(
    opened: Mapping[str, Opened], case: Case, weights: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, float]:
    """The relative L2 error of each engine, and of TF-Slim, against TF-Slim's binary64."""
    exact = SlimNetwork(case, "float64")
    exact.assign(weights)
    truth = exact.run(images)
    errors = {name: relative_error(e.read(e.run(e.feed(images))), truth) for name, e in opened.items()}
    if "tf-slim" not in errors:
        slim = SlimNetwork(case)
        slim.assign(weights)
        errors["tf-slim"] = relative_error(slim.run(images), truth)
    return errors


def check_errors(errors: Mapping[str, float]) -> None:
    """End the program if an engine computes another function, or not in binary32."""
    allowed = LARGEST_ERROR * errors["tf-slim"]
    wrong = [f"{PEERS[name].title} ({error:.1e})" for name, error in errors.items() if not error <= allowed]
    if wrong:
        sys.exit(f"Nothing is timed: errors beyond {allowed:.1e} are not binary32's: {', '.join(wrong)}.")


def _fresh_processes(names: list[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each engine's fresh processes, run in turn; each turn starts with another engine.

    A first turn that does not count leaves warm caches of files, of kernels and of Python's bytecode.
    """
    turns = [names[first:] + names[:first] for first in (turn % len(names) for turn in range(1 + rounds))]
    found = [{name: _fresh_process(name, folder) for name in turn} for turn in turns][1:]
    keys = ("first_output_s", "peak_rss_mb")
    return {name: {key: statistics.median(turn[name][key] for turn in found) for key in keys} for name in names}


def _fresh_process(name: str, folder: Path) -> dict[str, float]:
    """A process that does one inference: seconds from its start to the first output, and its memory."""
    command = [sys.executable, peers.__file__, name, str(folder), repr(time.monotonic())]
    # With a cache of bytecode, as is Python's default, whatever the settings of this process are.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(f"A fresh process with {PEERS[name].title} failed:\n{process.stderr}")
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def _time(opened: Mapping[str, Opened], images: np.ndarray, rounds: int, peak: FmaPeak) -> dict[str, list[float]]:
    fed = {name: engine.feed(images) for name, engine in opened.items()}
    runs = {name: lambda engine=engine, x=fed[name]: engine.run(x) for name, engine in opened.items()}
    runs["peak"] = peak.run
    alternate(runs, WARM_UP, PAUSE)
    # Drawn between the rounds, not by a thread of its own during a measurement.
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("rounds", total=rounds)
        return alternate(runs, rounds, PAUSE, lambda done: progress.update(task, completed=done, refresh=True))


def _peak(case: Case, weights: Mapping[str, np.ndarray]) -> FmaPeak:
    """As many FMAs in registers as the network's convolutions need, without the zeros outside the image."""
    geometries = [tensor.geometry for tensor in network_graph(case, weights)[0] if tensor.op == "conv"]
    return FmaPeak.of(case.threads, 2 * sum(map(products_inside, geometries)))


def _table(case: Case, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    title = ", ".join(f"{key} {value}" for key, value in case._asdict().items() if value is not None)
    table = Table(title=title, title_justify="left")
    table.add_column("engine")
    columns = ("min ms", "p50 ms", "p99 ms", "refnet / it, min", "p50", "error", "first output s", "peak MiB")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        ms, ratio = row["ms"], row["refnet_ratio"]
        cells = [
            f"{ms['min']:.1f}",
            f"{ms['median']:.1f}",
            f"{ms['p99']:.1f}",
            f"{ratio['min']:.2f}",
            f"{ratio['median']:.2f}",
        ]
        cells += [f"{row['error']:.1e}", f"{row['first_output_s']:.2f}", f"{row['peak_rss_mb']:.0f}"]
        table.add_row(name, *cells, style="bold" if name == "refnet" else None)
    return table


def main() -> None:
    options = _arguments()
    case = Case(*(getattr(options, field) for field in Case._fields))
    names = _chosen(options.peers)
    result: dict[str, Any] = {
        "benchmark": "peers",
        "case": case._asdict(),
        "rounds": options.rounds,
        "machine": machine(PEERS[name].package for name in names if name != "refnet"),
    }
    weights = lively(refnet.random_weights(case.network, num_classes=case.classes, seed=0))
    images = random_images(*case.shape)
    result["zeros"] = share_of_zeros(case, weights, images)
    with tempfile.TemporaryDirectory() as folder:
        opened = _open_all(names, case, weights, images, Path(folder))
        errors = _errors(opened, case, weights, images)
        print("relative L2 error:", ", ".join(f"{PEERS[name].title} {error:.1e}" for name, error in errors.items()))
        check_errors(errors)
        times = _time(opened, images, options.rounds, _peak(case, weights))
        result["floor_ms"] = summary(times.pop("peak"))
        fresh = _fresh_processes(names, Path(folder), 1 if options.quick else FRESH)
        ms = {name: summary(values) for name, values in times.items()}
        result["rows"] = {
            PEERS[name].title: {
                "ms": ms[name],
                "refnet_ratio": {kind: ms["refnet"][kind] / ms[name][kind] for kind in ("min", "median")},
                "error": errors[name],
                "settings": PEERS[name].settings,
                **fresh[name],
            }
            for name in names
        }
    Console(width=120).print(_table(case, result["rows"]))
    floor = result["floor_ms"]
    print(f"the convolutions at the FMA peak: {floor['min']:.1f} ms at its best, {floor['median']:.1f} at its median")
    print(f"products with zeros: {result['zeros']:.0%}")
    write_result(options, result)
    if options.plot is not None:
        save_bars([result], options.plot)


if __name__ == "__main__":
    main()
