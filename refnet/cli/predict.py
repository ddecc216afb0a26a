"""``refnet predict``: the most probable classes of images."""

from __future__ import annotations

import argparse
import sys
from typing import Any, BinaryIO

import numpy as np

from refnet.cli.console import print_json, print_table, printable, say, track
from refnet.cli.failures import FileError, as_object, file_errors
from refnet.cli.options import (
    add_dense_option,
    add_engine_options,
    add_json_option,
    add_weights_options,
    check_engine_options,
    check_image_channels,
    count,
    fraction,
    load,
    make_engine,
    read_labels,
    recipe_text,
)
from refnet.engine import Engine
from refnet.errors import ConfigError, InputError
from refnet.images.files import load_image
from refnet.images.labels import IMAGENET, WITH_BACKGROUND, classes_of
from refnet.images.preprocess import Recipe, fields_of, for_size
from refnet.weights.weights import Weights

EPILOG = """\
examples:
  refnet predict cat.jpg dog.png --weights resnet_v2_50.ckpt --labels imagenet.txt
  refnet predict digit.png --weights digits.npz --size 32 --central-fraction 1 --json
  refnet predict - --weights digits.npz < digit.png

An image that cannot be read, or whose logits are NaN or infinite, is reported, and the
others are still classified; the exit code is that of the first error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a PNG, JPEG, GIF, BMP, WebP, TIFF or AVIF file; - for one on stdin"
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help="a TensorFlow checkpoint or SavedModel, safetensors, .npz, PyTorch's .pth, ONNX, Keras' .h5 or .keras",
    )
    parser.add_argument("--top", type=count, default=5, metavar="K", help="how many classes to list (default 5)")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the classes, one per line, or a .json class index as in Keras (default: ImageNet's)",
    )
    parser.add_argument("--size", type=count, metavar="N", help="resize to N x N pixels (default: the weights' recipe)")
    parser.add_argument("--height", type=count, metavar="N", help="resize to this height")
    parser.add_argument("--width", type=count, metavar="N", help="resize to this width")
    parser.add_argument(
        "--central-fraction", type=fraction, metavar="F", help="keep this part of each side (default: the recipe's)"
    )
    add_engine_options(parser)
    add_dense_option(parser)
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Classify the images.

    Returns
    -------
    int
        0, or the exit code of the first image that failed.
    """
    check_engine_options(arguments)
    weights = load(arguments.weights, arguments, read_labels(arguments.labels))
    weights = weights.replace(recipe=_recipe(arguments, weights.recipe))
    classes = weights.architecture.num_classes
    check_image_channels(weights)
    _check_top(arguments.top, classes)
    say(f"recipe: {recipe_text(weights.recipe)}")
    if weights.labels is None and classes in (IMAGENET, WITH_BACKGROUND):
        weights = weights.replace(labels=_imagenet_labels(classes))
    engine = make_engine(weights, arguments.device, arguments.threads, arguments.dense)
    results, exit_code = [], 0
    for path in track(arguments.images, "classifying"):
        try:
            results.append({"image": path, "predictions": _predict(engine, path, arguments.top, weights)})
        except (InputError, FileError) as error:
            exit_code = exit_code or error.exit_code
            results.append({"image": path, "error": as_object(error)})
            if not arguments.json:
                say(f"error: {error.message}")
    if arguments.json:
        print_json({"weights": arguments.weights, "recipe": fields_of(weights.recipe), "images": results})
    else:
        _print(results)
    return exit_code


def _recipe(arguments: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The weights' recipe, with the changes that the options make."""
    if arguments.size and (arguments.height or arguments.width):
        raise ConfigError("--size gives height and width at once: leave out --height and --width.")
    recipe = for_size(recipe, arguments.size or arguments.height, arguments.size or arguments.width)
    if arguments.central_fraction is not None:
        recipe = recipe._replace(central_fraction=arguments.central_fraction)
    return recipe


def _imagenet_labels(classes: int) -> list[str] | None:
    """ImageNet's names for as many classes as it has, if the package that has them is installed."""
    try:
        names = [name for _, name in classes_of(classes)]
    except ConfigError as error:
        say(f"labels: none. {error.message}")
        return None
    say("labels: ImageNet's, as the weights have none")
    return names


def _check_top(top: int, classes: int | None) -> None:
    if classes is None:
        raise ConfigError("These weights have no logits, so there are no classes to predict.")
    if top > classes:
        raise ConfigError(f"--top is {top}, but the weights have {classes} classes.", expected=classes, found=top)


def _predict(engine: Engine, path: str, top: int, weights: Weights) -> list[dict[str, Any]]:
    """The ``top`` most probable classes of an image; equal ones are in the order of the classes."""
    with file_errors(InputError):
        image = load_image(_stdin() if path == "-" else path, weights.architecture.channels)
    logits, end_points = engine(image, end_points=["predictions"])
    if not np.isfinite(logits).all():
        raise InputError(
            f"{path}: {np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are NaN or infinite, so there "
            "are no probabilities. The values overflow: is the recipe the one that these weights were trained with?",
            found=path,
        )
    probabilities = end_points["predictions"]
    return [
        {
            "class": int(index),
            "label": weights.labels[index] if weights.labels else None,
            "probability": float(probabilities[index]),
        }
        for index in np.argsort(-probabilities, kind="stable")[:top]
    ]


def _stdin() -> BinaryIO:
    """Standard input, which the shell may have closed (``<&-``)."""
    if sys.stdin is None:
        raise InputError("Standard input is closed, and an image was expected there.", found="-")
    return sys.stdin.buffer


def _print(results: list[dict[str, Any]]) -> None:
    for result in results:
        if "predictions" in result:
            print(printable(result["image"]))
            rows = [(p["class"], p["label"] or "", f"{p['probability']:.6f}") for p in result["predictions"]]
            print_table(["class", "label", "probability"], rows, numeric=["class", "probability"])
            print()
