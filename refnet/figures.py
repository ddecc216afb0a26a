"""Files of matplotlib's figures: whether one can be written, and the writing."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from refnet.errors import ConfigError
from refnet.files import check_target
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.forks import making

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(path: str) -> None:
    """Refuse, before any work, a picture that could not be written.

    Parameters
    ----------
    path : str

    Raises
    ------
    ConfigError
        matplotlib is missing or does not write such files, or there is no such directory.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(f"The picture needs matplotlib, which is not installed: {how_to_get('plots')}")
    with making:
        from matplotlib.backend_bases import FigureCanvasBase

    suffix = os.path.splitext(path)[1].removeprefix(".").lower()
    known = FigureCanvasBase.get_supported_filetypes()
    if suffix not in known:
        raise ConfigError(f"matplotlib cannot write {path!r}; the name can end in .{', .'.join(sorted(known))}.")
    check_target(path, "picture")


def save_figure(figure: Figure, path: str, dpi: int = 120) -> None:
    """Write a figure, with the same bytes each time.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str
    dpi : int
        Pixels per inch.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    with making:
        from matplotlib import rc_context

    # The date of an SVG or a PDF, and an SVG's random names.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(os.path.splitext(path)[1].lower())
    try:
        with rc_context({"svg.hashsalt": "refnet"}):
            figure.savefig(path, dpi=dpi, metadata=metadata)
    except (OSError, ValueError) as error:  # a ValueError where it has too many pixels
        raise ConfigError(f"The picture cannot be written: {error}.", found=path) from error
