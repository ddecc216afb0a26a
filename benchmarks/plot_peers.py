"""Bars of refnet and its peers, one panel per result file of `bench_peers.py`.

uv run --group bench benchmarks/plot_peers.py benchmarks/results/zen4/peers*.json --output bars.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common import read_result
from benchmarks.plots import check_plot, save_bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help=".png, .svg or .pdf")
    options = parser.parse_args()
    check_plot(parser, options.output)
    results = [read_result(parser, path) for path in options.results]
    others = [str(path) for path, found in zip(options.results, results, strict=True) if found["benchmark"] != "peers"]
    if others:
        parser.error(f"not a result of bench_peers.py: {', '.join(others)}.")
    save_bars(results, options.output)


if __name__ == "__main__":
    main()
