"""What ``refnet demo --save`` writes: a network and images to play with, and what a port with a mistake gives."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.checks import listed, path_of
from refnet.engine import forward
from refnet.errors import ConfigError
from refnet.files import written_whole
from refnet.weights.files import save_weights
from refnet.weights.weights import Weights

#: The batch norm's epsilon of the port with a mistake: Keras' default.
_WRONG_EPSILON = 1e-3
#: Digits in a row of the page, and the side of one of their pixels.
_COLUMNS, _SCALE = 24, 4
#: The digit of which there are a port's values.
_OF_PORT = 3


class File(NamedTuple):
    """A file, and what it is."""

    name: str
    what: str


FILES = (
    File("digits.ckpt", "the network, a TensorFlow checkpoint of two files, with its recipe for pixels and its labels"),
    *(File(f"digit{digit}.png", f"a handwritten {digit}, 8 x 8 grey pixels") for digit in range(10)),
    File("page.png", "all 360 digits in one picture, 768 x 480 pixels"),
    File("theirs.npz", f"what a port with a mistake gives for digit{_OF_PORT}.png: every layer, by TF-Slim's names"),
    File("logits.npy", "the logits of that port alone"),
)

NEXT = """\
refnet predict digit3.png digit8.png --weights digits.ckpt --top 3
refnet summary digits.ckpt --size 32
refnet convert digits.ckpt digits.safetensors
refnet compare theirs.npz --weights digits.ckpt --image digit3.png
refnet diagnose logits.npy --weights digits.ckpt --image digit3.png
"""


def check_folder(folder: str) -> Path:
    """The directory, if the files can be written there without replacing others.

    Parameters
    ----------
    folder : str

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ConfigError
    """
    path = Path(path_of(folder))
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{folder} is not a directory; give the name of one, which need not exist yet.", found=folder)
    there = [name for name in _names() if (path / name).exists()]
    if there:
        raise ConfigError(f"{folder} has {listed(there)} already: give another directory, or remove them.", found=there)
    return path


def _names() -> list[str]:
    checkpoint, *others = (file.name for file in FILES)
    return [f"{checkpoint}.index", *others]


def save(folder: Path, weights: Weights, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
    """Write the files.

    Parameters
    ----------
    folder : pathlib.Path
        It is made if it does not exist.
    weights : Weights
        The network that reads digits.
    images : uint8 array [N, 8, 8]
    labels : uint8 array [N]
        All ten digits are among them.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    firsts = [images[int(np.flatnonzero(labels == digit)[0])] for digit in range(10)]
    pictures = {f"digit{digit}.png": first for digit, first in enumerate(firsts)} | {"page.png": _page(images)}
    for name, picture in pictures.items():
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        _write(folder / name, content.getvalue())
    raw = np.repeat(firsts[_OF_PORT][..., np.newaxis], 3, axis=-1)
    net, end_points = forward(weights, raw, end_points=True, batch_norm_epsilon=_WRONG_EPSILON)
    values, logits = io.BytesIO(), io.BytesIO()
    np.savez(values, **end_points)
    np.save(logits, net)
    _write(folder / "theirs.npz", values.getvalue())
    _write(folder / "logits.npy", logits.getvalue())
    save_weights(folder / "digits.ckpt", weights)


def _page(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All images side by side, from left to right and from top to bottom."""
    rows = len(images) // _COLUMNS
    height, width = images.shape[1:]
    grid = images[: rows * _COLUMNS].reshape(rows, _COLUMNS, height, width).transpose(0, 2, 1, 3)
    return grid.reshape(rows * height, _COLUMNS * width).repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)


def _write(path: Path, content: bytes) -> None:
    with written_whole(os.fspath(path)) as file:
        file.write(content)
