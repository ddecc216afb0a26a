"""``refnet convert``: any weights file that refnet reads, in any format that it writes."""

from __future__ import annotations

import argparse
import os
from typing import Any

from refnet.cli.console import print_json, printable
from refnet.cli.failures import file_errors
from refnet.cli.options import add_json_option, load
from refnet.cli.summary import describe, describe_lines, weights_lines, weights_object
from refnet.errors import ConfigError, WeightsError
from refnet.weights import Weights, infer_architecture, save_weights

EPILOG = """\
examples:
  refnet convert resnet_v2_50.ckpt resnet_v2_50.safetensors
  refnet convert resnet50v2.h5 model.ckpt    # writes model.ckpt.index and model.ckpt.data-00000-of-00001
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", metavar="A", help="a TensorFlow checkpoint (V1 or V2), safetensors, .npz, or Keras' .h5 or .keras"
    )
    parser.add_argument(
        "target", metavar="B", help="what to write, by its name: .npz, .safetensors, or .ckpt for a checkpoint (V2)"
    )
    parser.add_argument("--force", action="store_true", help="replace B if it is there")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the file; 0."""
    source, target = arguments.source, arguments.target
    _check_target(source, target, arguments.force)
    weights = load(source)
    with file_errors(WeightsError):
        save_weights(target, weights)
    architecture = infer_architecture(weights)
    parameters = sum(tensor.size for tensor in weights.values())
    if arguments.json:
        counts = {"tensors": len(weights), "parameters": parameters}
        report = {**_report(weights), **weights_object(weights), **describe(architecture)}
        print_json({"path": target, **counts, **report})
        return 0
    print(f"{printable(target)}: {len(weights)} tensors, {parameters:,} parameters")
    for what, tensors in _report(weights).items():
        print(f"{what.replace('_', ' ')}: {len(tensors)}")
    for line in weights_lines(weights) + describe_lines(architecture):
        print(printable(line))
    if weights.options:
        print(f"TF-Slim reads no options: there, without {', '.join(weights.options)}, it is another function.")
    return 0


def _report(weights: Weights) -> dict[str, Any]:
    """Which tensors are the network's, which are written beside them, are of another dtype, or are not written."""
    conversion = weights.conversion
    return {
        "mapped": {conversion.renamed.get(name, name): name for name in weights if name not in conversion.extra},
        "extra": conversion.extra,
        "converted": conversion.converted,
        "left_out": conversion.left_out,
    }


def _check_target(source: str, target: str, force: bool) -> None:
    """Refuse what would lose a file, before the source is read.

    Raises
    ------
    ConfigError
    """
    from refnet.formats import files_written

    files = files_written(target)
    if os.path.realpath(source) in map(os.path.realpath, [target, *files]):
        raise ConfigError(f"{target} is the file to be converted; give another path to write to.", found=target)
    there = [file for file in files if os.path.lexists(file)]
    if there and not force:
        raise ConfigError(f"{there[0]} is there already; pass --force to replace it.", found=there[0])
