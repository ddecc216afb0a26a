"""``refnet selfcheck``: does this machine compute the published bits?"""

from __future__ import annotations

import argparse
from typing import Any

from refnet.cli.console import announce_compilation, print_json, print_table, printable, track
from refnet.cli.options import add_engine_options, add_json_option, check_engine_options, offer
from refnet.errors import ConfigError
from refnet.evidence.environment import environment
from refnet.evidence.selfcheck import CASES, Case, Outcome, cases_of, check, published
from refnet_kernels.system.float_mode import describe_mode

EPILOG = f"""\
examples:
  refnet selfcheck
  refnet selfcheck resnet_v2_50 training --threads 1

Seeded networks run on seeded images, and the SHA-256 of every end point is compared with the published one, which the
NumPy definitions gave. This takes some seconds, and most of a GiB of memory for the deepest network.

checks: {", ".join(case.name for case in CASES)}

exit codes: 0 all bits are as published, 1 some are not
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    checks = parser.add_argument(
        "checks", nargs="*", metavar="CHECK", help="which checks to run (default: all that the device can do)"
    )
    offer(checks, (case.name for case in CASES))
    add_engine_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks.

    Returns
    -------
    int
        0, or 1 if some bits differ.
    """
    check_engine_options(arguments)
    cases = _chosen(arguments.checks) if arguments.checks else cases_of(arguments.device)
    announce_compilation()
    expected = published()["cases"]
    outcomes = [
        check(case, expected[case.name], arguments.device, arguments.threads)
        for case in track(cases, lambda case: f"checking {case.name}")
    ]
    failed = any(outcome.differing for outcome in outcomes)
    if arguments.json:
        print_json({"same": not failed, "checks": [_as_object(o) for o in outcomes], "environment": environment()})
    else:
        _print(outcomes, arguments)
    return 1 if failed else 0


def _chosen(names: list[str]) -> list[Case]:
    """The cases of these names, in the order of `CASES`."""
    unknown = sorted(set(names) - {case.name for case in CASES})
    if unknown:
        known = ", ".join(case.name for case in CASES)
        raise ConfigError(f"There is no check {', '.join(unknown)}; there are {known}.", found=unknown)
    return [case for case in CASES if case.name in names]


def _as_object(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    return {
        "check": case.name,
        "network": case.network,
        "input": case.shape,
        "options": case.options,
        "end_points": outcome.total,
        "differing": outcome.differing,
    }


def _print(outcomes: list[Outcome], arguments: argparse.Namespace) -> None:
    rows = [(o.case.name, o.case.options_text(), _score(o), (o.differing or [""])[0]) for o in outcomes]
    print_table(["check", "input and options", "end points", "first that differs"], rows, numeric=["end points"])
    print()
    differing, mode = [outcome for outcome in outcomes if outcome.differing], describe_mode()
    if mode not in ("default", "unknown"):
        print(f"Floating point here: {mode}. refnet computes in a mode of its own, so no bit depends on this.")
    if not differing:
        total = sum(outcome.total for outcome in outcomes)
        print(
            f"All {total:,} end points have the published bits: as far as these networks can tell, "
            "this machine computes what the contract defines."
        )
        return
    print("Please send the lines between the rules, and say how refnet was installed.")
    print("-" * 72)
    for outcome in differing:
        print(f"{outcome.case.name} ({outcome.case.options_text()}): {_sentence(outcome)}")
    print(f"device: {arguments.device}, threads: {arguments.threads or 'all'}")
    for name, value in environment().items():
        print(printable(f"{name}: {value}"))
    print("-" * 72)
    print(f"{len(differing)} of {len(outcomes)} networks differ: this machine does NOT compute the published bits.")


def _score(outcome: Outcome) -> str:
    if outcome.differing in (["weights"], ["images"]):
        return f"not run, of {outcome.total}"
    return f"{outcome.total - len(outcome.differing)} of {outcome.total}"


def _sentence(outcome: Outcome) -> str:
    first = outcome.differing[0]
    if first in ("weights", "images"):
        return f"the seeded {first} differ already, so the network was not run"
    return f"{len(outcome.differing)} of {outcome.total} end points differ, first {first}"
