"""The benchmarks' figures, by matplotlib."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: refnet, and all the others.
COLOURS = ("#c44e52", "#8c9cb0")
OP_COLOURS = {
    "conv 1x1": "#4c72b0",
    "conv 3x3": "#c44e52",
    "conv 7x7": "#8172b3",
    "batch_norm": "#55a868",
    "batch_statistics": "#64b5cd",
    "residual": "#ccb974",
    "max_pool": "#937860",
    "mean": "#da8bc3",
}


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


def _kind(row: Mapping[str, Any]) -> str:
    return f"conv {row['kernel']}" if row["op"] == "conv" else str(row["op"])


def save_roofline(result: Mapping[str, Any], path: Path) -> None:
    """Every layer of `bench_kernels` by its intensity and speed, under the roofs measured in the same run."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in result["rows"].values() if row["flop"]]
    intensity = [row["flop"] / row["bytes"] for row in rows]
    span = np.geomspace(min(intensity) / 1.5, max(intensity) * 1.5, 200)
    peak = result["peak_gflops"]
    for (name, bandwidth), style in zip(result["gb_per_s"].items(), ("-", "--", ":"), strict=True):
        roof = np.minimum(peak, span * bandwidth)
        axes.plot(span, roof, style, color="#444444", linewidth=1, label=f"{name}, {bandwidth:.0f} GB/s")
    axes.annotate(f"FMA peak {peak:.0f} GFLOP/s", (span[-1], peak * 1.06), ha="right", fontsize=8)
    for kind, colour in OP_COLOURS.items():
        chosen = [
            (i, row["gflops"], row["times"]) for i, row in zip(intensity, rows, strict=True) if _kind(row) == kind
        ]
        if chosen:
            x, y, times = zip(*chosen, strict=True)
            axes.scatter(x, y, [20 + 12 * t for t in times], colour, alpha=0.75, linewidths=0, label=kind)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte, each operand counted once", ylabel="GFLOP/s")
    case = result["case"]
    axes.set_title(f"{case['shapes']}, threads: {case['threads']}, zeros: {case['zeros']:.0%}", loc="left", fontsize=10)
    handles: list[Any] = axes.legend(frameon=False, fontsize=8, loc="lower right").legend_handles
    for handle in handles[len(result["gb_per_s"]) :]:
        handle.set_sizes([40])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
