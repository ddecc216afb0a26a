"""Run a plan: in NumPy, an operation at a time, or with the CPU's fused kernels. The bits are the same.

`refnet.run.cuda` does it on a CUDA device.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from refnet.graph.plan import Plan
from refnet.run.constants import Constants
from refnet.run.cpu import CpuExecutor
from refnet.run.devices import cuda_index
from refnet.run.reference import ReferenceExecutor
from refnet_kernels.system.forks import making


class Executor(Protocol):
    """Something that runs one plan."""

    def run(self, images: Any, stream: Any = None) -> tuple[list[Any], tuple[float, float] | None]:
        """Run the plan.

        Returns
        -------
        outputs : list of array
            The caller's own: in NumPy, or on the CUDA device where the images lie.
        extremes : (float, float), or None
            The least and the largest pixel, NaN if one is NaN. None where there is none, and where the images lie on a
            CUDA device.
        """


def make_executor(plan: Plan, constants: Constants, device: str, threads: int, dtype: np.dtype[Any]) -> Executor:
    """The executor of a plan on a device.

    Parameters
    ----------
    plan : Plan
    constants : Constants
        Shared by all plans of an engine.
    device : {"cpu", "reference", "cuda", "cuda:1", ...}
        As `check_device` accepted it.
    threads : int
        Of the CPU's kernels.
    dtype : numpy.dtype
        Of the images, of the outputs and of all between them.

    Raises
    ------
    DeviceError
        The device's memory is too small.
    """
    if device == "reference":
        return ReferenceExecutor(plan, constants, dtype)
    if device.startswith("cuda"):
        from refnet.run.cuda import CudaExecutor

        return CudaExecutor(plan, constants, cuda_index(device))
    with making:
        return CpuExecutor(plan, constants, threads, dtype)
