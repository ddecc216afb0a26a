"""Trials of the CPU's convolution on this machine, and the numbers of `conv/tuning.py` that follow from them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.contract import ConvGeometry, Flags, Target
from refnet_kernels.conv.tuning import GROUPS, THOUSAND, Tuning
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

#: Another group than the table's has to be faster by this factor.
CLEARLY = 0.97
#: What `most_nonzero` can be by measurement: even where machines differ more than known ones, most of the gain stays.
MOST_NONZERO_LEAST, MOST_NONZERO_MOST = 300, 950

#: Makes the launch of a geometry with its operands' addresses, flags and target by the numbers of a tuning.
Make = Callable[[ConvGeometry, Mapping[str, int], Flags, Target, Tuning], Launch]


class Trial(NamedTuple):
    """The best times of a layer, in milliseconds.

    Attributes
    ----------
    dense : float
        If all products are computed.
    without_zeros : dict of int to dict of int to float
        If products with zeros are left out: by the panels of a group, then by thousandths of inputs that are not 0.
    is_steady : bool
        Whether the best rounds of each agree.
    """

    dense: float
    without_zeros: dict[int, dict[int, float]]
    is_steady: bool


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


def fitted(trial: Trial, table: Tuning) -> Tuning | None:
    """The numbers that a trial shows, otherwise the table's; None if the trial cannot be believed."""
    times = [trial.dense, *(time for group in trial.without_zeros.values() for time in group.values())]
    if not trial.is_steady or not all(math.isfinite(time) and time > 0 for time in times):
        return None

    def total(group: int) -> float:
        return sum(trial.without_zeros[group].values()) * (1 if group == table.group_panels else 1 / CLEARLY)

    group = min(trial.without_zeros, key=total)
    points = sorted(trial.without_zeros[group].items())
    shares, values = zip(*points, strict=True)
    if any(later <= earlier for earlier, later in pairwise(values)) or values[0] >= trial.dense:
        return None
    # The last two shares between which, or after which, it takes as long as all products.
    after = next((i for i, value in enumerate(values) if value >= trial.dense), len(values) - 1)
    slope = (values[after] - values[after - 1]) / (shares[after] - shares[after - 1])
    even = shares[after - 1] + (trial.dense - values[after - 1]) / slope
    bounded = min(max(round(even), MOST_NONZERO_LEAST), MOST_NONZERO_MOST)
    return table._replace(most_nonzero=bounded, group_panels=group)
