"""Where Numba's simulator stands for a device."""

from refnet_kernels.gpu.device import missing, simulated
from tests.cuda.turns import take_turns

if simulated() and missing() is None:
    take_turns()
