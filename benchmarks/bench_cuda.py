"""A network on a CUDA device: its bits are compared with the CPU's first, then it is timed.

    uv run --extra cuda benchmarks/bench_cuda.py [--network resnet_v2_50] [--batches 1 8 32 64]

For each batch: ``NumPy`` is the whole call, with the transfer of images and logits; ``device`` has images and logits
that stay on the device, and one CUDA graph; ``single launches`` is the same with each kernel launched by itself. If a
PyTorch with CUDA is installed, the same network runs by cuDNN and cuBLAS without TF32, on images on the device, in both
orders of memory: launch by launch, and as one CUDA graph. ``kernels`` is the sum of the launches by the device's own
events; with small batches these take longer to issue than to run, and the sum includes that.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import refnet
from benchmarks.common import (
    Case,
    add_output_options,
    alternate,
    lively,
    machine,
    relative_error,
    summary,
    write_result,
)
from refnet.graph.plan import Step
from refnet_kernels.gpu.device import missing
from tests.support.arrays import random_images

#: In multiples of refnet's own error; that of TF32 is some thousand times as large.
LARGEST_ERROR = 10


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
    rows = {}
    for batch in options.batches:
        rows |= {f"batch {batch}, {name}": row for name, row in _measure(weights, options, batch).items()}
    width = max(map(len, rows))
    for name, row in rows.items():
        print(f"{name:>{width}}: {row['ms']['median']:8.3f} ms, {row['tflops']:5.1f} TFLOP/s (medians)")
        for launch, ms in sorted(row.get("launches_ms", {}).items(), key=lambda item: -item[1])[:3]:
            print(f"{ms:{width + 9}.3f} ms  {launch}")
    case = {"network": options.network, "size": options.size}
    about = machine(["numba-cuda", "cuda-toolkit", "torch"]) | {"device": _device_name()}
    write_result(options, {"benchmark": "cuda", "case": case, "machine": about, "rows": rows})


def _measure(weights: dict[str, np.ndarray], options: argparse.Namespace, batch: int) -> dict[str, dict[str, Any]]:
    """The rows of the result for a batch; the program ends if a bit is wrong."""
    from numba import cuda

    images = random_images(batch, options.size, options.size, 3)
    engine, single = refnet.Engine(weights, device="cuda"), refnet.Engine(weights, device="cuda")
    executor = _executor(engine, images)
    if not executor.graph:
        sys.exit("Nothing is timed, as no CUDA graph could be recorded.")
    _executor(single, images)._program._graph = None
    logits, there = refnet.Engine(weights)(images), cuda.to_device(images)
    for found in (engine(images), engine(there).copy_to_host(), single(there).copy_to_host()):
        if not np.array_equal(found.view(np.int32), logits.view(np.int32)):
            sys.exit(f"The logits of a batch of {batch} do not have the CPU's bits, so nothing is timed.")

    def on_device(network: refnet.Engine) -> None:
        network(there)
        cuda.synchronize()

    runs: dict[str, Callable[[], object]] = {
        "NumPy": lambda: engine(images),
        "device": lambda: on_device(engine),
        "single launches": lambda: on_device(single),
    }
    if _torch_has_cuda():
        runs |= torch_runs(weights, Case(options.network, options.size, batch, 1, None, 1001), images, logits)
    for run in runs.values():
        run()
    flop = sum(_flop(step) for step in executor.plan.steps)
    times = {name: summary(ms) for name, ms in alternate(runs, options.rounds).items()}
    profiles = np.array([executor.profile() for _ in range(options.rounds)])
    times["kernels"] = summary(profiles.sum(axis=1))
    rows: dict[str, dict[str, Any]] = {
        name: {"ms": ms, "tflops": flop / ms["median"] / 1e9} for name, ms in times.items()
    }
    medians = np.median(profiles, axis=0)
    rows["kernels"]["launches_ms"] = dict(zip(map(_name, executor.plan.steps), medians, strict=True))
    return rows


def _executor(engine: refnet.Engine, images: np.ndarray) -> Any:
    return engine._compile(images.shape, False).executor


def _torch_has_cuda() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def torch_runs(
    weights: dict[str, np.ndarray], case: Case, images: np.ndarray, logits: np.ndarray, device: str = "cuda"
) -> dict[str, Callable[[], object]]:
    """PyTorch's complete forward of images on a device; the program ends if it does not compute in binary32."""
    import torch

    from benchmarks.models import write_torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    truth = refnet.Engine(weights, dtype="float64")(images[:1])
    ours = relative_error(logits[:1], truth)
    runs: dict[str, Callable[[], object]] = {}
    orders = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # Warnings about weights that share memory, and about memory that is read-only.
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.pt2"
        write_torch(case, weights, path)
        networks = [torch.export.load(path).module().to(device) for _ in orders]
    for network, (name, order) in zip(networks, orders.items(), strict=True):
        for buffer in network.buffers():
            if buffer.ndim == 4:
                buffer.data = buffer.data.contiguous(memory_format=order)
        there = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous(memory_format=order)
        runs[f"PyTorch {name}"] = run = partial(_torch_forward, network, there)
        error = relative_error(run()[:1].cpu().numpy(), truth)
        if not error <= LARGEST_ERROR * ours:
            sys.exit(f"Nothing is timed: PyTorch's relative error of {error:.1e} is not binary32's ({ours:.1e}).")
        if device == "cuda":
            runs[f"PyTorch {name}, graph"] = _torch_graph(network, there)
    return runs


def _torch_forward(network: Any, images: Any) -> Any:
    import torch

    with torch.inference_mode():
        found = network(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return found


def _torch_graph(network: Any, images: Any) -> Callable[[], object]:
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        # The graph keeps its memory, also that of the output.
        network(images)

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return run


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
