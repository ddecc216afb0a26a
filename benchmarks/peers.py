"""The engines that refnet is measured against, each with its best settings that keep binary32.

As a program, it measures one inference in a fresh process, from the start to the first output, and its memory:

    python benchmarks/peers.py PEER FOLDER START

The folder holds the case, the images and the peer's model file; START is the parent's monotonic clock.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Case, peak_rss_mb


class Opened(NamedTuple):
    """An engine that is ready: ``read(run(feed(images)))`` is the net, NHWC. Only ``run`` is timed."""

    feed: Callable[[np.ndarray], Any]
    run: Callable[[Any], Any]
    read: Callable[[Any], np.ndarray]


class Peer(NamedTuple):
    """An engine: its name, its packages, and how its model file is written and opened.

    ``write(case, weights, path)`` runs in the benchmark; ``open(case, path)`` also in a fresh process, so it
    imports nothing except the engine.
    """

    title: str
    package: str
    modules: tuple[str, ...]
    file: str
    settings: str
    write: Callable[[Case, Mapping[str, np.ndarray], Path], None]
    open: Callable[[Case, Path], Opened]

    @property
    def installed(self) -> bool:
        """Whether its modules, those that write its model file included, can be found."""
        return all(importlib.util.find_spec(module) is not None for module in self.modules)


def _same(value: Any) -> Any:
    return value


def _to_nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _to_nhwc(net: np.ndarray) -> np.ndarray:
    return net if net.ndim == 2 else net.transpose(0, 2, 3, 1)


def _write_refnet(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    import refnet

    refnet.save_weights(path, weights)


def _open_refnet(case: Case, path: Path) -> Opened:
    import refnet

    return Opened(_same, refnet.Engine(path, threads=case.threads, **case.options), _same)


def _write_onnx(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    from benchmarks.models import write_onnx

    if not path.exists():
        write_onnx(case, weights, path)


def _open_onnxruntime(case: Case, path: Path) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Opened(_to_nchw, lambda x: session.run(None, {name: x})[0], _to_nhwc)


def _open_openvino(case: Case, path: Path) -> Opened:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
        # By default it computes in bfloat16 where the processor can.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(x: np.ndarray) -> Any:
        return request.infer([x], share_inputs=True, share_outputs=True)[0]

    return Opened(_to_nchw, run, _to_nhwc)


def _write_litert(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    from benchmarks.models import write_litert

    write_litert(case, weights, path)


def _open_litert(case: Case, path: Path) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=case.threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> Any:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return Opened(_same, run, _same)


def _write_torch(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    from benchmarks.models import write_torch

    write_torch(case, weights, path)


def _open_torch(case: Case, path: Path) -> Opened:
    import torch

    torch.set_num_threads(case.threads)
    network = torch.compile(torch.export.load(path).module(), fullgraph=True)

    def feed(images: np.ndarray) -> Any:
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return network(images)

    return Opened(feed, run, lambda net: _to_nhwc(net.numpy()))


def _write_slim(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    from benchmarks.slim import SlimNetwork

    network = SlimNetwork(case)
    network.assign(weights)
    network.save(path)


def _open_slim(case: Case, path: Path) -> Opened:
    from benchmarks.slim import SlimNetwork

    network = SlimNetwork(case)
    network.restore(path)
    return Opened(_same, network.run, _same)


PEERS = {
    "refnet": Peer("refnet", "refnet", ("refnet",), "weights.npz", "", _write_refnet, _open_refnet),
    "onnxruntime": Peer(
        "ONNX Runtime", "onnxruntime", ("onnxruntime", "onnx"), "network.onnx",
        "CPU provider, all graph optimisations, default spinning", _write_onnx, _open_onnxruntime,
    ),
    "openvino": Peer(
        "OpenVINO", "openvino", ("openvino", "onnx"), "network.onnx",
        "latency hint, inference precision f32", _write_onnx, _open_openvino,
    ),
    "litert": Peer(
        "LiteRT (XNNPACK)", "ai-edge-litert", ("ai_edge_litert", "tensorflow"), "network.tflite",
        "XNNPACK delegate", _write_litert, _open_litert,
    ),
    # Not in the group bench, as its package has several GB: `uv pip install torch` adds it.
    "pytorch": Peer(
        "PyTorch (compiled)", "torch", ("torch",), "network.pt2",
        "torch.compile, channels last, inference mode", _write_torch, _open_torch,
    ),
    "tf-slim": Peer(
        "TF-Slim session", "tensorflow", ("tf_slim", "tf_keras", "tensorflow"), "network.ckpt",
        "one inter-op thread", _write_slim, _open_slim,
    ),
}  # fmt: skip


def main() -> None:
    name, folder, start = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    case = Case(**json.loads((folder / "case.json").read_text()))
    images = np.load(folder / "images.npy")
    opened = PEERS[name].open(case, folder / PEERS[name].file)
    opened.read(opened.run(opened.feed(images)))
    print(json.dumps({"first_output_s": time.monotonic() - start, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
