"""``refnet compare``: where a network that runs elsewhere diverges from a reference."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING, Any

import refnet
from refnet.cli.console import announce_compilation, print_json, print_table, printable
from refnet.cli.failures import file_errors
from refnet.cli.options import (
    add_engine_options,
    add_json_option,
    add_weights_options,
    check_engine_options,
    image_of,
    load,
    mapping_of,
)
from refnet.errors import ConfigError, InputError
from refnet.figures import check_plot
from refnet.files import check_target
from refnet_kernels.system.forks import once

if TYPE_CHECKING:
    from refnet.comparison.comparison import Comparison
    from refnet.comparison.result import Row

EPILOG = """\
examples:
  refnet compare theirs.npz --weights resnet50.pth --image cat.jpg
  refnet compare theirs.npz --weights resnet50.pth --image pixels.npy --html report.html
  refnet compare cat.safetensors theirs.npz           (a golden, or activations of any framework)
  refnet compare dumps_before/ dumps_after/ --map encoder.out=resnet_v2_50/block4

Activations are an .npz, an .npy, safetensors, a golden, or a directory of .npy files. Names can be
those of TF-Slim, Keras, torchvision, timm, Hugging Face, pytorchcv, KerasHub or ONNX; what has other
names is found by shape, order and value. NCHW and other layouts are recognised. Save what goes into
the network as an .npy of floats, and pass it as --image: then no preprocessing stands in between.

A value agrees if it is off by at most 8 times what the rounding of float32 makes of it.

exit codes: 0 all agrees, 1 something differs, 4 unusable weights, 5 unusable activations or images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="activations to compare with; left out with --weights")
    parser.add_argument("observed", metavar="OBSERVED", nargs="?", help="the activations that are compared")
    parser.add_argument("--weights", metavar="W", help="compute the reference from these weights, of any format")
    parser.add_argument(
        "--image", metavar="I", help="with --weights: an image file, or an .npy of normalised floats or of raw pixels"
    )
    parser.add_argument(
        "--map", dest="mapping", action="append", default=[], metavar="THEIRS=OURS",
        help="which value of the reference an array is, by both names (can be repeated)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="list every value, not only from the first divergence on")
    parser.add_argument("--plot", metavar="FILE", help="draw the error along the network: .png, .svg (extra: plots)")
    parser.add_argument("--html", metavar="FILE", help="write a report as one page of HTML")
    add_engine_options(parser)
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare.

    Returns
    -------
    int
        0, or 1 if something differs.
    """
    check_engine_options(arguments)
    mapping = mapping_of(arguments.mapping)
    if arguments.plot:
        check_plot(arguments.plot)
    if arguments.html:
        check_target(arguments.html, "page")
    comparison = _compared(arguments, mapping)
    if arguments.plot:
        comparison.plot(arguments.plot)
    if arguments.html:
        comparison.html(arguments.html)
    if arguments.json:
        print_json(comparison.to_dict())
    else:
        _print(comparison, everything=arguments.all)
    return 0 if comparison.agrees else 1


def _compared(arguments: argparse.Namespace, mapping: dict[str, str]) -> Comparison:
    if arguments.weights is None:
        if arguments.observed is None:
            raise ConfigError("Pass two files of activations, or one with --weights and --image.")
        if arguments.image is not None:
            raise ConfigError("--image is for --weights, from which the reference is computed.")
        with file_errors(InputError):
            return refnet.compare(arguments.reference, arguments.observed, mapping=mapping)
    if arguments.observed is not None:
        raise ConfigError("With --weights the reference is computed: pass the observed activations alone.")
    if arguments.image is None:
        raise ConfigError("Pass --image: what the observed activations were computed from.")
    weights = load(arguments.weights, arguments)
    images = image_of(arguments.image, weights.architecture.channels)
    announce_compilation()
    options = {"device": arguments.device, "threads": arguments.threads}
    with file_errors(InputError):
        return refnet.compare(weights, arguments.reference, images, mapping=mapping, **options)


@once
def _result() -> ModuleType:
    from refnet.comparison import result

    return result


def _print(comparison: Comparison, *, everything: bool) -> None:
    rows = comparison.rows
    first = comparison.first_divergence
    if first is not None and not everything:
        # The last ones that agree show where it still was well.
        start = max(rows.index(first) - 3, 0)
        rows = [row for row in rows[start:] if row.status != _result().NOT_COMPARED][:_SHOWN]
    if first is not None or everything:
        columns = ["", "observed", "reference", "status", "off by", "rounding", "ULPs", "worst at", "origin", "remarks"]
        print_table(columns, [_cells(row, row is first) for row in rows], numeric=["off by", "rounding", "ULPs"])
        left = len(comparison.rows) - len(rows)
        if left:
            print(f"({left} more values: --all lists them)")
        print()
    for sentence in comparison.sentences():
        print(printable(sentence))
    if first is not None and first.largest is not None:
        print(
            f"There, it is off by {first.largest:.3g} of the largest value at {list(first.where or ())}: expected "
            f"{first.expected!r}, found {first.found!r}."
        )
    for note in comparison.notes:
        print(printable(f"note: {note}"))
    if comparison.not_observed and everything:
        print(printable(f"not observed: {', '.join(comparison.not_observed)}"))


#: Rows that are listed unless all are asked for.
_SHOWN = 24


def _cells(row: Row, first: bool) -> tuple[Any, ...]:
    off, scale = ("" if value is None else f"{value:.3g}" for value in (row.largest, row.scale))
    ulps = "" if row.ulps is None else f"{row.ulps[-1]:,.3g}"
    where = "" if row.where is None else ",".join(map(str, row.where))
    remarks = ", ".join(filter(None, (row.layout, _short(row.note))))
    mark = "->" if first else ""
    reference = "" if row.reference == row.name else row.reference
    return mark, row.name, reference, row.status, off, scale, ulps, where, row.origin, remarks


def _short(note: str) -> str:
    """The first part of a remark; the notes below have it whole."""
    return note.partition(":")[0]
