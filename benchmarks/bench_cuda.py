"""A network on a CUDA device: its bits are compared with the CPU's first, then it is timed.

    uv run --extra cuda benchmarks/bench_cuda.py [--network resnet_v2_50] [--batches 1 8 32 64]

``forward`` is the whole call, with images and logits on their way; ``device`` is the sum of the launches by the
device's own events. The launches of small batches take longer to issue than to run, which ``device`` then includes.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

import refnet
from benchmarks.common import add_output_options, alternate, lively, machine, random_images, summary, write_result
from refnet.plan import Step
from refnet_kernels.gpu.device import missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet_v2_50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--rounds", type=int, default=30)
    add_output_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.size, options.batches, options.rounds = 33, [2], 3
    reason = missing()
    if reason is not None:
        sys.exit(f"Nothing is timed, as there is no CUDA device: {reason}.")

    weights = lively(refnet.random_weights(options.network, num_classes=1001, seed=0))
    rows = {f"batch {batch}": _measure(weights, options, batch) for batch in options.batches}
    for name, row in rows.items():
        print(
            f"{name:>9}: forward {row['ms']['median']:8.3f} ms, device {row['device_ms']['median']:8.3f} ms, "
            f"{row['tflops']:.1f} TFLOP/s (medians)"
        )
        for launch, ms in sorted(row["launches_ms"].items(), key=lambda item: -item[1])[:3]:
            print(f"{ms:12.3f} ms  {launch}")
    case = {"network": options.network, "size": options.size}
    about = machine(["numba-cuda", "cuda-toolkit"]) | {"device": _device_name()}
    write_result(options.output, {"benchmark": "cuda", "case": case, "machine": about, "rows": rows})


def _measure(weights: dict[str, np.ndarray], options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """A batch's row of the result; the program ends if a bit is wrong."""
    images = random_images(batch, options.size, options.size, 3)
    engine = refnet.Engine(weights, device="cuda")
    if not np.array_equal(engine(images).view(np.int32), refnet.Engine(weights)(images).view(np.int32)):
        sys.exit(f"The logits of a batch of {batch} do not have the CPU's bits, so nothing is timed.")
    executor: Any = engine._compile(images.shape, False).executor
    times = alternate({"forward": lambda: engine(images)}, options.rounds)["forward"]
    profiles = np.array([executor.profile() for _ in range(options.rounds)])
    launches = dict(zip(map(_name, executor.plan.steps), np.median(profiles, axis=0), strict=True))
    flop = sum(_flop(step) for step in executor.plan.steps)
    device_ms = summary(profiles.sum(axis=1))
    return {
        "ms": summary(times),
        "device_ms": device_ms,
        "tflops": flop / device_ms["median"] / 1e9,
        "launches_ms": launches,
    }


def _name(step: Step) -> str:
    return f"{step.op} {step.inputs[0]}" + (f" {tuple(step.geometry)}" if step.op == "conv" else "")


def _flop(step: Step) -> int:
    g = step.geometry
    return 2 * g.pixels * g.products * g.out_channels if step.op == "conv" else 0


def _device_name() -> str:
    from numba import cuda

    name = cuda.gpus[0].name
    return name.decode() if isinstance(name, bytes) else str(name)


if __name__ == "__main__":
    main()
