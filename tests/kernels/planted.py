"""Runs pytest again and again, each time in a fork of this process, which has imported and set up what takes seconds.

    python tests/kernels/planted.py < jobs

``jobs`` is a list in JSON. Of each job, its folder comes first on the path and takes the output, and each of its lists
of arguments is a run of pytest. As many jobs run at a time as there are cores; the number of each is printed once it is
done. What is tested must not be imported here.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import sys
import traceback
from pathlib import Path

import hypothesis  # noqa: F401 - for the forks
import numba
import pytest

OUTPUT = "output"
HANG_SECONDS = 300


def run(folder: str, runs: list[list[str]]) -> None:
    with open(Path(folder) / OUTPUT, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        sys.path.insert(0, folder)
        for arguments in runs:
            pytest.main(arguments)


def main() -> None:
    # With its first function Numba sets up its types.
    numba.cfunc("int64(int64)")(lambda number: number)
    jobs, running = enumerate(json.load(sys.stdin)), {}
    while True:
        for number, job in itertools.islice(jobs, (os.cpu_count() or 1) - len(running)):
            if (child := os.fork()) == 0:
                try:
                    run(*job)
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(0)
            running[child] = number
        if not running:
            break
        print(running.pop(os.wait()[0]), flush=True)


if __name__ == "__main__":
    main()
