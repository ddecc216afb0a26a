"""Run a graph immediately."""

from __future__ import annotations

from typing import Any

from refnet.graph.fuse import make_plan
from refnet.graph.graph import Graph, Tensor
from refnet.run.constants import Constants
from refnet.run.devices import check_device, check_dtype, check_threads, device_named
from refnet.run.variables import as_variables
from refnet_kernels.contract import FloatArray


def compute(graph: Graph, images: FloatArray, result: Any, device: str = "cpu", threads: int | None = None) -> Any:
    """Run a graph on its input.

    Parameters
    ----------
    graph : Graph
    images : float32 or float64 array [N, H, W, C]
        Everything is computed in its dtype.
    result : Tensor, or (Tensor, dict of str to Tensor)
    device, threads
        As for `Engine`.

    Returns
    -------
    array, or (array, dict of str to array)
        ``result`` with arrays in place of its tensors.
    """
    tensors = [result] if isinstance(result, Tensor) else [result[0], *result[1].values()]
    plan = make_plan(graph, tensors)
    variables = as_variables({name: graph.variables[name] for name in graph.used}).arrays
    where, dtype = device_named(check_device(device)), check_dtype(images.dtype, device)
    executor = where.executor(plan, Constants(variables, owned=True), check_threads(threads), dtype)
    arrays, _ = executor.run(images)
    return arrays[0] if isinstance(result, Tensor) else (arrays[0], dict(zip(result[1], arrays[1:], strict=True)))
