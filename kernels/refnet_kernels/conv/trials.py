"""Trials of the CPU's convolution on this machine, from which `conv/tuning.py` fits its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refnet_kernels.contract import ConvGeometry, Flags, Target
from refnet_kernels.conv.tuning import GROUPS, THOUSAND, Trial, Tuning
from refnet_kernels.cpu.team import Launch, Program, aligned_zeros

#: Of a middle layer of ResNet-50, which fits the second-level cache: on a Zen 4 the shares at which zeros pay differ by
#: 0.02 between the layers.
GEOMETRY = ConvGeometry(1, 14, 14, 256, 14, 14, 256, 1, 1, 1, 1, 0, 0)
#: Thousandths of inputs that are not 0.
SHARES = (250, 500, 800)
#: The two best rounds of each run differ by at most this factor on a machine that is not too busy.
STEADY = 1.1
#: Rounds, at least and at most.
ROUNDS = 3, 100

#: Makes the launch of a geometry with its operands' addresses, flags and target by the numbers of a tuning.
Make = Callable[[ConvGeometry, Mapping[str, int], Flags, Target, Tuning], Launch]


def trial(make: Make, dtype: np.dtype[Any], table: Tuning, seconds: float) -> Trial:
    """Time a layer on one thread: all products, and without zeros for several groups and shares of zeros.

    Parameters
    ----------
    make : callable
    dtype : numpy.dtype
    table : Tuning
        The numbers that are not tried.
    seconds : float
        The time for it, about; on slow machines three rounds take longer.
    """
    g = GEOMETRY
    panels = aligned_zeros(g.products * g.out_channels, dtype)
    out = aligned_zeros(g.pixels * g.out_channels, dtype)
    random = np.random.default_rng(0).random(g.pixels * g.channels)
    images = {}
    for share in SHARES:
        images[share] = aligned_zeros(random.size, dtype)
        images[share][random < share / THOUSAND] = 1

    def program(share: int, zeros: bool, numbers: Tuning) -> Program:
        addresses = {"x": images[share], "weights": panels, "out": out}
        at = {name: array.ctypes.data for name, array in addresses.items()}
        return Program([make(g, at, Flags(finite=True), Target(dtype, zeros=zeros), numbers)], threads=1)

    dense = 0, 0
    programs = {dense: program(SHARES[-1], False, table)}
    for group in GROUPS:
        for share in SHARES:
            numbers = table._replace(group_panels=group, most_nonzero=THOUSAND)
            programs[group, share] = program(share, True, numbers)
    times = _alternate(programs, seconds)
    best = {key: sorted(each)[:2] for key, each in times.items()}
    is_steady = all(second <= STEADY * first for first, second in best.values())
    ms = {key: first * 1e3 for key, (first, _) in best.items()}
    return Trial(ms[dense], {group: {share: ms[group, share] for share in SHARES} for group in GROUPS}, is_steady)


def _alternate(programs: Mapping[Any, Program], seconds: float) -> dict[Any, list[float]]:
    """The seconds of each program, which run in turn, so that the machine's changes of speed affect all equally."""
    times: dict[Any, list[float]] = {key: [] for key in programs}
    for program in programs.values():
        program.run()
    least, most = ROUNDS
    end = time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() > end:
            break
        for key, program in programs.items():
            start = time.perf_counter()
            program.run()
            times[key].append(time.perf_counter() - start)
    return times
