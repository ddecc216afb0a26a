"""Two result files of the same benchmark and case: the ratios of their times, B / A, row by row.

uv run benchmarks/compare.py before.json after.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common import read_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    options = parser.parse_args()
    a, b = (read_result(parser, path) for path in (options.a, options.b))
    for key in ("benchmark", "case"):
        if a[key] != b[key]:
            parser.error(f"the files have different {key}s: {options.a} has {a[key]}, {options.b} has {b[key]}.")
    both = [name for name in a["rows"] if name in b["rows"]]
    if not both:
        parser.error(f"{options.a} and {options.b} have no row in common.")
    table = Table()
    for column in ("", "A min ms", "B min ms", "B / A", "A median", "B median", "B / A"):
        table.add_column(column, justify="right" if column else "left")
    for name in both:
        cells = []
        for kind in ("min", "median"):
            first, second = (result["rows"][name]["ms"][kind] for result in (a, b))
            cells += [f"{first:.3f}", f"{second:.3f}", f"{second / first:.3f}"]
        table.add_row(name, *cells)
    Console(width=140).print(table)
    for name in sorted(a["rows"].keys() ^ b["rows"].keys()):
        print(f"only in {options.a if name in a['rows'] else options.b}: {name}")
    both_say = a["machine"].keys() & b["machine"].keys() - {"date", "load_before", "revision"}
    changed = [key for key in a["machine"] if key in both_say and a["machine"][key] != b["machine"][key]]
    if changed:
        print(f"The machines differ in {', '.join(changed)}: only times measured in turn can be compared exactly.")


if __name__ == "__main__":
    main()
