"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from refnet.checks import MOST, shown
from refnet.cli.console import announce_compilation
from refnet.cli.failures import file_errors
from refnet.engine import Engine
from refnet.errors import ConfigError, WeightsError
from refnet.images.labels import class_index
from refnet.images.preprocess import Recipe
from refnet.run.devices import check_device, check_threads
from refnet.weights.files import load_weights
from refnet.weights.weights import Weights

#: Python reads no numbers of more digits.
_DIGITS = 4000


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or len(text) > _DIGITS or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of 1 or more, up to {MOST:,}")
    return int(text)


def fraction(text: str) -> float:
    """A number above 0, up to 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number above 0, up to 1")
    return number


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """``--threads`` and ``--device``."""
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="how many threads (default: one per core); the bits do not depend on it",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), cuda, cuda:1 ..., or reference: the NumPy definitions, which are slow",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="results, and errors, as one JSON object on stdout")


def check_engine_options(arguments: argparse.Namespace) -> None:
    """Refuse an unknown device or number of threads before anything is loaded.

    Raises
    ------
    DeviceError, ConfigError
    """
    check_device(arguments.device)
    check_threads(arguments.threads)


def load(path: str, labels: Sequence[str] | None = None) -> Weights:
    """`load_weights`; the system's errors get the exit code of weights."""
    with file_errors(WeightsError):
        return load_weights(path, labels=labels)


def make_engine(weights: Weights, device: str, threads: int | None) -> Engine:
    """An engine that reports which kernels it has to compile."""
    announce_compilation()
    return Engine(weights, device=device, threads=threads)


def read_labels(path: str | None) -> list[str] | None:
    """The lines of a file of labels, one per class; or the names in one like Keras' ``imagenet_class_index.json``.

    Raises
    ------
    ConfigError
        The file cannot be read as UTF-8 text, or is not a class index.
    """
    if path is None:
        return None
    if path.endswith(".json"):
        return [name for _, name in class_index(path)]
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The labels in {path} cannot be read: {error}.", found=path) from error


def recipe_text(recipe: Recipe) -> str:
    """The recipe in words."""
    size = f"{recipe.height or 'its height'} x {recipe.width or 'its width'}"
    if recipe.resize_side is not None:
        return f"shorter side resized to {recipe.resize_side}, the central {size}, {_SCALED[recipe.mode]}"
    return f"central fraction {recipe.central_fraction}, resized to {size}, {_SCALED[recipe.mode]}"


_SCALED = {
    "inception": "scaled to -1..1",
    "tf": "x / 127.5 - 1",
    "vgg": "RGB, less VGG's mean",
    "caffe": "BGR, less Caffe's mean",
    "torch": "x / 255, less PyTorch's mean, by its deviation",
}
