"""Pictures of networks and of what they compute, by matplotlib (the extra ``plots``).

Each function writes one file, whose format follows from its name: .png, .svg, .pdf, or what else matplotlib writes.
Two pictures are drawn elsewhere: the error along a network by ``refnet compare --plot``, and its layers under the
machine's limits by ``refnet bench --layers --roofline``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import as_int, check_positive, check_text, path_of, shown
from refnet.errors import ConfigError, InputError, WeightsError
from refnet.figures import check_plot, save_figure
from refnet.network.names import full_names
from refnet.resources import for_images, for_weights
from refnet.run.inputs import as_array
from refnet.summary import summarize
from refnet.weights.weights import Weights
from refnet_kernels.contract import FloatArray
from refnet_kernels.system.forks import making

__all__ = ["dense_features", "feature_maps", "kernels", "network"]

#: The first convolution: the root's, or the first of a deep root.
_FIRST = ("conv1", "conv1_1")


class _Stage(NamedTuple):
    """A part of a network that is drawn as one box."""

    row: str
    label: str
    sides: tuple[int, int]
    shape: str
    operation: str


def network(network: str | Mapping[str, Any], path: str | os.PathLike[str], size: int = 224) -> None:
    """Draw a network: a box for each unit, with the shape of its output and its stride.

    Parameters
    ----------
    network : str, or mapping of str to array
        The name of a published network, or weights.
    path : path
        The file to write.
    size : int
        Height and width of the input.

    Raises
    ------
    ConfigError
        There is no such network, matplotlib is missing, or the file cannot be written.
    WeightsError
        The weights are not those of a ResNet.

    Examples
    --------
    >>> import refnet
    >>> refnet.plots.network("resnet_v2_18", "network.svg", size=32)
    """
    name = path_of(path)
    check_plot(name)
    size = as_int(size)
    check_positive(size=size)
    stages = _stages(network, size)
    rows = [list(same) for _, same in groupby(stages, lambda stage: stage.row)]
    boxes = [[(next(run), 1 + len(list(run))) for _, run in groupby(row, _kind)] for row in rows]
    with making:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

    figure = Figure(figsize=(1.6 + 1.5 * max(map(len, boxes)), 0.3 + 1.25 * len(boxes)), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(boxes):
        axes.text(-0.15, -i, row[0][0].row, ha="right", va="center", fontsize=10)
        for j, (stage, count) in enumerate(row):
            height = 0.3 + 0.42 * (max(stage.sides) / size) ** 0.5
            strides = re.search(r"/\d|stride", stage.operation)
            axes.add_patch(
                Rectangle((j, -i - height / 2), 0.86, height, fc="#fdae6b" if strides else "#c6dbef", ec="#444")
            )
            label = stage.label if count == 1 else f"{count} units"
            text = "\n".join(filter(None, (label, stage.shape, stage.operation)))
            axes.text(j + 0.43, -i, text, ha="center", va="center", fontsize=7)
            if j:
                axes.annotate("", (j, -i), (j - 0.14, -i), arrowprops={"arrowstyle": "->", "lw": 0.8})
    axes.set_xlim(-1, max(map(len, boxes)))
    axes.set_ylim(-len(boxes) + 0.4, 0.6)
    axes.set_axis_off()
    save_figure(figure, name)


def _stages(network: str | Mapping[str, Any], size: int) -> list[_Stage]:
    """The network in order, a stage for each unit and each layer outside of units."""
    found: dict[str, _Stage] = {}
    for (name, operation, shape, *_), layer in zip(*_rows_and_layers(network, size), strict=True):
        unit = re.match(r"(.+)/(unit_\d+)(/.+)?$", name)
        if unit is None and re.search(r"/|Relu|BatchNorm", name):
            continue  # what follows a layer has its shape
        row = unit[1] if unit else "root" if not any("/" in key for key in found) else "head"
        key = f"{row}/{unit[2]}" if unit else name
        stride = re.search(r"/\d+$", operation)
        was = found[key].operation if key in found else ""
        label = unit[2].replace("_", " ") if unit else name
        sides = (layer.shape[1], layer.shape[2]) if len(layer.shape) == 4 else (1, 1)
        what = (f"stride {stride[0][1:]}" if stride else was) if unit else operation * (operation != name)
        found[key] = _Stage(row, label, sides, shape, what)
    return list(found.values())


def _rows_and_layers(network: str | Mapping[str, Any], size: int) -> tuple[Any, Any]:
    summary = summarize(network, size)
    return summary.rows, summary.layers


def _kind(stage: _Stage) -> object:
    """Neighbours of the same kind share a box; layers outside of units do not."""
    return (stage.shape, stage.operation) if stage.label.startswith("unit ") else stage.label


@for_weights
def kernels(
    weights: Mapping[str, Any],
    layer: str,
    path: str | os.PathLike[str],
    channel: int | None = None,
    count: int = 64,
) -> None:
    """Draw the kernels of a convolution, a tile for each output channel.

    All tiles have one scale, whose middle is 0. Kernels that read the image's red, green and blue are drawn in colour.
    Of others, and if a channel is chosen, one input channel is drawn: red is above 0 and blue is below.

    Parameters
    ----------
    weights : mapping of str to array
    layer : str
        The convolution's name behind that of the network, in full or its last parts: "conv1" is the root's,
        "block1/unit_1/bottleneck_v2/conv2" one of a unit's.
    path : path
        The file to write.
    channel : int, optional
        The input channel; without it the first one, or all three in colour.
    count : int
        How many kernels: the first ones.

    Raises
    ------
    ConfigError
        There is no such convolution or no such channel, matplotlib is missing, or the file cannot be written.
    WeightsError
        The weights are not those of a ResNet, or hold infinite values or NaN.

    Examples
    --------
    >>> import refnet
    >>> refnet.plots.kernels(refnet.load_weights("digits.ckpt"), "conv1", "kernels.png", count=16)
    """
    name = path_of(path)
    check_plot(name)
    check_text(layer=layer)
    count = as_int(count)
    check_positive(count=count)
    loaded = weights if isinstance(weights, Weights) else Weights(weights)
    full, values = _kernels_of(loaded, layer)
    height, width, channels, outputs = values.shape
    reads_colours = channels == 3 and full in [f"{loaded.architecture.scope}/{first}" for first in _FIRST]
    chosen = _channel(0 if channel is None and not reads_colours else channel, channels)
    values = values[..., :count]
    # [kernels, height, width], or with a last axis of colours.
    tiles = values.transpose(3, 0, 1, 2) if chosen is None else values[:, :, chosen].transpose(2, 0, 1)
    tiles = tiles / max(float(np.abs(tiles).max()), np.finfo(np.float64).tiny)
    with making:
        from matplotlib.figure import Figure

    sheet = _sheet((tiles + 1) / 2, 1.0) if chosen is None else _sheet(tiles, np.nan)
    side = 0.1 * max(30, min(80, max(sheet.shape[:2])))
    figure = Figure(figsize=(side, side * sheet.shape[0] / sheet.shape[1] + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    what = "in colour" if chosen is None else f"input channel {chosen} of {channels}"
    axes.set_title(f"{full}\n{len(tiles)} of {outputs} kernels, {height} x {width}, {what}", fontsize=8)
    axes.set_axis_off()
    save_figure(figure, name)


def _sheet(tiles: FloatArray, line: float) -> FloatArray:
    """Tiles in rows, as near to a square as can be, with a line of one number between them."""
    count, height, width, *colours = tiles.shape
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *colours), line)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _kernels_of(weights: Weights, layer: str) -> tuple[str, FloatArray]:
    """A convolution's name, and its finite kernels in float64.

    Raises
    ------
    ConfigError, WeightsError
    """
    names = [
        name.removesuffix("/weights")
        for name, value in weights.items()
        if name.endswith("/weights") and np.ndim(value) == 4
    ]
    # The units have layers of the root's name.
    under_scope = f"{weights.architecture.scope}/{layer}"
    full = under_scope if under_scope in names else full_names([layer], names, "convolution")[0]
    values = np.asarray(weights[f"{full}/weights"], np.float64)
    if not np.isfinite(values).all():
        raise WeightsError(
            f"The kernels of {shown(full)} cannot be drawn: some values are infinite or NaN.", found=full
        )
    return full, values


def _channel(channel: object, channels: int) -> int | None:
    """The input channel to draw, or None.

    Raises
    ------
    ConfigError
    """
    channel = as_int(channel)
    if channel is None:
        return None
    if not isinstance(channel, int) or isinstance(channel, bool) or not 0 <= channel < channels:
        raise ConfigError(
            f"channel is {shown(channel)}; the input channels of these kernels are the whole numbers from 0 to "
            f"{channels - 1}.",
            found=channel,
        )
    return channel


@for_images
def feature_maps(features: Any, path: str | os.PathLike[str], channels: int = 16) -> None:
    """Draw channels of an end point, each as a picture of its own.

    Parameters
    ----------
    features : float array [H, W, C] or [1, H, W, C]
        An end point of one image.
    path : path
        The file to write.
    channels : int
        How many: those whose values vary most, in their order.

    Raises
    ------
    InputError
        The features are not such an array.
    ConfigError
        matplotlib is missing, or the file cannot be written.

    Examples
    --------
    >>> import refnet
    >>> _, end_points = refnet.forward("digits.ckpt", refnet.load_image("digit3.png"), end_points=True)
    >>> refnet.plots.feature_maps(end_points["resnet_v2_digits/block1"], "maps.png", channels=9)
    """
    name = path_of(path)
    check_plot(name)
    maps = _one_image(features, "The features")
    channels = as_int(channels)
    check_positive(channels=channels)
    varying = np.argsort(-maps.std((0, 1), dtype=np.float64), kind="stable")[:channels]
    with making:
        from matplotlib.figure import Figure

    columns = min(8, len(varying))
    rows = -(-len(varying) // columns)
    figure = Figure(figsize=(1.4 * columns, 1.55 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, channel in zip(grid, np.sort(varying), strict=False):
        axes.imshow(maps[..., channel], cmap="viridis", interpolation="nearest")
        axes.set_title(str(channel), fontsize=7)
    save_figure(figure, name)


@for_images
def dense_features(image: Any, features: Any, path: str | os.PathLike[str]) -> None:
    """Draw how strong the features are at each place, beside the image and over it.

    The centres of the first and the last feature lie on those of the first and the last pixel, as they do where the
    sides of the image are a multiple of the output stride, plus 1.

    Parameters
    ----------
    image : array [H, W, C] or [1, H, W, C]
        Raw or normalised pixels.
    features : float array [h, w, C] or [1, h, w, C]
        What the network makes of it with ``global_pool=False``; the strength is the root of the sum of squares.
    path : path
        The file to write.

    Raises
    ------
    InputError
        The image or the features are not such an array.
    ConfigError
        matplotlib is missing, or the file cannot be written.

    Examples
    --------
    >>> import refnet
    >>> page = refnet.preprocess(refnet.load_image("page.png"), refnet.Recipe(65, 65, 1.0))
    >>> features = refnet.forward("digits.ckpt", page, num_classes=None, global_pool=False, output_stride=4)
    >>> refnet.plots.dense_features(page, features, "dense.png")
    """
    name = path_of(path)
    check_plot(name)
    pixels = _one_image(image, "The image")
    maps = _one_image(features, "The features").astype(np.float64)
    low, high = pixels.min(), pixels.max()
    shown = (pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, -1)) - low
    shown = shown / max(high - low, np.finfo(np.float64).tiny)
    strength = np.sqrt((maps / max(np.abs(maps).max(), np.finfo(np.float64).tiny)) ** 2 @ np.ones(maps.shape[-1]))
    with making:
        from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    height, width = pixels.shape[:2]
    # Half a feature beyond the first and the last pixel.
    step = [(side - 1) / max(1, count - 1) / 2 for side, count in zip((height, width), strength.shape, strict=True)]
    extent = (-step[1], width - 1 + step[1], height - 1 + step[0], -step[0])
    left.imshow(shown)
    left.set_title(f"image, {height} x {width}", fontsize=9)
    middle.imshow(strength, interpolation="nearest")
    middle.set_title(f"features, {strength.shape[0]} x {strength.shape[1]}", fontsize=9)
    right.imshow(shown)
    right.imshow(strength, extent=extent, alpha=0.6, interpolation="nearest")
    right.set_xlim(-0.5, width - 0.5)
    right.set_ylim(height - 0.5, -0.5)
    right.set_title("features over the image", fontsize=9)
    for axes in (left, middle, right):
        axes.set_axis_off()
    save_figure(figure, name)


def _one_image(array: Any, what: str) -> FloatArray:
    """The array of one image, as finite float64 [H, W, C].

    Raises
    ------
    InputError
    """
    values = as_array(array, what)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3 or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise InputError(
            f"{what} {'is' if what.endswith('image') else 'are'} {values.dtype} of shape {values.shape}; wanted are "
            "numbers of shape [H, W, C], of one image.",
            found=values.shape,
        )
    if not np.isfinite(values).all():
        raise InputError(f"{what} cannot be drawn: some values are infinite or NaN.")
    return values.astype(np.float64)
