"""``refnet diagnose``: which porting mistake reproduces what a port gave."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import refnet
from refnet.cli.console import announce_compilation, print_json, printable, progress_bar
from refnet.cli.failures import file_errors
from refnet.cli.options import (
    add_json_option,
    add_threads_option,
    add_weights_options,
    image_of,
    load,
    mapping_of,
    seconds,
    sources,
)
from refnet.diagnosis import PAIR_SECONDS
from refnet.errors import InputError

if TYPE_CHECKING:
    from refnet.diagnosis.diagnosis import Diagnosis, Finding

EPILOG = """\
examples:
  refnet diagnose logits.npy --weights resnet_v2_50.ckpt --image cat.jpg
  refnet diagnose logits.npy --weights resnet_v2_50.ckpt --image input.npy --json

OBSERVED holds what the port gave for the image: logits, probabilities or features, as .npy, or as .npz or safetensors
with names that say what they are (logits, predictions). The image is a file, or an .npy: raw uint8 pixels, or the
network's input as floats. A mistake is named only if the network with it gives what was observed, within rounding, and
without it does not.

exit codes: 0 the outputs are right, 1 they are not, 4 weights, 5 unusable outputs or image
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("observed", metavar="OBSERVED", help="what the port gave: .npy, .npz or safetensors")
    parser.add_argument("--weights", required=True, metavar="W", help="the weights, as for refnet predict")
    parser.add_argument(
        "--image", required=True, metavar="I", help="the image: an image file, as for refnet predict, or an .npy"
    )
    parser.add_argument(
        "--map", dest="mapping", action="append", default=[], metavar="THEIRS=OURS",
        help="which value of the network an array is, by both names (can be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--pairs", action=argparse.BooleanOptionalAction, default=True,
        help="look for two mistakes at once where no single one explains the outputs (default: yes)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=seconds, default=PAIR_SECONDS, metavar="SECONDS",
        help="for how long pairs are tried (default: %(default)g); single mistakes are tried to the end",
    )  # fmt: skip
    add_threads_option(parser)
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Diagnose.

    Returns
    -------
    int
        0 if the outputs are right, else 1.
    """
    mapping = mapping_of(arguments.mapping)
    with file_errors(InputError):
        observed = sources().arrays_of(
            arguments.observed, "the outputs"
        )  # bad ones are reported before the weights are loaded
    weights = load(arguments.weights, arguments)
    image = image_of(arguments.image, weights.architecture.channels)
    announce_compilation()
    options = {"threads": arguments.threads} if arguments.threads is not None else {}
    with progress_bar() as progress:
        found = refnet.diagnose(
            weights, image, observed.arrays, mapping=mapping, pairs=arguments.pairs, limit=arguments.limit,
            progress=progress, **options,
        )  # fmt: skip
    if arguments.json:
        print_json(found.to_dict())
    else:
        _print(found)
    return 0 if found.correct else 1


def _print(found: Diagnosis) -> None:
    print(printable(found.summary))
    for finding in found.mistakes:
        print()
        _print_finding(finding)
    if found.ties:
        print()
        print("These images cannot tell it apart from:")
        for finding in found.ties:
            print(printable(f"  {finding}"))
    if found.nearest:
        print()
        print("Nearest, which proves nothing:")
        for finding in found.nearest:
            print(printable(f"  {finding}: leaves {finding.error_after:.1e}"))
    for note in found.notes:
        print()
        print(printable(note))
    if found.tried:
        print()
        print(f"{found.tried:,} hypotheses in {found.seconds:.1f} s")


def _print_finding(finding: Finding) -> None:
    print(printable(str(finding)))
    print(printable(f"  the port {finding.does}"))
    print(printable(f"  it must {finding.should}"))
    for framework, line in finding.mend.items():
        print(printable(f"  {framework + ':':<12} {line}"))
    if finding.sources:
        print(printable(f"  met at {', '.join(finding.sources)}"))
