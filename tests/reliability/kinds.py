"""The list of kinds: what the short tests run, and the long command."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.reliability import bounds, determinism, disks, float_modes, forks, fuzz, interrupts, kills, load, soak
from tests.reliability.figures import Row


class Kind(NamedTuple):
    """The two forms of a kind; the long one is given minutes, which only some heed."""

    short: Callable[[], list[Row]]
    long: Callable[[float], list[Row]]
    by_the_clock: bool = False


KINDS = {
    "load": Kind(load.short, load.long),
    "soak": Kind(soak.short, soak.long),
    "kills": Kind(kills.short, kills.long),
    "interrupts": Kind(interrupts.short, interrupts.long, by_the_clock=True),
    "forks": Kind(forks.short, forks.long),
    "disks": Kind(disks.short, disks.long),
    "fuzz": Kind(fuzz.short, fuzz.long, by_the_clock=True),
    "float_modes": Kind(float_modes.short, float_modes.long),
    "bounds": Kind(bounds.short, bounds.long, by_the_clock=True),
    "determinism": Kind(determinism.short, determinism.long, by_the_clock=True),
}
