"""``refnet golden``: record a network's end points in a file, or compare them with a record."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

from refnet.cli.console import announce_compilation, print_json, print_table, printable
from refnet.cli.failures import file_errors
from refnet.cli.options import (
    add_engine_options,
    add_json_option,
    add_recipe_option,
    add_weights_options,
    check_engine_options,
    count,
    load,
    offer,
    option,
    option_words,
    recipe_choice,
)
from refnet.errors import ConfigError, GoldenError, InputError
from refnet.evidence.environment import versions
from refnet.evidence.golden import OPTIONS, Report, check, record
from refnet.evidence.golden_file import Golden, read_golden
from refnet.evidence.updating import size_text
from refnet.images.files import load_image
from refnet.images.preprocess import Recipe, check_recipe, for_size
from refnet.network.networks import NETWORKS
from refnet.weights.weights import Weights

EPILOG = """\
examples:
  refnet golden record cat.safetensors --weights resnet_v2_50.ckpt --image cat.jpg
  refnet golden check cat.safetensors --weights resnet_v2_50.ckpt --image cat.jpg --threads 1
  refnet golden record seeded.safetensors --weights resnet_v2_50 --random 7 --size 64 --hashes-only
  refnet golden check seeded.safetensors
"""

_RECORD_EPILOG = """\
examples:
  refnet golden record cat.safetensors --weights resnet_v2_50.ckpt --image cat.jpg
  refnet golden record seeded.safetensors --weights resnet_v2_50 --random 7 --size 64 --hashes-only
"""

_CHECK_EPILOG = """\
examples:
  refnet golden check cat.safetensors --weights resnet_v2_50.ckpt --image cat.jpg --threads 1
  refnet golden check seeded.safetensors

ULPs are units in the last place of an end point's largest value. "roundings" counts the roundings on the longest way
from the image to the end point. A rounding moves its result by at most half a unit in its last place, and most of them
cancel: another order of the same sums stays well below that many ULPs (a tenth, in the networks of refnet selfcheck),
another function does not. It is a scale, not a bound: where large values cancel, small errors grow.

exit codes: 0 the same bits, 1 other bits, 4 other weights, 5 another image, or no usable golden
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``record`` and ``check``."""
    actions = parser.add_subparsers(metavar="record|check", required=True)
    sub = actions.add_parser(
        "record",
        help="run a network and keep its end points",
        description="Run a network and keep its end points.",
        epilog=_RECORD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.add_argument("golden", metavar="OUT", help="the .safetensors to write")
    _add_inputs(sub)
    add_recipe_option(sub)
    sub.add_argument("--random", type=int, metavar="SEED", help="a seeded image; also seeds a network given by name")
    sub.add_argument(
        "--size", type=count, metavar="N", help="size of the seeded image, or resize the image to it: N x N"
    )
    sub.add_argument("--end-points", nargs="+", metavar="NAME", help="which to keep, besides the net (default: all)")
    options = sub.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE",
        help="an option of refnet.Engine, such as output_stride=8 or global_pool=false",
    )  # fmt: skip
    offer(options, option_words(OPTIONS - {"blocks"}))
    sub.add_argument("--hashes-only", action="store_true", help="keep only hashes, no values: a file of some KB")
    sub.add_argument("--store-image", action="store_true", help="keep the normalised image too")
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")
    _finish(sub, _record)
    sub = actions.add_parser(
        "check",
        help="compare with a record",
        description="Compare a network with a record.",
        epilog=_CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.add_argument("golden", metavar="GOLDEN", help="a file that `refnet golden record` wrote")
    _add_inputs(sub)
    _finish(sub, _check)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add_weights_options(parser, with_options=False)
    weights = parser.add_argument(
        "--weights", metavar="W", help=f"a weights file, as for refnet predict, or one of {', '.join(NETWORKS)}"
    )
    offer(weights, NETWORKS, or_file=True)
    parser.add_argument("--image", metavar="I", help="a PNG, JPEG, GIF, BMP, WebP, TIFF or AVIF file")


def _finish(parser: argparse.ArgumentParser, action: Any) -> None:
    add_engine_options(parser)
    add_json_option(parser)
    parser.set_defaults(action=action)


def run(arguments: argparse.Namespace) -> int:
    """Record or check.

    Returns
    -------
    int
        0, or 1 if bits differ.
    """
    check_engine_options(arguments)
    announce_compilation()
    code: int = arguments.action(arguments)
    return code


def _record(arguments: argparse.Namespace) -> int:
    if arguments.weights is None:
        raise ConfigError("Pass --weights: a file, or the name of a network.")
    if (arguments.image is None) == (arguments.random is None):
        raise ConfigError("Pass --image, or --random SEED for a seeded image.")
    if os.path.lexists(arguments.golden) and not arguments.force:
        raise ConfigError(f"{arguments.golden} exists already; pass --force to replace it.", found=arguments.golden)
    options = dict(option(text, OPTIONS - {"blocks"}) for text in arguments.option)
    weights: str | Weights = arguments.weights
    if arguments.weights in NETWORKS:
        channels, (named, fields) = 3, recipe_choice(arguments.of_recipe)
        recipe = check_recipe((named or Recipe())._replace(**fields))
    else:
        weights = load(arguments.weights, arguments)
        channels, recipe = weights.architecture.channels, weights.recipe
    size = arguments.size or 224
    images: Any = (size, size, channels) if arguments.image is None else _image(arguments.image, channels)
    if arguments.size:
        recipe = for_size(recipe, size, size)
    with file_errors(GoldenError):
        golden = record(
            arguments.golden, weights, images, end_points=arguments.end_points or True, recipe=recipe,
            seed=arguments.random or 0, hashes_only=arguments.hashes_only, store_images=arguments.store_image,
            device=arguments.device, threads=arguments.threads, **options,
        )  # fmt: skip
    net = golden.end_points["net"]
    if arguments.json:
        hashes = {name: end_point.sha256 for name, end_point in golden.end_points.items()}
        print_json({"path": arguments.golden, "weights": golden.weights, "images": golden.images, "end_points": hashes})
        return 0
    print(printable(f"{arguments.golden}: {len(golden.end_points)} end points, images of shape {list(golden.shape)}"))
    print(f"net's SHA-256      {net.sha256}")
    print(f"weights' SHA-256   {golden.weights}")
    print(f"images' SHA-256    {golden.images}")
    print(f"file's size        {size_text(os.path.getsize(arguments.golden), bool(golden.values), '--hashes-only')}")
    return 0


def _image(path: str, channels: int) -> np.ndarray:
    with file_errors(InputError):
        return load_image(path, channels)


def _check(arguments: argparse.Namespace) -> int:
    with file_errors(GoldenError):
        golden = read_golden(arguments.golden)  # a bad one is reported before the weights are loaded
    weights: str | Weights | None = arguments.weights
    if isinstance(weights, str) and weights not in NETWORKS:
        # Raw pixels go through the golden's recipe, so that of the weights does not matter.
        weights = load(weights, arguments, recipe=golden.recipe or Recipe())
    images = None if arguments.image is None else _image(arguments.image, golden.shape[-1])
    report = check(arguments.golden, weights, images, device=arguments.device, threads=arguments.threads)
    if arguments.json:
        print_json(
            {
                "golden": report.path,
                "same": not report.differing,
                "recorded_with": golden.made_with,
                "checked_with": versions(),
                "end_points": [row._asdict() for row in report.rows],
            }
        )
    else:
        _print(report, golden)
    return 1 if report.differing else 0


def _print(report: Report, golden: Golden) -> None:
    if not report.differing:
        print(printable(str(report)))
        return
    rows = [
        (row.name, "x".join(map(str, row.shape)), _number(row.elements), _number(row.ulps), f"{row.roundings:,}")
        for row in report.differing
    ]
    columns = ["end points that differ, in network order", "shape", "elements", "ULPs", "roundings"]
    print_table(columns, rows, numeric=columns[2:])
    print()
    for line in str(report).splitlines()[:2]:
        print(printable(line))
    for what, made_with in (("recorded", golden.made_with), ("checked", versions())):
        print(printable(f"{what} with {', '.join(f'{name} {version}' for name, version in made_with.items())}"))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
