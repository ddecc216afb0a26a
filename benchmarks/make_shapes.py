"""Write `benchmarks/shapes/`: the layers of the networks, from refnet's own plan.

uv run --group bench benchmarks/make_shapes.py [FOLDER]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import refnet
from benchmarks.common import ROOT, Case
from benchmarks.layers import COLUMNS, Layer, sizes_of, write_layers
from refnet.graph.fuse import make_plan
from refnet.graph.graph import Graph
from refnet.graph.plan import Plan, Step
from refnet.network.resnet_v2 import network_blocks, resnet_v2
from refnet_kernels.catalog import select
from refnet_kernels.contract import Geometry, GroupNormGeometry, PoolGeometry

NETWORKS = [Case(f"resnet_v2_{depth}", 224, 1, 1, None, 1001) for depth in (50, 101, 152, 200)]
NETWORKS += [Case("resnet_v2_50", size, 1, 1, stride, None) for size in (321, 513) for stride in (8, 16)]

#: Layers that TF-Slim's networks do not have: the average pools of ResNet-50-D's shortcuts, and group norms of ResNets.
OTHERS: list[tuple[str, Geometry]] = [
    ("avg_pool", PoolGeometry.same((1, side, side, channels), window=2, stride=2))
    for side, channels in ((56, 256), (28, 512), (14, 1024))
]
OTHERS += [
    ("group_norm", GroupNormGeometry.of((1, side, side, channels), groups=32, epsilon=1e-5))
    for side, channels in ((112, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
]


def _epilogue(step: Step) -> str:
    parts = {
        "bias": step.bias is not None,
        "norm": step.norm is not None,
        "relu": step.relu,
        "shortcut": step.shortcut is not None,
        "sum relu": step.sum_relu,
        "preact": step.preact is not None and step.out is not None,
        "preact only": step.out is None,
    }
    return ",".join(name.replace(" ", "_") for name, there in parts.items() if there)


def _steps(plan: Plan) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """What the kernel of each step of a plan receives: op, sizes, epilogue."""
    for step in plan.steps:
        framed = select(step.op, "cpu").frame(step.geometry) if plan.input in step.inputs else None
        epilogue = _epilogue(step) if "epilogue" in COLUMNS[step.op] else ""
        yield step.op, sizes_of(step.op, framed.geometry if framed else step.geometry), epilogue


def network_layers(case: Case) -> list[Layer]:
    """The fused steps of a network, and its batch norms and residuals as they are where nothing can be fused."""
    graph = Graph(refnet.random_weights(case.network, num_classes=case.classes))
    net, end_points = resnet_v2(
        graph.placeholder(case.shape), network_blocks(case.network), scope=case.network, **case.options
    )
    outputs = [net] if case.classes is None else [net, end_points["predictions"]]
    layers = Counter(_steps(make_plan(graph, outputs)))
    for tensor in graph.tensors:
        alone = {"batch_norm": ["batch_norm", "batch_statistics"], "residual": ["residual"]}.get(tensor.op, [])
        layers.update((op, sizes_of(op, tensor.geometry), "") for op in alone)
    order = dict.fromkeys(op for op, _, _ in layers)
    return [Layer(*layer, count) for op in order for layer, count in layers.items() if layer[0] == op]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "benchmarks" / "shapes")
    folder = parser.parse_args().folder
    for case in NETWORKS:
        name, title = (
            f"{case.network}_{case.size}",
            f"The layers of {case.network} at {case.size} x {case.size}, batch 1",
        )
        if case.output_stride is not None:
            name, title = f"{name}_os{case.output_stride}", f"{title}, output stride {case.output_stride}"
        write_layers(folder / f"{name}.txt", title, network_layers(case))
    layers = [layer for layer in network_layers(NETWORKS[0]) if layer.op != "conv"]
    layers += [Layer(op, sizes_of(op, geometry), "", 1) for op, geometry in OTHERS]
    title = f"All but the convolutions of {NETWORKS[0].network}, the average pools of ResNet-50-D, and group norms"
    write_layers(folder / "ops.txt", title, layers)


if __name__ == "__main__":
    main()
