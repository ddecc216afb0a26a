"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from refnet.checks import MOST, bool_of, shown
from refnet.cli.console import announce_compilation
from refnet.cli.failures import file_errors
from refnet.engine import Engine
from refnet.errors import ConfigError, InputError, WeightsError
from refnet.images import labels
from refnet.images.files import load_image
from refnet.images.preprocess import VGG, Recipe
from refnet.network.options import BOOLEANS, CHOICES, SLIM_OPTIONS
from refnet.run.backends import BACKENDS
from refnet.run.devices import check_device, check_threads
from refnet.weights.files import load_weights
from refnet.weights.weights import Weights
from refnet_kernels.system.forks import once

#: Python reads no numbers of more digits.
_DIGITS = 4000


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or len(text) > _DIGITS or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of 1 or more, up to {MOST:,}")
    return int(text)


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    return 0 if text == "0" else count(text)


def _number(text: str) -> float:
    """The number; NaN, which no bound admits, if the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def fraction(text: str) -> float:
    """A number above 0, up to 1."""
    number = _number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number above 0, up to 1")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a share, from 0 to 1")
    return number


def seconds(text: str) -> float:
    """A finite number of 0 or more."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number of seconds: a finite one of 0 or more")
    return number


def some_seconds(text: str) -> float:
    """A time above 0, in seconds."""
    number = seconds(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number of seconds above 0")
    return number


def offer(action: argparse.Action, words: Iterable[str], *, or_file: bool = False) -> None:
    """Have shells complete these words for an argument that can be something else, too; see `refnet.cli.completion`."""
    action.offered, action.or_file = tuple(words), or_file  # type: ignore[attr-defined]


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """``--threads``."""
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="how many threads (default: one for each core that it may use); the bits do not depend on it",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """``--threads`` and ``--device``."""
    add_threads_option(parser)
    device = parser.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), cuda, cuda:1 ..., or reference: the NumPy definitions, which are slow",
    )
    offer(device, (backend.name for backend in BACKENDS))


def add_dense_option(parser: argparse.ArgumentParser) -> None:
    """``--dense``."""
    parser.add_argument(
        "--dense",
        action="store_true",
        help="compute the products with zeros, too, so that the time does not depend on the image; the bits are equal",
    )


def add_weights_options(parser: argparse.ArgumentParser, *, with_options: bool = True) -> None:
    """What to take from a weights file: ``--scope``, ``--head``, ``--averages``; and what it may not tell."""
    parser.add_argument(
        "--scope", metavar="S", help="which network, if the file holds several: what stands before its tensors' names"
    )
    parser.add_argument(
        "--head", metavar="NAME", default="from_weights",
        help="the dense layer that gives the logits, by its name in the file; none: the features alone",
    )  # fmt: skip
    parser.add_argument(
        "--averages", action="store_true", help="take the variables' moving averages, where the file has both"
    )
    if with_options:
        options = parser.add_argument(
            "--option", dest="of_weights", action="append", default=[], metavar="NAME=VALUE",
            help="what the file does not tell about its network, such as stride_place=first_unit or pool_mode=torch",
        )  # fmt: skip
        offer(options, option_words(SLIM_OPTIONS))
        add_recipe_option(parser)


def add_recipe_option(parser: argparse.ArgumentParser) -> None:
    """``--recipe``."""
    recipe = parser.add_argument(
        "--recipe", dest="of_recipe", action="append", default=[], metavar="NAME|FIELD=VALUE",
        help=f"how images are prepared: {', '.join(RECIPES)}; or one value of the recipe, such as resize_side=232, "
        "interpolation=bicubic or mean=0.5,0.5,0.5 (can be repeated; default: the weights' own)",
    )  # fmt: skip
    offer(recipe, [*RECIPES, *(f"{field}=" for field in Recipe._fields)])


def option_words(known: Iterable[str]) -> list[str]:
    """What `option` takes: each name with each of its values, or with none where they cannot be listed."""
    texts = {**CHOICES, "dtype": sorted({dtype.name for backend in BACKENDS for dtype in backend.dtypes})}
    texts |= dict.fromkeys(BOOLEANS, ("true", "false"))
    return [f"{name}={value}" for name in sorted(known) for value in texts.get(name, [""])]


def option(text: str, known: Iterable[str]) -> tuple[str, Any]:
    """A name and its value: true or false by a usual word, a number or null in JSON's notation, or a plain string.

    Raises
    ------
    ConfigError
        It is not NAME=VALUE with a known name.
    """
    name, equals, value = text.partition("=")
    if not equals or name not in known:
        raise ConfigError(
            f"--option {text} is not understood; it is NAME=VALUE, with one of {', '.join(sorted(known))}.", found=text
        )
    if name in BOOLEANS and value not in ("null", "None"):
        return name, bool_of(name, value)
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    return name, value if isinstance(parsed, list | dict) else parsed


#: The recipes that have names.
RECIPES = {
    "inception": Recipe(),
    "vgg": VGG,
    "keras": Recipe(224, 224, 1.0, "tf"),
    "caffe": Recipe(224, 224, 1.0, "caffe"),
    "torchvision": Recipe(224, 224, 1.0, "torch", 256, "bilinear"),
    "torchvision-v2": Recipe(224, 224, 1.0, "torch", 232, "bilinear"),
    "timm": Recipe(224, 224, 1.0, "torch", 256, "bicubic"),
    "timm-v2": Recipe(224, 224, 1.0, "torch", 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "hugging-face": Recipe(224, 224, 1.0, "torch", 256, "bicubic", crop_offset="down"),
}


def recipe_choice(texts: Sequence[str]) -> tuple[Recipe | None, dict[str, Any]]:
    """What ``--recipe`` says: the recipe of a name, or None; and the fields that it changes.

    Raises
    ------
    ConfigError
        A text is neither a known name nor FIELD=VALUE with a known field, or there are two names.
    """
    named, fields = None, {}
    for text in texts:
        field, equals, value = text.partition("=")
        if (field not in Recipe._fields) if equals else (text not in RECIPES or named is not None):
            raise ConfigError(
                f"--recipe {text} is not understood; it is one of {', '.join(RECIPES)}, or FIELD=VALUE with one of "
                f"{', '.join(Recipe._fields)}.",
                found=text,
            )
        if equals:
            fields[field] = _field(value)
        else:
            named = text
    return None if named is None else RECIPES[named], fields


def _field(text: str) -> Any:
    """A number, null, or numbers between commas; or the text itself."""
    try:
        parsed = json.loads(f"[{text}]") if "," in text else json.loads(text)
    except (ValueError, RecursionError):
        return None if text == "None" else text
    return tuple(parsed) if isinstance(parsed, list) else parsed


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


def load(
    path: str,
    arguments: argparse.Namespace | None = None,
    labels: Sequence[str] | None = None,
    recipe: Recipe | None = None,
) -> Weights:
    """`load_weights`, with the arguments of `add_weights_options`; the system's errors get the exit code of weights.

    ``recipe`` is for commands without ``--recipe``.
    """
    if arguments is None:
        with file_errors(WeightsError):
            return load_weights(path, labels=labels)
    options = dict(option(text, SLIM_OPTIONS) for text in getattr(arguments, "of_weights", ()))
    head = None if arguments.head == "none" else arguments.head
    named, fields = recipe_choice(getattr(arguments, "of_recipe", ()))
    with file_errors(WeightsError):
        weights = load_weights(
            path, scope=arguments.scope, head=head, averages=arguments.averages, recipe=named or recipe, labels=labels
        )
    weights = weights.replace(recipe=weights.recipe._replace(**fields)) if fields else weights
    return weights.replace(options={**weights.options, **options}) if options else weights


def check_image_channels(weights: Weights) -> None:
    """Refuse a network that takes what no image file has.

    Raises
    ------
    ConfigError
    """
    channels = weights.architecture.channels
    if channels not in (1, 3):
        raise ConfigError(
            f"The network takes {channels} channels, and image files have 1 or 3: use refnet.forward with arrays.",
            found=channels,
        )


def make_engine(weights: Weights, device: str, threads: int | None, dense: bool = False) -> Engine:
    """An engine that reports which kernels it has to compile."""
    announce_compilation()
    return Engine(weights, device=device, threads=threads, zeros=not dense)


def read_labels(path: str | None) -> list[str] | None:
    """The lines of a file of labels, one per class; or the names in one like Keras' ``imagenet_class_index.json``.

    Raises
    ------
    ConfigError
        The file cannot be read as UTF-8 text, or is not a class index.
    """
    return None if path is None else labels.read_labels(path)


def recipe_text(recipe: Recipe) -> str:
    """The recipe in words."""
    size = f"{recipe.height or 'its height'} x {recipe.width or 'its width'}"
    scaled = _SCALED[recipe.mode]
    if recipe.mean is not None and recipe.std is not None:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (recipe.mean, recipe.std))
        scaled = f"x / 255, less ({mean}), by ({std})"
    by = _RESIZED.get(recipe.interpolation, f" by Pillow's {recipe.interpolation} filter")
    if recipe.resize_side is not None:
        return f"shorter side resized to {recipe.resize_side}{by}, the central {size}, {scaled}"
    return f"central fraction {recipe.central_fraction}, resized to {size}{by}, {scaled}"


_RESIZED = {"tensorflow1": "", "tensorflow2": " as in TensorFlow 2"}
_SCALED = {
    "inception": "scaled to -1..1",
    "tf": "x / 127.5 - 1",
    "vgg": "RGB, less VGG's mean",
    "caffe": "BGR, less Caffe's mean",
    "torch": "x / 255, less PyTorch's mean, by its deviation",
}


def mapping_of(texts: Sequence[str]) -> dict[str, str]:
    """What ``--map`` says.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    dict of str to str

    Raises
    ------
    ConfigError
        A text is not THEIRS=OURS, or one name is mapped twice.
    """
    mapping: dict[str, str] = {}
    for text in texts:
        theirs, equals, ours = text.rpartition("=")
        if not equals or not theirs or not ours or theirs in mapping:
            raise ConfigError(f"--map {text} is not understood; it is THEIRS=OURS, once per name.", found=text)
        mapping[theirs] = ours
    return mapping


@once
def sources() -> ModuleType:
    """What reads activations: a module that most commands do without."""
    from refnet.comparison import sources

    return sources


def image_of(path: str, channels: int) -> np.ndarray:
    """An image file's pixels, or the array of an .npy.

    Parameters
    ----------
    path : str
    channels : int
        Those that the network takes.

    Returns
    -------
    uint8 array [H, W, channels], or array

    Raises
    ------
    InputError
    """
    with file_errors(InputError):
        return sources().pixels_in(path) if path.endswith(".npy") else load_image(path, channels)
