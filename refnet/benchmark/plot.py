"""The roofline: the speed of each layer under the limits of the machine, by matplotlib."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.figures import save_figure
from refnet_kernels.system.forks import making

_COLOURS = {
    "conv 1x1": "#4c72b0",
    "conv 3x3": "#c44e52",
    "conv 7x7": "#8172b3",
    "conv": "#dd8452",
    "batch_norm": "#55a868",
    "batch_statistics": "#64b5cd",
    "group_norm": "#2f6b3f",
    "residual": "#ccb974",
    "max_pool": "#937860",
    "avg_pool": "#c9a27e",
    "mean": "#da8bc3",
}


class Point(NamedTuple):
    """A layer: its kind (an op, a convolution with its window), its work, its speed, and how often it is there."""

    kind: str
    flop: int
    bytes: int
    gflops: float
    times: int = 1


def save_roofline(
    points: Iterable[Point], peak: float, copies: Mapping[str, float], title: str, path: str | os.PathLike[str]
) -> None:
    """Draw every layer that computes, by its intensity and its speed.

    Parameters
    ----------
    points : iterable of Point
    peak : float
        GFLOP/s of multiply-adds in registers.
    copies : mapping of str to float
        GB/s of copies, by the memory that holds them.
    title : str
    path : path

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    with making:
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    shown = [point for point in points if point.flop]
    intensity = [point.flop / point.bytes for point in shown] or [1.0]
    span = np.geomspace(min(intensity) / 1.5, max(intensity) * 1.5, 200)
    for (name, bandwidth), style in zip(copies.items(), ("-", "--", ":"), strict=True):
        roof = np.minimum(peak, span * bandwidth)
        axes.plot(span, roof, style, color="#444444", linewidth=1, label=f"{name}, {bandwidth:.0f} GB/s")
    axes.annotate(f"FMA peak {peak:.0f} GFLOP/s", (span[-1], peak * 1.06), ha="right", fontsize=8)
    for kind, colour in _COLOURS.items():
        chosen = [
            (each, point) for each, point in zip(intensity, shown, strict=False) if _colour_of(point.kind) == kind
        ]
        if chosen:
            x, y = [each for each, _ in chosen], [point.gflops for _, point in chosen]
            sizes = [20 + 12 * point.times for _, point in chosen]
            axes.scatter(x, y, sizes, colour, alpha=0.75, linewidths=0, label=kind)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte, each operand counted once", ylabel="GFLOP/s")
    axes.set_title(title, loc="left", fontsize=10)
    handles: list[Any] = axes.legend(frameon=False, fontsize=8, loc="lower right").legend_handles
    for handle in handles[len(copies) :]:
        handle.set_sizes([40])
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, os.fspath(path), dpi=160)


def _colour_of(kind: str) -> str:
    return kind if kind in _COLOURS else "conv" if kind.startswith("conv") else ""
