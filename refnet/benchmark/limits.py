"""The machine's limits, measured by the team of threads that runs the kernels."""

from __future__ import annotations

import time

from refnet_kernels.cpu.measure import Copy, FmaPeak
from refnet_kernels.system.memory import room_for_more

_MIB = 2**20
#: The size of arrays that no cache holds, and of those for a machine with less memory than `_AMPLE`.
_LARGE, _SMALLER, _AMPLE = 256 * _MIB, 16 * _MIB, 2**31


def copy_speeds(threads: int, rounds: int = 10) -> dict[str, float]:
    """GB/s of copying arrays of three sizes: for memory, and for the last and the second cache of common processors."""
    room = room_for_more()
    memory = _LARGE if room is None or room.nbytes > _AMPLE else _SMALLER
    sizes = {"DRAM": (memory, 1), "L3": (4 * _MIB, 10), "L2": (threads * _MIB // 8, 200)}
    speeds = {}
    for name, (size, repeats) in sizes.items():
        copy = Copy(threads, size, repeats)
        speeds[name] = copy.bytes / min(_seconds(copy) for _ in range(rounds)) / 1e9
    return speeds


#: FMAs per vector of a tile in one measurement of a thread: about 1 ms, as long as a layer takes, whose best time is
#: compared with it. Beside other programs, longer ones would all be interrupted.
_STEPS = 200_000
#: Measurements in turn with each run of the layers, and those after which the best one is near the limit.
_EACH, _ENOUGH = 5, 100


class Peak:
    """The speed of multiply-adds in registers, the best of all measurements."""

    def __init__(self, threads: int) -> None:
        self._fma = FmaPeak(threads, _STEPS)
        self._gflops: list[float] = []

    def run(self) -> None:
        """Measure a few times."""
        self._gflops += [self._fma.flop / _seconds(self._fma) / 1e9 for _ in range(_EACH)]

    def settled(self) -> float:
        """GFLOP/s, after more measurements if there were few."""
        while len(self._gflops) < _ENOUGH:
            self.run()
        return max(self._gflops)


def _seconds(work: Copy | FmaPeak) -> float:
    started = time.perf_counter()
    work.run()
    return time.perf_counter() - started
