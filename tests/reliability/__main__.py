"""The long forms of the tests of reliability.

    python -m tests.reliability                          # all kinds
    python -m tests.reliability load soak                # some of them
    python -m tests.reliability fuzz --minutes 10        # for so long per format
    python -m tests.reliability --record load            # also keep the figures, and write them into the page
    python -m tests.reliability --record                 # only write the kept figures into docs/reliability.md

A kind that finds a failure ends with an AssertionError, which says how to repeat it.
"""

from __future__ import annotations

import argparse
import signal
import time

from tests.reliability import figures
from tests.reliability.kinds import KINDS


def main() -> None:
    # A shell starts its background jobs with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all if none is given")
    parser.add_argument("--minutes", type=float, default=1, help="for kinds that end by the clock; 1")
    parser.add_argument("--record", action="store_true", help="keep the figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"{', '.join(sorted(unknown))} is not one of {', '.join(KINDS)}")
    for kind in arguments.kinds or ([] if arguments.record else KINDS):
        start = time.perf_counter()
        rows = KINDS[kind].long(arguments.minutes)
        seconds = time.perf_counter() - start
        for row in rows:
            print(f"{kind}: {row.what}: {row.count:,}: {row.result}", flush=True)
        if arguments.record:
            timed = f" --minutes {arguments.minutes:g}" if KINDS[kind].by_the_clock else ""
            figures.record(kind, rows, seconds, f"python -m tests.reliability {kind}{timed}")
    if arguments.record:
        figures.PAGE.write_text(figures.page(figures.PAGE.read_text()))


if __name__ == "__main__":
    main()
