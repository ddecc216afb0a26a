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


#: Measurements after which the best one is near the limit, even if other programs run now and then.
_ENOUGH = 20


class Peak:
    """The speed of multiply-adds in registers, the best of all measurements."""

    def __init__(self, threads: int) -> None:
        self._fma = FmaPeak(threads)
        self._gflops: list[float] = []

    def run(self) -> None:
        """Measure once, for about 10 ms."""
        self._gflops.append(self._fma.flop / _seconds(self._fma) / 1e9)

    def settled(self) -> float:
        """GFLOP/s, after more measurements if there were few."""
        while len(self._gflops) < _ENOUGH:
            self.run()
        return max(self._gflops)


def _seconds(work: Copy | FmaPeak) -> float:
    started = time.perf_counter()
    work.run()
    return time.perf_counter() - started
