"""The work of a layer: its operations, and the bytes of its operands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.graph.plan import Plan, Step
from refnet_kernels.contract import (
    ConvGeometry,
    Geometry,
    GroupNormGeometry,
    ImageGeometry,
    NormGeometry,
    PoolGeometry,
)
from refnet_kernels.cpu.layout import taps_inside

#: Operations per number of an op that looks at each of its numbers. A batch norm has a subtraction, a multiplication,
#: an addition and a comparison; so have, about, the statistics that a norm may need before it.
_EACH = {
    "batch_norm": 4,
    "batch_statistics": 4,
    "batch_norm_training": 8,
    "group_norm": 8,
    "residual": 1,
    "mean": 1,
}


def products_inside(g: ConvGeometry) -> int:
    """The products of a convolution that have to be computed: those inside the image."""
    down, right = np.arange(g.kernel_height) * g.rate, np.arange(g.kernel_width) * g.rate
    rows = int(np.sum(taps_inside(g.out_height, g.stride, g.pad_top, g.height, down)))
    columns = int(np.sum(taps_inside(g.out_width, g.stride, g.pad_left, g.width, right)))
    return g.batch * rows * columns * g.channels * g.out_channels


def flop_of(op: str, geometry: Geometry) -> int:
    """Additions, multiplications and comparisons of the contract's definition.

    Products with zeros outside the image do not count, nor does softmax, or what is fused with a convolution.
    """
    match geometry:
        case ConvGeometry():
            return 2 * products_inside(geometry)
        case PoolGeometry():
            return geometry.window**2 * geometry.pixels * geometry.channels
        case GroupNormGeometry() | ImageGeometry() | NormGeometry():
            return _EACH.get(op, 0) * math.prod(geometry[:4])
        case _:
            return 0


def bytes_of(step: Step, plan: Plan, variables: Mapping[str, Any]) -> int:
    """Bytes of what a step reads and writes, each operand counted once, in binary32."""
    values = [value for value in step.reads if step.op != "subsample"] + step.writes
    # Of its input, subsampling reads what it writes.
    values += step.writes if step.op == "subsample" else []
    numbers = sum(math.prod(plan.shapes[plan.aliases.get(value, value)]) for value in values)
    shapes = [np.shape(variables[name]) for name in step.variables.values()]
    return int(4 * (numbers + sum(map(math.prod, shapes))))


def name_of(g: ConvGeometry) -> str:
    """A convolution in tables, for instance "conv 3x3 128 > 256, 14x14 /2": its channels, its output and its stride."""
    text = f"conv {g.kernel_height}x{g.kernel_width} {g.channels} > {g.out_channels}, {g.out_height}x{g.out_width}"
    text += f" /{g.stride}" if g.stride > 1 else ""
    return f"{text} rate {g.rate}" if g.rate > 1 else text
