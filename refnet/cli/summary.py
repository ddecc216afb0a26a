"""``refnet summary``: the layers and parameters of a network."""

from __future__ import annotations

import argparse
import difflib
import os
from typing import Any

from refnet.cli.console import print_json, print_table, printable
from refnet.cli.options import add_json_option, add_weights_options, count, load, offer, recipe_text
from refnet.errors import ConfigError
from refnet.images import doubts
from refnet.images.labels import IMAGENET, WITH_BACKGROUND
from refnet.images.preprocess import fields_of
from refnet.network.architecture import Architecture
from refnet.network.networks import NETWORKS
from refnet.summary import COLUMNS, Summary, summarize
from refnet.weights.weights import Weights

EPILOG = f"""\
examples:
  refnet summary resnet_v2_50.ckpt
  refnet summary resnet_v2_101 --size 299 --json

networks: {", ".join(NETWORKS)}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    network = parser.add_argument("network", metavar="W", help="a weights file, or the name of a network")
    offer(network, NETWORKS, or_file=True)
    parser.add_argument("--size", type=count, default=224, metavar="N", help="an input of N x N pixels (default 224)")
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the summary; 0."""
    network = arguments.network
    if os.path.lexists(network) or not _is_name(network):
        weights = load(network, arguments)
        summary = summarize(weights, arguments.size)
    else:
        weights = None
        summary = summarize(network, arguments.size)
    if arguments.json:
        print_json({**_as_object(summary, weights), "warnings": _doubts(weights, arguments.size)})
    else:
        _print(summary, weights, arguments.size)
    return 0


def _doubts(weights: Weights | None, size: int) -> list[str]:
    """Warnings about running the weights on an input of this size."""
    doubt = doubts.size((size, size), weights.image_size) if weights is not None else None
    return [doubt] if doubt else []


def _is_name(network: str) -> bool:
    """Whether this is the name of a network, not of a file.

    Raises
    ------
    ConfigError
        There is no such network, but some have similar names.
    """
    if network in NETWORKS:
        return True
    near = difflib.get_close_matches(network.lower(), NETWORKS, n=4)
    if near and "." not in network and os.sep not in network and not os.path.exists(f"{network}.index"):
        raise ConfigError(
            f"There is no network and no file {network!r}; the nearest networks are {', '.join(near)}.",
            expected=near,
            found=network,
        )
    return False


def describe(architecture: Architecture) -> dict[str, Any]:
    """The architecture as an object for ``--json``."""
    blocks = [{"name": block.scope, "units": list(block.args)} for block in architecture.blocks]
    return {**architecture._asdict(), "blocks": blocks}


def describe_lines(architecture: Architecture) -> list[str]:
    """The architecture in words."""
    lines = [
        f"scope: {architecture.scope or '(none)'}",
        f"classes: {_classes_text(architecture.num_classes)}",
        f"root block: {'yes' if architecture.include_root_block else 'no'}, {architecture.channels} input channels",
    ]
    for block in architecture.blocks:
        unit = block.args[-1]
        kind = f"bottleneck {unit['depth_bottleneck']}" if len(architecture.family.kernel_sizes) > 2 else "basic"
        lines.append(f"{block.scope}: {len(block.args)} units, depth {unit['depth']}, {kind}, stride {unit['stride']}")
    return lines


def _classes_text(classes: int | None) -> str:
    """How many classes, and the offset of ImageNet's if the number fits."""
    if classes is None:
        return "none (features)"
    known = {IMAGENET: " (as ImageNet; offset 0)", WITH_BACKGROUND: " (as ImageNet after a background; offset 1)"}
    return f"{classes}{known.get(classes, '')}"


def weights_lines(weights: Weights) -> list[str]:
    """What a file says besides its tensors, and what became of them."""
    return [
        f"format: {weights.source}",
        f"recipe: {recipe_text(weights.recipe)}",
        *([f"recipe from: {weights.conversion.recipe_from}"] if weights.conversion.recipe_from else []),
        *([f"labels: {len(weights.labels)}"] if weights.labels is not None else []),
        *(f"{name}: {value}" for name, value in weights.options.items()),
        *(f"note: {note}" for note in weights.notes),
    ]


def weights_object(weights: Weights) -> dict[str, Any]:
    """`weights_lines` for ``--json``."""
    return {
        "format": weights.source,
        "recipe": fields_of(weights.recipe),
        "recipe_from": weights.conversion.recipe_from,
        "options": dict(weights.options),
        "notes": weights.notes,
    }


def _as_object(summary: Summary, weights: Weights | None) -> dict[str, Any]:
    return {
        **describe(summary.architecture),
        **(weights_object(weights) if weights is not None else {}),
        "layers": [layer._asdict() for layer in summary.layers],
        "parameters": {
            "total": summary.total,
            "trainable": summary.trainable,
            "non_trainable": summary.non_trainable,
        },
    }


def _print(summary: Summary, weights: Weights | None, size: int) -> None:
    print_table(COLUMNS, summary.rows, numeric=["parameters"])
    print()
    for line in summary.totals:
        print(line)
    lines = describe_lines(summary.architecture) + (weights_lines(weights) if weights is not None else [])
    for line in [f"input: {size} x {size}", *lines]:
        print(printable(line))
    for doubt in _doubts(weights, size):
        print(f"warning: {doubt}")
