"""The picture of ``refnet demo --plot``, by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refnet.errors import ConfigError
from refnet_kernels.contract import Float32Array

_ROWS, _COLUMNS = 3, 8


def save_plot(path: str, images: NDArray[np.uint8], labels: NDArray[np.uint8], probabilities: Float32Array) -> None:
    """Draw the least certain images, each above the probabilities of the classes.

    Parameters
    ----------
    path : str
    images : uint8 array [N, H, W]
    labels : uint8 array [N]
    probabilities : float32 array [N, classes]

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * _COLUMNS, 2.4 * _ROWS), layout="constrained")
    axes = figure.subplots(2 * _ROWS, _COLUMNS, height_ratios=[3, 1] * _ROWS)
    certainty = probabilities[np.arange(len(labels)), labels]
    for place, index in enumerate(np.argsort(certainty, kind="stable")[: _ROWS * _COLUMNS]):
        row, column = divmod(place, _COLUMNS)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        _draw(above, below, images[index], int(labels[index]), probabilities[index])
    figure.suptitle("The held-out digits that the network is least certain of, and its probabilities (red: wrong)")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"The picture cannot be written: {error}.", found=path) from error


def _draw(above: Any, below: Any, image: NDArray[np.uint8], label: int, probabilities: Float32Array) -> None:
    prediction = int(np.argmax(probabilities))
    colour = "tab:blue" if prediction == label else "tab:red"
    above.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    above.set_axis_off()
    above.set_title(f"{prediction} ({probabilities[prediction]:.0%}), is {label}", fontsize=9, color=colour)
    below.bar(range(len(probabilities)), probabilities, color=colour)
    below.set_ylim(0, 1)
    below.set_yticks([])
    below.set_xticks(range(len(probabilities)))
    below.tick_params(labelsize=6, length=0)
    for side in ("top", "left", "right"):
        below.spines[side].set_visible(False)
