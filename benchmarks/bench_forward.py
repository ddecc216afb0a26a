"""resnet_v2_50 against a TF-Slim session: checked first, then timed alternately in one run.

    uv run --group test benchmarks/bench_forward.py

Prints minima and medians of both and their ratios, the peak memory, and the time of a first call in a fresh process
with an empty and with a warm cache of compiled kernels; writes them as JSON with the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

import refnet
from benchmarks.common import (
    PAUSE,
    Case,
    add_output_options,
    alternate,
    lively,
    machine,
    relative_error,
    summary,
    write_result,
)
from benchmarks.slim import SlimNetwork
from tests.support.arrays import random_images

FIRST_CALL = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import refnet
from benchmarks.common import peak_rss_mb
weights = refnet.load_weights(sys.argv[1])
loaded = time.perf_counter()
image = np.load(sys.argv[2])[0]
logits = refnet.forward(weights, image, threads=int(sys.argv[3]))
done = time.perf_counter()
refnet.forward(weights, image, threads=int(sys.argv[3]))
again = time.perf_counter()
print(json.dumps({"load_s": loaded - start, "first_call_s": done - loaded, "second_call_s": again - done,
                  "peak_rss_mb": peak_rss_mb()}))
"""


def first_calls(weights: dict[str, np.ndarray], images: np.ndarray, threads: int) -> dict[str, dict[str, float]]:
    """A fresh process with an empty cache of compiled kernels, then one with the cache that it left."""
    with tempfile.TemporaryDirectory() as folder:
        refnet.save_weights(f"{folder}/weights.npz", weights)
        np.save(f"{folder}/images.npy", images)
        environment = {**os.environ, "REFNET_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-c", FIRST_CALL, f"{folder}/weights.npz", f"{folder}/images.npy", str(threads)]
        results = {}
        for name in ("empty cache", "warm cache"):
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            results[name] = json.loads(out)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    add_output_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.size, options.rounds = 64, 3

    result: dict[str, Any] = {"benchmark": "forward", "machine": machine(["tensorflow", "tf-slim"])}
    case = Case("resnet_v2_50", options.size, options.batch, options.threads, None, 1001)
    weights = lively(refnet.random_weights(case.network, num_classes=case.classes, seed=0))
    images = random_images(*case.shape)
    engine = refnet.Engine(weights, threads=case.threads)
    slim, slim64 = SlimNetwork(case), SlimNetwork(case, "float64")
    slim.assign(weights)
    slim64.assign(weights)

    truth = slim64.run(images)
    errors = {"refnet": relative_error(engine(images), truth), "TF-Slim": relative_error(slim.run(images), truth)}
    print("relative L2 error of the logits against float64:", {k: f"{v:.1e}" for k, v in errors.items()})
    # Both compute in binary32; an engine that is wrong is orders of magnitude away from this.
    if errors["refnet"] > 2 * errors["TF-Slim"]:
        sys.exit("refnet's logits are wrong; nothing is timed")

    runs = {"refnet": lambda: engine(images), "TF-Slim": lambda: slim.run(images)}
    alternate(runs, 3, PAUSE)
    ms = {name: summary(times) for name, times in alternate(runs, options.rounds, PAUSE).items()}
    result |= {
        "case": case._asdict(),
        "rounds": options.rounds,
        "rows": {name: {"ms": ms[name], "error": errors[name]} for name in runs},
        "ratio": {kind: ms["refnet"][kind] / ms["TF-Slim"][kind] for kind in ("min", "median")},
        "first": first_calls(weights, images, case.threads),
    }
    for name in runs:
        print(f"{name:8} min {ms[name]['min']:8.2f} ms   median {ms[name]['median']:8.2f} ms")
    print(f"ratio    min {result['ratio']['min']:8.2f}      median {result['ratio']['median']:8.2f}")
    for name, first in result["first"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in first.items()))
    write_result(options, result)


if __name__ == "__main__":
    main()
