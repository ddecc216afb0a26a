"""How a convolution divides its work: numbers that depend on the machine, and change no bit.

`TABLE` has the CPU's for processors on which they were measured. Where the CPU's kernel is compiled, some tens of
milliseconds of trials (`conv/trials.py`) fit those that differ most between processors; they are kept beside the
machine code, and are read at later starts. What cannot be measured, kept or trusted leaves the table's. The environment
variable ``REFNET_TUNE`` can be ``off``: then they are the table's. The costs of items always are: in a trial, whose
weights stay in the caches, a tile cost a quarter of what it costs in a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from refnet_kernels import jit
from refnet_kernels.contract import RUN
from refnet_kernels.system.forks import making
from refnet_kernels.system.settings import setting
from refnet_kernels.target import CPU, LINE_BYTES, ROWS, WIDTH_BYTES

#: The most tiles of an item. The sums of its pixels, in a group of panels, stay in or close to the first-level cache.
ITEM_TILES_MOST = 8
#: Processors with two FMAs of 64 bytes per cycle, each of which takes four, and a first-level cache of 48 KiB.
_TWO_WIDE_FMAS = {
    "znver5", "icelake-client", "icelake-server", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids",
    "graniterapids", "graniterapids-d",
}  # fmt: skip
#: The panels of a large group, whose sums a pixel has in registers at once. Two FMAs per cycle need the eight chains
#: of four. A run's weights for four take 16 KiB, or 32 with vectors of 64 bytes, and have to stay in the first-level
#: cache; three take 24, and on a Zen 4, with one FMA per cycle, are faster by a hundredth.
LARGE_GROUP = 4 if WIDTH_BYTES <= 64 or CPU in _TWO_WIDE_FMAS else 3
#: What a group's panels can be. The kernel is compiled for these two, so that a machine can choose.
GROUPS = (2, LARGE_GROUP)
#: Cache lines of each panel that a pixel prefetches per run, if products with zeros are left out. In an item of the
#: most tiles these are all lines of the panel's next run. It is compiled into the kernel: the loop is short.
LINES_AHEAD = -(-RUN * WIDTH_BYTES // (LINE_BYTES * ITEM_TILES_MOST * ROWS))
#: Shares are in thousandths.
THOUSAND = 1000


class Tuning(NamedTuple):
    """The CPU's numbers.

    Attributes
    ----------
    most_nonzero : int
        Products with zeros are left out if at most this many thousandths of an item's inputs are not 0.
    group_panels : int
        The most panels of a group, one of `GROUPS`.
    fewest_pixels : int
        With fewer pixels weights are reused too rarely for leaving out products.
    item_tiles : int
        The most tiles of an item, up to `ITEM_TILES_MOST`.
    tile_cost, group_cost : float
        What the work on a panel costs in addition to that on its products in one tile, divided by the tiles and by the
        panels that share it.
    item_cost : float
        The same for an item, per tile.
    """

    most_nonzero: int = 833
    group_panels: int = LARGE_GROUP
    fewest_pixels: int = 32
    item_tiles: int = ITEM_TILES_MOST
    tile_cost: float = 0.5
    group_cost: float = 0.25
    item_cost: float = 0.1


#: What each number can be, where it comes from a file.
LIMITS: dict[str, tuple[int, int]] = {
    "most_nonzero": (1, THOUSAND),
    "group_panels": (min(GROUPS), max(GROUPS)),
    "fewest_pixels": (1, 2**40),
    "item_tiles": (1, ITEM_TILES_MOST),
    "tile_cost": (0, 100),
    "group_cost": (0, 100),
    "item_cost": (0, 100),
}

#: By LLVM's names of processors. All others have the numbers that fit a Zen 4, and with vectors of 32 bytes a Zen 3.
TABLE = {
    # Measured in groups of three panels: 1.23 of the time of all products if 35% of the inputs were 0, and 1.47 if 20%.
    "znver5": Tuning(most_nonzero=500),
}


def of_table() -> Tuning:
    """The table's numbers for this processor."""
    return TABLE.get(CPU, Tuning())


#: The file of the cache.
FILE = "conv.tuning"

_chosen: Tuning | None = None
_forced: Tuning | None = None


def tuning(is_compiled_here: bool, measure: Callable[[], Tuning | None]) -> Tuning:
    """The numbers of this machine.

    Parameters
    ----------
    is_compiled_here : bool
        Whether this process has compiled the kernel and kept it: then it measures, too.
    measure : callable
        Gives the numbers that trials show, or None if they show nothing.
    """
    global _chosen
    if _forced is not None:
        return _forced
    if _chosen is None:
        with making:
            if setting("REFNET_TUNE") == "off":
                _chosen = of_table()
            else:
                _chosen = read() or (_kept(measure()) if is_compiled_here else None) or of_table()
    return _chosen


@contextmanager
def forced(numbers: Tuning) -> Iterator[None]:
    """These numbers meanwhile, whatever the machine is. Plans that are made keep them."""
    global _forced
    before, _forced = _forced, numbers
    try:
        yield
    finally:
        _forced = before


def read() -> Tuning | None:
    """The numbers that were kept on this machine; None if there are none, or they cannot be."""
    data = jit.read_note(FILE)
    if data is None:
        return None
    try:
        found = json.loads(data)
        numbers = Tuning(**found["numbers"]) if found["place"] == _place() else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return numbers if numbers is not None and can_be(numbers) else None


def _kept(numbers: Tuning | None) -> Tuning | None:
    keep(numbers)
    return numbers


def keep(numbers: Tuning | None) -> str | None:
    """Keep numbers for later processes. The file; None if there is none."""
    global _chosen
    _chosen = None
    if numbers is None:
        return None
    return jit.write_note(FILE, json.dumps({"place": _place(), "numbers": numbers._asdict()}).encode())


def _place() -> str:
    """Where numbers hold: a file that was copied from elsewhere says so."""
    directory = jit.cache_directory()
    return "" if directory is None else directory.name


def can_be(numbers: Tuning) -> bool:
    """Whether these are numbers within `LIMITS`."""
    usual = Tuning()._asdict()
    return numbers.group_panels in GROUPS and all(
        type(value) is type(usual[name]) and LIMITS[name][0] <= value <= LIMITS[name][1]
        for name, value in numbers._asdict().items()
    )
