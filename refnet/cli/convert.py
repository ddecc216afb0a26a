"""``refnet convert``: any weights file that refnet reads, in any format that it writes."""

from __future__ import annotations

import argparse
import os
from typing import Any

from refnet.checks import listed, path_of
from refnet.cli.console import print_json, printable
from refnet.cli.failures import file_errors
from refnet.cli.options import add_json_option, add_weights_options, load
from refnet.cli.summary import describe, describe_lines, weights_lines, weights_object
from refnet.errors import ConfigError, WeightsError
from refnet.graph.graph import Graph
from refnet.weights.files import save_weights
from refnet.weights.weights import Weights

EPILOG = """\
examples:
  refnet convert resnet_v2_50.ckpt resnet_v2_50.safetensors
  refnet convert resnet50v2.h5 resnet50v2.npz
  refnet convert model.npz model.ckpt    # writes model.ckpt.index and model.ckpt.data-00000-of-00001

A checkpoint cannot tell TF-Slim about options that TF-Slim does not have. Weights with such options are refused, and
so are weights that lack tensors of their network; --anyway writes them, and the report says what is wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source",
        metavar="A",
        help="a TensorFlow checkpoint or SavedModel, safetensors, .npz, PyTorch's .pth, ONNX, Keras' .h5 or .keras",
    )
    parser.add_argument(
        "target", metavar="B", help="the file to write: .npz, .safetensors, or .ckpt for a checkpoint (V2)"
    )
    parser.add_argument("--force", action="store_true", help="replace B if it exists")
    parser.add_argument(
        "--anyway", action="store_true", help="write B even if it lacks tensors, or is another function in TF-Slim"
    )
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the file; 0."""
    source, target = path_of(arguments.source), path_of(arguments.target)
    _check_target(source, target, arguments.force)
    weights = load(source, arguments)
    architecture = weights.architecture
    graph = architecture.graph(weights, weights.arg_scope)
    if not arguments.anyway:
        _check_whole(graph)
        _check_function(target, weights, graph)
    with file_errors(WeightsError):
        save_weights(target, weights)
    parameters = sum(tensor.size for tensor in weights.values())
    if arguments.json:
        counts = {"tensors": len(weights), "parameters": parameters}
        report = {**_report(weights, graph), **weights_object(weights), **describe(architecture)}
        print_json({"path": target, **counts, **report})
        return 0
    print(f"{printable(target)}: {len(weights)} tensors, {parameters:,} parameters")
    report = _report(weights, graph)
    for what, tensors in report.items():
        print(f"{what.replace('_', ' ')}: {len(tensors)}")
    for name, entry in report["missing"].items():
        print(printable(f"missing: {name}" + (f" (is it {entry['near']}?)" if entry["near"] else "")))
    for name, entry in report["misshaped"].items():
        print(printable(f"misshaped: {name} should have shape {entry['expected']}, but has {entry['found']}"))
    for line in weights_lines(weights) + describe_lines(architecture):
        print(printable(line))
    differences = _differences(weights, graph)
    if differences:
        print(f"{_function(differences)} refnet reads this from the file; in other programs it is another function.")
    return 0


def _report(weights: Weights, graph: Graph) -> dict[str, Any]:
    """What became of each tensor of the file, and how the result fits its network.

    ``mapped``: the file's name and TF-Slim's; ``added``: zeros where the file's network has no tensor; ``missing``: the
    shape, and an unused tensor that may be the one; ``changes``: options that differ from TF-Slim's, and TF-Slim's.
    """
    conversion = weights.conversion
    own = [name for name in weights if name not in conversion.extra and name not in conversion.added]
    near = graph.nearest(graph.missing)
    return {
        "mapped": {conversion.renamed.get(name, name): name for name in own},
        "added": conversion.added,
        "missing": {name: {"shape": shape, "near": near.get(name)} for name, shape in graph.missing},
        "misshaped": {name: {"expected": shape, "found": found} for name, shape, found in graph.misshaped},
        "extra": conversion.extra,
        "converted": conversion.converted,
        "left_out": conversion.left_out,
        "changes": {name: {"value": value, "slim": slim} for name, (value, slim) in weights.changes.items()},
    }


def _check_whole(graph: Graph) -> None:
    """Refuse weights that lack tensors of their network, or have them of other shapes, before anything is written.

    Raises
    ------
    MissingTensorError, ShapeMismatchError
    """
    try:
        graph.check_variables()
    except WeightsError as error:
        message = f"{error.message} Nothing was written; --anyway writes what there is."
        raise type(error)(message, tensor=error.tensor, expected=error.expected, found=error.found) from error


def _check_function(target: str, weights: Weights, graph: Graph) -> None:
    """Refuse a checkpoint that would be another function in TF-Slim.

    Raises
    ------
    ConfigError
    """
    from refnet.weights.formats import is_checkpoint

    differences = _differences(weights, graph)
    if differences and is_checkpoint(target):
        raise ConfigError(
            f"{_function(differences)} A checkpoint is for TF-Slim, and would be another function there. "
            "Write .safetensors or .npz, or pass --anyway.",
            expected={name: slim for name, (_, slim) in weights.changes.items()},
            found={name: value for name, (value, _) in weights.changes.items()},
        )


def _differences(weights: Weights, graph: Graph) -> list[str]:
    """How the function differs from TF-Slim's: its options, and tensors that TF-Slim would not read."""
    found = [f"{name}={value!r} (TF-Slim: {slim!r})" for name, (value, slim) in weights.changes.items()]
    beyond = sorted(graph.used - {name for name, _ in weights.architecture.variables(weights.arg_scope)})
    if beyond:
        found.append(f"{len(beyond)} tensors that TF-Slim does not read ({listed(beyond, 1)})")
    return found


def _function(differences: list[str]) -> str:
    return f"The network has {', '.join(differences)}."


def _check_target(source: str, target: str, force: bool) -> None:
    """Refuse to overwrite a file, before the source is read.

    Raises
    ------
    ConfigError
    """
    from refnet.weights.formats import files_written

    files = files_written(target)
    if os.path.realpath(source) in map(os.path.realpath, [target, *files]):
        raise ConfigError(f"{target} is the file to be converted; pass another path to write to.", found=target)
    there = [file for file in files if os.path.lexists(file)]
    if there and not force:
        raise ConfigError(f"{there[0]} exists already; pass --force to replace it.", found=there[0])
