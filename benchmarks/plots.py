"""The benchmarks' figures, by matplotlib."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refnet.benchmark.plot import Point, save_roofline

#: refnet, and all the others.
COLOURS = ("#c44e52", "#8c9cb0")


def check_plot(parser: argparse.ArgumentParser, path: Path) -> None:
    """End the program, before any work, if the figure could not be written."""
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("figures need matplotlib, which is not installed; `uv run --group bench` installs it.")
    if path.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"the name of a figure is {path}; it can end in .png, .svg or .pdf.")
    if not path.parent.is_dir():
        parser.error(f"{path} cannot be written: there is no directory {path.parent}.")


def case_title(case: Mapping[str, Any]) -> str:
    """A case of `bench_peers` in a line."""
    text = f"{case['network']}, {case['size']} x {case['size']}, batch {case['batch']}"
    if case["output_stride"] is not None:
        text += f", output stride {case['output_stride']}"
    return f"{text}, {case['threads']} thread{'s' if case['threads'] > 1 else ''}"


def save_bars(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel per result of `bench_peers`: a bar to each engine's minimum, and a line from there to its median."""
    from matplotlib.figure import Figure

    rows = sum(len(result["rows"]) for result in results)
    figure = Figure(figsize=(7, 0.9 * len(results) + 0.32 * rows), layout="constrained")
    heights = [len(result["rows"]) + 1 for result in results]
    panels = figure.subplots(len(results), squeeze=False, height_ratios=heights)[:, 0]
    for axes, result in zip(panels, results, strict=True):
        _bars(axes, result)
    panels[-1].set_xlabel(
        "ms per inference: bar to the minimum, line to the median\ndots: all products of the convolutions at the peak"
    )
    figure.savefig(path, dpi=160)


def _bars(axes: Any, result: Mapping[str, Any]) -> None:
    rows = sorted(result["rows"].items(), key=lambda item: item[1]["ms"]["median"])
    names = [name for name, _ in rows]
    least, median = ([row["ms"][kind] for _, row in rows] for kind in ("min", "median"))
    colours = [COLOURS[name != "refnet"] for name in names]
    axes.barh(names, least, height=0.65, color=colours)
    axes.hlines(range(len(names)), least, median, color="#444444", linewidth=1.5)
    for place, (low, middle) in enumerate(zip(least, median, strict=True)):
        axes.annotate(f"{low:.3g} / {middle:.3g}", (middle, place), (4, 0), textcoords="offset points", va="center")
    if "floor_ms" in result:
        axes.axvline(result["floor_ms"]["min"], color="#444444", linewidth=1, linestyle=":")
    axes.set_xlim(0, 1.18 * max(median))
    axes.invert_yaxis()
    axes.set_title(case_title(result["case"]), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def save_kernels(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Results of `bench_kernels` on one machine as one roofline."""
    points = [
        Point(f"{row['op']} {row['kernel']}".rstrip(), row["flop"], row["bytes"], row["gflops"], row["times"])
        for result in results
        for row in result["rows"].values()
    ]
    peak = max(result["peak_gflops"] for result in results)
    copies = {name: max(result["gb_per_s"][name] for result in results) for name in results[0]["gb_per_s"]}
    case = results[0]["case"]
    shapes = " and ".join(result["case"]["shapes"] for result in results)
    title = f"{shapes}, threads: {case['threads']}, zeros: {case.get('zeros', 0):.0%}"
    save_roofline(points, peak, copies, title, path)
