"""Run a plan: in NumPy, an operation at a time, or with the CPU's fused kernels. The bits are the same.

`refnet.run.cuda` does it on a CUDA device.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from refnet.graph.plan import Plan
from refnet.run.compiled import Look, Variables
from refnet.run.cpu import CpuExecutor
from refnet.run.devices import cuda_index
from refnet.run.reference import ReferenceExecutor
from refnet_kernels.system.forks import making


class Executor(Protocol):
    """Something that runs one plan."""

    def run(self, images: Any, stream: Any = None, look: Look | None = None) -> list[Any]:
        """The plan's outputs, as arrays of the caller's own: in NumPy, or on the CUDA device where the images lie.

        ``look`` is called once, with the least and the largest pixel, NaN if one is NaN.
        """


def make_executor(
    plan: Plan, variables: Variables, device: str, threads: int, packed: dict[Any, Any], dtype: np.dtype[Any]
) -> Executor:
    """The executor of a plan on a device.

    Parameters
    ----------
    plan : Plan
    variables : mapping of str to array
    device : {"cpu", "reference", "cuda", "cuda:1", ...}
        As `check_device` accepted it.
    threads : int
        Of the CPU's kernels.
    packed : dict
        Where packed weights are kept, to be shared by all plans of an engine. Where ``variables`` is a plain dict,
        it belongs to the engine, and kernels leave it once they are packed.
    dtype : numpy.dtype
        Of the images, of the outputs and of all between them.

    Raises
    ------
    DeviceError
        The device's memory is too small.
    """
    if device == "reference":
        return ReferenceExecutor(plan, variables, dtype)
    if device.startswith("cuda"):
        from refnet.run.cuda import CudaExecutor

        return CudaExecutor(plan, variables, cuda_index(device), packed)
    with making:
        return CpuExecutor(plan, variables, threads, packed, dtype)
