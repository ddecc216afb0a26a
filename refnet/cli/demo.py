"""``refnet demo``: a trained network that comes with refnet reads handwritten digits."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import refnet
from refnet.cli import demo_files
from refnet.cli.console import print_json, printable, track
from refnet.cli.failures import file_errors
from refnet.cli.options import add_engine_options, add_json_option, check_engine_options, make_engine
from refnet.cli.plot import save_plot
from refnet.engine import Engine
from refnet.errors import ConfigError
from refnet.figures import check_plot
from refnet.images.preprocess import Recipe
from refnet.run.devices import device_named
from refnet.weights.files import load_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import Float32Array

EPILOG = """\
examples:
  refnet demo
  refnet demo --save play           # also writes the network and images, for the other commands
  refnet demo --plot digits.png
  refnet demo --device reference --json

The SHA-256 is that of the logits of all images. It is the same on every machine, for any number of threads.
"""

_DIGITS = Path(refnet.__file__).parent / "data" / "digits"
#: The network was trained on whole images of this size (refnet/data/digits/README.md).
_RECIPE = Recipe(height=32, width=32, central_fraction=1.0)
#: Images per forward. It divides the 360 held-out ones, so that one plan serves all.
_BATCH = 36
#: How many times the images are classified to measure the time.
_ROUNDS = 5
#: From background to ink. Each pixel is two characters wide, as a character is about twice as high as wide.
_SHADES = " .:-=+*#%@"
_DIGIT_COLUMNS, _COLUMNS = 16, 80


class Result(NamedTuple):
    """The network's results on the held-out images.

    Attributes
    ----------
    images : uint8 array [N, 8, 8]
    labels : uint8 array [N]
    logits, probabilities : float32 array [N, 10]
    first_call : float
        Seconds from the weights to the first batch's logits, with the kernels compiled or read from the cache.
    images_per_second : float
        Raw pixels to probabilities, after that.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    logits: Float32Array
    probabilities: Float32Array
    first_call: float
    images_per_second: float

    @property
    def predictions(self) -> NDArray[np.intp]:
        """The most probable class of each image."""
        return np.asarray(np.argmax(self.logits, axis=1))

    @property
    def wrong(self) -> NDArray[np.intp]:
        """The indices of the images that the network gets wrong."""
        return np.flatnonzero(self.predictions != self.labels)

    @property
    def logits_sha256(self) -> str:
        """SHA-256 of the logits as little-endian binary32 in C order."""
        return hashlib.sha256(self.logits.astype("<f4").tobytes()).hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--plot", metavar="FILE", help="also draw a picture, such as digits.png (needs refnet[plots])")
    parser.add_argument(
        "--save",
        metavar="DIR",
        help="also write the network and some images into a directory, and say what to try with them",
    )
    add_engine_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Classify the held-out images and print the result; 0."""
    check_engine_options(arguments)
    if arguments.plot:
        check_plot(arguments.plot)
    with file_errors(ConfigError):
        folder = None if arguments.save is None else demo_files.check_folder(arguments.save)
    result = classify(arguments.device, arguments.threads)
    if arguments.plot:
        save_plot(arguments.plot, result.images, result.labels, result.probabilities)
    if folder is not None:
        with file_errors(ConfigError):
            demo_files.save(folder, load_digits(), result.images, result.labels)
    if arguments.json:
        saved = {} if folder is None else {"saved": [str(folder / file.name) for file in demo_files.FILES]}
        print_json(_as_object(result) | saved)
    else:
        _print(result)
        if folder is not None:
            _print_saved(folder)
    return 0


def load_digits() -> Weights:
    """The network that reads digits, with its recipe and its labels."""
    return load_weights(_DIGITS / "digits.ckpt", recipe=_RECIPE, labels=[str(digit) for digit in range(10)])


def classify(device: str, threads: int | None) -> Result:
    """Run the digits network on all held-out images, and measure the time."""
    weights = load_digits()
    with np.load(_DIGITS / "held_out.npz", allow_pickle=False) as held_out:
        images, labels = held_out["images"], held_out["labels"]
    pixels = np.repeat(images[..., np.newaxis], 3, axis=3)
    batches = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    started = time.perf_counter()
    engine = make_engine(weights, device, threads)
    _forward(engine, batches[0])
    first_call = time.perf_counter() - started
    # The reference is slow, and its speed does not matter.
    rounds = _ROUNDS if device_named(device).backend.is_timed else 1
    seconds, outputs = [], []
    for round_number in range(rounds):
        description = f"reading digits ({round_number + 1}/{rounds})"
        started = time.perf_counter()
        outputs = [_forward(engine, batch) for batch in track(batches, description)]
        seconds.append(time.perf_counter() - started)
    logits, probabilities = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    return Result(images, labels, logits, probabilities, first_call, len(images) / statistics.median(seconds))


def _forward(engine: Engine, batch: NDArray[np.uint8]) -> tuple[Float32Array, Float32Array]:
    logits, end_points = engine(batch, end_points=["predictions"])
    return logits, end_points["predictions"]


def _as_object(result: Result) -> dict[str, Any]:
    correct = len(result.labels) - len(result.wrong)
    return {
        "images": len(result.labels),
        "correct": correct,
        "accuracy": correct / len(result.labels),
        "images_per_second": result.images_per_second,
        "first_call_seconds": result.first_call,
        "logits_sha256": result.logits_sha256,
        "predictions": result.predictions.tolist(),
    }


def _print(result: Result) -> None:
    correct = len(result.labels) - len(result.wrong)
    print(picture(result, shutil.get_terminal_size().columns if sys.stdout.isatty() else _COLUMNS))
    print()
    print(f"accuracy           {correct} of {len(result.labels)} = {correct / len(result.labels):.2%}")
    print(f"speed              {result.images_per_second:,.0f} images per second")
    print(f"first call         {result.first_call:.2f} s, with the kernels compiled or read from the cache")
    print(f"logits' SHA-256    {result.logits_sha256}")


def _print_saved(folder: Path) -> None:
    print(f"\nwritten into {printable(str(folder))}:\n")
    width = max(len(file.name) for file in demo_files.FILES)
    for file in demo_files.FILES:
        print(f"  {file.name:{width}}  {file.what}")
    print("\nTry, in that directory:\n")
    print("".join(f"  {line}\n" for line in demo_files.NEXT.splitlines()), end="")


def picture(result: Result, columns: int = _COLUMNS) -> str:
    """Different digits side by side, drawn with characters; the last one is misclassified, if any is.

    Parameters
    ----------
    result : Result
    columns : int
        What the picture may take of a terminal's columns; it never takes more than 80, nor less than one digit.
    """
    right = np.flatnonzero(result.predictions == result.labels)
    _, firsts = np.unique(result.labels[right], return_index=True)
    wrong = result.wrong[:1]
    shown = [*right[firsts][: max(min(columns, _COLUMNS) // _DIGIT_COLUMNS, 1) - len(wrong)], *wrong]
    blocks = [_block(result, index) for index in shown]
    return "\n".join("".join(line).rstrip() for line in zip(*blocks, strict=True))


def _block(result: Result, index: int) -> list[str]:
    """An image as lines of `_DIGIT_COLUMNS` characters, with the network's answer below."""
    shades = result.images[index].astype(int) * len(_SHADES) // 256
    rows = ["".join(_SHADES[shade] * 2 for shade in row) for row in shades]
    prediction, label = result.predictions[index], result.labels[index]
    verdict = f"is {label}" if prediction == label else f"is {label}: wrong"
    caption = [f"says {prediction} ({result.probabilities[index, prediction]:.1%})", verdict]
    return rows + [f"{line:^{_DIGIT_COLUMNS}}" for line in caption]
