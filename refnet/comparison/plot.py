"""The error along the network as a picture, by matplotlib."""

from __future__ import annotations

import os

from refnet.checks import path_of
from refnet.comparison.result import Result
from refnet.comparison.statistics import FACTOR
from refnet.figures import check_plot, save_figure
from refnet_kernels.system.forks import making

#: What a difference of 0 is drawn as.
_FLOOR = 3e-10
_COLOURS = {"equal bits": "tab:green", "agrees": "tab:blue", "differs": "tab:red"}


def save_plot(comparison: Result, path: str | os.PathLike[str]) -> None:
    """Draw the largest error of each value, the rounding scale, and the first divergence.

    Parameters
    ----------
    comparison : Result
    path : path

    Raises
    ------
    ConfigError
        As `check_plot` raises it, or the file cannot be written.
    """
    name = path_of(path)
    check_plot(name)
    with making:
        from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if row.largest is not None]
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    scales = [row.scale or 0.0 for row in rows]
    axes.plot(places, scales, color="gray", label="rounding scale")
    axes.plot(places, [FACTOR * scale for scale in scales], color="gray", linestyle="--", label=f"{FACTOR} times that")
    for status, colour in _COLOURS.items():
        chosen = [i for i in places if rows[i].status == status]
        errors = [min(max(rows[i].largest or 0.0, _FLOOR), 1e6) for i in chosen]
        axes.scatter(chosen, errors, s=18, color=colour, label=status, zorder=3)
    first = comparison.first_divergence
    if first is not None and first in rows:
        axes.axvline(rows.index(first), color="tab:red", linestyle=":")
    title = comparison.sentences()[0]
    # The font lacks some characters, and a dollar sign would begin a formula.
    plain = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in title[:140])
    axes.set_title(plain.replace("$", r"\$"), fontsize=10)
    axes.set_yscale("log")
    axes.set_xlabel("values in network order")
    axes.set_ylabel("largest error, relative to the largest element")
    axes.legend(fontsize=8)
    save_figure(figure, name)
