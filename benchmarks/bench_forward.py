"""resnet_v2_50 against a TF-Slim session: checked first, then timed alternately in one run.

    uv run --group test benchmarks/bench_forward.py

Prints minima and medians of both and their ratios, the peak memory, and the time of a first call in a fresh process
with an empty and with a warm cache of compiled kernels; writes them as JSON with the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

import refnet

ROOT = Path(__file__).resolve().parent.parent

FIRST_CALL = """
import json, resource, sys, time
start = time.perf_counter()
import numpy as np
import refnet
weights = refnet.load_weights(sys.argv[1])
loaded = time.perf_counter()
image = np.load(sys.argv[2])[0]
logits = refnet.forward(weights, image, threads=int(sys.argv[3]))
done = time.perf_counter()
refnet.forward(weights, image, threads=int(sys.argv[3]))
again = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"load_s": loaded - start, "first_call_s": done - loaded, "second_call_s": again - done,
                  "peak_rss_mb": peak}))
"""


def slim_session(variables: refnet.Weights, size: int, threads: int) -> tuple[Callable, Callable]:
    """A TF-Slim session of resnet_v2_50 with these weights, and its float64 twin's logits."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow.compat.v1 as tf
    import tf_keras.src.legacy_tf_layers.normalization as legacy
    from tensorflow.python.layers import normalization

    normalization.normalization = legacy  # tf_slim 1.1.0 looks for the module where a current TensorFlow has it no more
    import tf_slim as slim
    from tf_slim.nets import resnet_v2

    def build(dtype: tf.DType) -> Callable:
        graph = tf.Graph()
        with graph.as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
            images = tf.placeholder(dtype, [None, size, size, 3])
            logits, _ = resnet_v2.resnet_v2_50(images, 1001, is_training=False)
            session = tf.Session(
                config=tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
            )
            for variable in tf.global_variables():
                variable.load(variables[variable.op.name].astype(dtype.as_numpy_dtype), session)
            run = session.make_callable(logits, feed_list=[images])
        return lambda x: run(x.astype(dtype.as_numpy_dtype))[:, 0, 0, :]

    return build(tf.float32), build(tf.float64)


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def alternate(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each run, in turn, so that the machine's moods reach all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def first_calls(weights: refnet.Weights, images: np.ndarray, threads: int) -> dict[str, dict[str, float]]:
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


def machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {name: version(name) for name in ("refnet", "numba", "llvmlite", "numpy", "tensorflow", "tf_slim")}
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="a few rounds on small images, to see that it runs")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    options = parser.parse_args()
    if options.quick:
        options.size, options.rounds = 64, 3

    weights = refnet.random_weights("resnet_v2_50", num_classes=1001, seed=0)
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (options.batch, options.size, options.size, 3)).astype(np.float32)
    engine = refnet.Engine(weights, threads=options.threads)
    slim, slim64 = slim_session(weights, options.size, options.threads)

    truth = slim64(images)
    errors = {"refnet": relative_error(engine(images), truth), "TF-Slim": relative_error(slim(images), truth)}
    print("relative L2 error of the logits against float64:", {k: f"{v:.1e}" for k, v in errors.items()})
    # Both compute in binary32; an engine that is wrong is orders of magnitude away from this.
    if errors["refnet"] > 2 * errors["TF-Slim"]:
        sys.exit("refnet's logits are wrong; nothing is timed")

    runs = {"refnet": lambda: engine(images), "TF-Slim": lambda: slim(images)}
    alternate(runs, 3)
    times = alternate(runs, options.rounds)
    result = {
        "machine": machine(),
        "case": {"network": "resnet_v2_50", **{k: getattr(options, k) for k in ("size", "batch", "threads", "rounds")}},
        "error": errors,
        "ms": {name: {"min": min(t), "median": statistics.median(t)} for name, t in times.items()},
        "first": first_calls(weights, images, options.threads),
        "peak_rss_mb_of_this_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    result["ratio"] = {kind: result["ms"]["refnet"][kind] / result["ms"]["TF-Slim"][kind] for kind in ("min", "median")}
    for name, ms in result["ms"].items():
        print(f"{name:8} min {ms['min']:8.2f} ms   median {ms['median']:8.2f} ms")
    print(f"ratio    min {result['ratio']['min']:8.2f}      median {result['ratio']['median']:8.2f}")
    for name, first in result["first"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in first.items()))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
