"""``refnet convert``: any weights file that refnet reads, as an .npz."""

from __future__ import annotations

import argparse
import os

from refnet.cli.console import print_json, printable
from refnet.cli.failures import file_errors
from refnet.cli.options import add_json_option, load
from refnet.cli.summary import describe, describe_lines, weights_lines, weights_object
from refnet.errors import ConfigError, WeightsError
from refnet.weights import infer_architecture, save_weights

EPILOG = """\
example:
  refnet convert resnet_v2_50.ckpt resnet_v2_50.npz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="A", help="a TensorFlow checkpoint (V1 or V2) or an .npz")
    parser.add_argument("target", metavar="B", help="the .npz to write")
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
        print_json({"path": target, **counts, **weights_object(weights), **describe(architecture)})
        return 0
    print(f"{printable(target)}: {len(weights)} tensors, {parameters:,} parameters")
    for line in weights_lines(weights) + describe_lines(architecture):
        print(printable(line))
    return 0


def _check_target(source: str, target: str, force: bool) -> None:
    """Refuse what would lose a file, before the source is read.

    Raises
    ------
    ConfigError
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise ConfigError(f"{target} is the file to be converted; give another path to write to.", found=target)
    if not target.endswith(".npz"):
        raise ConfigError(f"{target} does not end in .npz, the format that refnet writes.", found=target)
    if os.path.lexists(target) and not force:
        raise ConfigError(f"{target} is there already; pass --force to replace it.", found=target)
