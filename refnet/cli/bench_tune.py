"""``refnet bench --tune``: the numbers by which the CPU divides its work, measured again."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from refnet.cli.console import announce_compilation, print_json, print_table, say
from refnet_kernels.contract import BINARY32
from refnet_kernels.system.forks import once
from refnet_kernels.system.settings import setting

#: Seconds for the trials: many times what the first start on a machine spends.
SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--tune``."""
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure again when the CPU should leave out products with zeros, and keep that for this machine",
    )


@once
def _conv() -> ModuleType:
    from refnet_kernels.conv import cpu

    return cpu


@once
def _tuning() -> ModuleType:
    from refnet_kernels.conv import tuning

    return tuning


def tune(as_json: bool) -> None:
    """Make the trials, keep what they show, and print both."""
    announce_compilation()
    conv, tuning = _conv(), _tuning()
    trial = conv.measured(BINARY32, SECONDS)
    table = tuning.of_table()
    fitted = conv.fitted(trial)
    kept = tuning.keep(fitted)
    used = table if fitted is None or setting("REFNET_TUNE") == "off" else fitted
    times = [
        {"group_panels": group, "nonzero": share / tuning.THOUSAND, "ms": ms, "of_dense": ms / trial.dense}
        for group, shares in trial.without_zeros.items()
        for share, ms in shares.items()
    ]
    result: dict[str, Any] = {
        "dense_ms": trial.dense,
        "without_zeros": times,
        "table": table._asdict(),
        "measured": None if fitted is None else fitted._asdict(),
        "used": used._asdict(),
        "file": kept,
    }
    if as_json:
        print_json(result)
        return
    print_table(
        ["panels of a group", "inputs that are not 0", "ms", "of the time of all products"],
        [(row["group_panels"], f"{row['nonzero']:.0%}", f"{row['ms']:.3f}", f"{row['of_dense']:.3f}") for row in times],
        numeric=["panels of a group", "inputs that are not 0", "ms", "of the time of all products"],
    )
    found = {} if fitted is None else fitted._asdict()
    print_table(
        ["number", "table", "measured", "used"],
        [(name, value, found.get(name, ""), used._asdict()[name]) for name, value in table._asdict().items()],
        numeric=["table", "measured", "used"],
    )
    if fitted is None:
        say("the trials contradict each other, as on a busy machine, so nothing is kept: try again")
    elif kept is None:
        say("there is no cache to keep this in (REFNET_CACHE), so later processes use the table")
    if setting("REFNET_TUNE") == "off":
        say("REFNET_TUNE is off, so the table is used")
