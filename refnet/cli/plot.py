"""``refnet plot``: pictures of a network and of what it computes; and the picture of ``refnet demo --plot``."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refnet.cli.console import announce_compilation, print_json
from refnet.cli.options import (
    add_engine_options,
    add_json_option,
    add_weights_options,
    check_engine_options,
    count,
    image_of,
    load,
    offer,
    whole,
)
from refnet.engine import Engine
from refnet.figures import check_plot, save_figure
from refnet.images.preprocess import for_size, preprocess
from refnet.network.networks import NETWORKS
from refnet.plots import dense_features, feature_maps, kernels, network
from refnet_kernels.contract import Float32Array

_EXAMPLES = {
    "network": "refnet plot network resnet_v2_50 net.svg",
    "features": "refnet plot features resnet_v2_50.ckpt maps.png --image cat.jpg --end-point block1",
    "dense": "refnet plot dense resnet_v2_50.ckpt dense.png --image cat.jpg --output-stride 8",
    "kernels": "refnet plot kernels resnet_v2_50.ckpt kernels.png --layer conv1",
}
EPILOG = "\n  ".join(["examples:", *_EXAMPLES.values()]) + "\n"

_ROWS, _COLUMNS = 3, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = parser.add_subparsers(dest="picture", metavar="PICTURE", required=True)
    for kind, text in (
        ("network", "a box for each unit, with shapes and strides"),
        ("features", "channels of an end point"),
        ("dense", "the dense features of an image, over it"),
        ("kernels", "the kernels of a convolution"),
    ):
        sub = kinds.add_parser(
            kind, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False,
            epilog=f"example:\n  {_EXAMPLES[kind]}\n", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        what = "a weights file, or the name of a network" if kind == "network" else "a weights file"
        weights = sub.add_argument("weights", metavar="W", help=what)
        if kind == "network":
            offer(weights, NETWORKS, or_file=True)
        sub.add_argument("output", metavar="FILE", help="the picture to write: .png, .svg, .pdf (extra: plots)")
        if kind != "kernels":
            size = {"network": 224, "dense": 321}.get(kind)
            default = "as in the recipe" if size is None else size
            sub.add_argument("--size", type=count, default=size, metavar="N", help=f"N x N pixels (default {default})")
        add_weights_options(sub)
        if kind in ("features", "dense"):
            sub.add_argument("--image", metavar="I", required=True, help="an image file, or an .npy of pixels")
            add_engine_options(sub)
        if kind == "features":
            sub.add_argument("--end-point", metavar="NAME", required=True, help="its name, or the last parts of it")
            sub.add_argument("--channels", type=count, default=16, metavar="N", help="how many (default 16)")
        if kind == "dense":
            sub.add_argument("--output-stride", type=count, default=8, metavar="S", help="default 8")
        if kind == "kernels":
            sub.add_argument("--layer", metavar="NAME", required=True, help="its name, or the last parts of it: conv1")
            sub.add_argument(
                "--channel", type=whole, metavar="C", help="the input channel (default 0; of three: colours)"
            )
            sub.add_argument("--count", type=count, default=64, metavar="N", help="how many (default 64)")
        add_json_option(sub)


def run(arguments: argparse.Namespace) -> int:
    """Draw the picture; 0."""
    check_plot(arguments.output)
    _write(arguments)
    if arguments.json:
        print_json({"picture": arguments.output})
    return 0


def _write(arguments: argparse.Namespace) -> None:
    if arguments.picture == "network":
        named = arguments.weights in NETWORKS and not os.path.lexists(arguments.weights)
        network(arguments.weights if named else load(arguments.weights, arguments), arguments.output, arguments.size)
        return
    if arguments.picture == "kernels":
        weights = load(arguments.weights, arguments)
        kernels(weights, arguments.layer, arguments.output, arguments.channel, arguments.count)
        return
    check_engine_options(arguments)
    weights = load(arguments.weights, arguments)
    images = image_of(arguments.image, weights.architecture.channels)
    if images.dtype == np.uint8:
        size = arguments.size
        images = preprocess(images, weights.recipe if size is None else for_size(weights.recipe, size, size))
    dense = arguments.picture == "dense"
    options = {"global_pool": False, "num_classes": None, "output_stride": arguments.output_stride} if dense else {}
    announce_compilation()
    engine = Engine(weights, device=arguments.device, threads=arguments.threads, **options)
    if dense:
        dense_features(images, engine(images), arguments.output)
    else:
        _, end_points = engine(images, [arguments.end_point])
        feature_maps(end_points[arguments.end_point], arguments.output, arguments.channels)


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
    save_figure(figure, path)


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
