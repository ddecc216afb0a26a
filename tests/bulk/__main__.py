"""What batch promises, at full length.

    python -m tests.bulk                  # all kinds
    python -m tests.bulk kills            # 200 kills of jobs of 5,000 images
    python -m tests.bulk resume           # a finished job of a million rows: time and memory of the same command
    python -m tests.bulk speed            # images per second beside the engine alone and the decoder alone
    python -m tests.bulk runners          # one hash: this process, Daft, Ray, Spark; workers and batches
    python -m tests.bulk peers            # Daft's own UDF with ONNX Runtime, beside Daft with refnet

Kinds whose packages are missing say so. A failure ends with an AssertionError.
"""

from __future__ import annotations

import argparse
import signal
import time
from importlib import import_module

from tests.reliability.figures import Row, machine

KINDS = ("kills", "resume", "speed", "runners", "peers")


def main() -> None:
    # A shell starts its background jobs with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all if none is given")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"{', '.join(sorted(unknown))} is not one of {', '.join(KINDS)}")
    print(machine())
    for kind in arguments.kinds or KINDS:
        start = time.perf_counter()
        rows: list[Row] = import_module(f"tests.bulk.{kind}").long()
        for row in rows:
            print(f"{kind}: {row.what}: {row.count:,}: {row.result}", flush=True)
        print(f"{kind}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
