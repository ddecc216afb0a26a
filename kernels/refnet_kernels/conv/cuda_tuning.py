"""How a CUDA convolution chooses its tiles: numbers that depend on the device, and change no bit."""

from __future__ import annotations

from typing import NamedTuple


class CudaTuning(NamedTuple):
    """Clocks of a CUDA device's multiprocessor, for `refnet_kernels.conv.cuda`.

    Attributes
    ----------
    issue : float
        Instructions that a scheduler issues per clock.
    reads : float
        Instructions per number that a thread reads from shared memory.
    wait, copies : float
        The wait for a step's copies: ``wait``, and ``copies`` shared by all buffers but one.
    block : float
        What a block needs in addition.
    """

    issue: float = 0.8
    reads: float = 0.5
    wait: float = 300
    copies: float = 600
    block: float = 5000


#: By compute capability; all devices have the numbers that fit ResNet-50's layers on an H200 until they are measured.
CUDA_TABLE = {"sm_90": CudaTuning()}


def cuda_tuning(model: str) -> CudaTuning:
    """The numbers of a CUDA device of this compute capability."""
    return CUDA_TABLE.get(model, CUDA_TABLE["sm_90"])
