"""From an image file to a network's input, by Pillow and TensorFlow, with switches for what porters get wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.ports.mistakes import Mistake, Planted
from tests.support.tensorflow import tensorflow


class Steps(NamedTuple):
    """What is meant to happen to an image.

    Attributes
    ----------
    size : int
        Height and width of the network's input.
    mode : {"inception", "vgg", "caffe", "torch"}
        How pixels are scaled; "raw" and "unit", 0..255 and 0..1, are what only mistaken ports do.
    crop : {"none", "0.875", "shorter side"}
        Which part of the image is seen.
    side : int
        For "shorter side": what it is resized to before the middle is cut out.
    resize : str
        A key of `RESIZES`.
    """

    size: int
    mode: str
    crop: str
    side: int = 0
    resize: str = "legacy"


def slim_v2(size: int) -> Steps:
    """TF-Slim's Inception recipe."""
    return Steps(size, "inception", "0.875")


def slim_v1(size: int) -> Steps:
    """TF-Slim's VGG recipe, with the shorter side in proportion to 256."""
    return Steps(size, "vgg", "shorter side", size * 256 // 224)


def torchvision(size: int) -> Steps:
    """torchvision's: Pillow's smoothing resize."""
    return Steps(size, "torch", "shorter side", size * 256 // 224, "antialiased bilinear")


VGG = np.array([123.68, 116.78, 103.94], np.float32)
CAFFE = np.array([103.939, 116.779, 123.68], np.float32)
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def _tf1(method: str, **options: Any) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
        function = getattr(tensorflow().compat.v1.image, f"resize_{method}")
        return np.asarray(function(x[None], (height, width), **options))[0]

    return resize


def _tf2(method: str, **options: Any) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.asarray(tensorflow().image.resize(x, (height, width), method, **options))

    return resize


def _pillow(method: str) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
        image = Image.fromarray(x.astype(np.uint8))
        return np.asarray(image.resize((width, height), Image.Resampling[method]), np.float32)

    return resize


def _torch(method: str, antialias: bool) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
        import torch

        planes = torch.from_numpy(x.transpose(2, 0, 1)[None].copy())
        function = torch.nn.functional.interpolate
        done = function(planes, (height, width), mode=method, align_corners=False, antialias=antialias)
        return np.asarray(done.numpy()[0].transpose(1, 2, 0))

    return resize


#: How an image can be resized: the catalogue's words, then by whose function. The first of each word is the one meant.
RESIZES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "legacy": _tf1("bilinear"),
    "half-pixel bilinear": _tf2("bilinear"),
    "antialiased bilinear": _pillow("BILINEAR"),
    "antialiased bilinear, TensorFlow": _tf2("bilinear", antialias=True),
    "antialiased bilinear, PyTorch": _torch("bilinear", True),
    "bicubic": _tf2("bicubic"),
    "bicubic, TensorFlow 1": _tf1("bicubic"),
    "bicubic, PyTorch": _torch("bicubic", False),
    "antialiased bicubic": _pillow("BICUBIC"),
    "antialiased bicubic, TensorFlow": _tf2("bicubic", antialias=True),
    "nearest": _tf2("nearest"),
    "nearest, TensorFlow 1": _tf1("nearest_neighbor"),
    "nearest, Pillow": _pillow("NEAREST"),
    "align-corners": _tf1("bilinear", align_corners=True),
}

MODES = ("inception", "vgg", "caffe", "torch", "raw", "unit")
CROPS = ("none", "0.875", "shorter side")


def decoded(source: Path | bytes, by: str = "Pillow") -> np.ndarray:
    """The raw RGB pixels, by Pillow or by one of TensorFlow's decoders of JPEG."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    if by == "Pillow":
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    tf = tensorflow()
    options = {
        "fast": {"dct_method": "INTEGER_FAST"},
        "accurate": {"dct_method": "INTEGER_ACCURATE"},
        "plain chroma": {"dct_method": "INTEGER_ACCURATE", "fancy_upscaling": False},
    }
    return np.asarray(tf.io.decode_jpeg(data, channels=3, **options[by]))


def _middle(x: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    return x[top : top + height, left : left + width]


def resized(raw: np.ndarray, steps: Steps) -> np.ndarray:
    """The part that is seen, at the network's size, 0..255."""
    resize, x = RESIZES[steps.resize], raw.astype(np.float32)
    height, width = x.shape[:2]
    if steps.crop == "shorter side":
        side = steps.side or steps.size * 256 // 224
        if "antialiased" in steps.resize:  # as torchvision rounds sides
            sizes = [int(side * size / min(height, width)) for size in (height, width)]
        else:
            sizes = [int(np.rint(size * side / min(height, width))) for size in (height, width)]
        return _middle(resize(x, *sizes), steps.size, steps.size)
    if steps.crop == "0.875":
        rows, columns = (int((size - size * 0.875) / 2) for size in (height, width))
        x = x[rows : height - rows, columns : width - columns]
    return resize(x, steps.size, steps.size)


def scaled(x: np.ndarray, mode: str, planted: Planted) -> np.ndarray:
    """What the mode makes of 0..255."""
    means = {"vgg": VGG, "caffe": CAFFE, "torch": MEAN}.get(mode, np.zeros(3, np.float32))
    if planted.has("mean-reversed"):
        means = means[::-1]
    if planted.has("mean-rounded"):
        means = means.astype(np.uint8).astype(np.float32)
    if planted.has("mean-scaled"):
        means = means / np.float32(255)
    x = x[..., ::-1] if mode == "caffe" else x
    if mode == "inception":
        middle = np.float32(1 if planted.has("half-for-one") else 0.5)
        return (x / np.float32(255) - middle) * np.float32(2)
    if mode == "unit":
        return x / np.float32(255)
    if mode == "torch":
        return (x / np.float32(255) - means) / DEVIATION
    return x - means


def arranged(x: np.ndarray, planted: Planted) -> np.ndarray:
    """A batch of images in the order of axes and channels that the port gives them."""
    if planted.has("channels-reversed"):
        x = x[..., ::-1]
    if planted.has("axes-swapped"):
        x = x.transpose(0, 2, 1, 3)
    if planted.has("layout-reshaped"):
        count, height, width, channels = x.shape
        x = np.ascontiguousarray(x).reshape(count, channels, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x, np.float32)


def images_of(raw: np.ndarray, steps: Steps, mistakes: Iterable[Mistake | tuple[Any, ...]] = ()) -> np.ndarray:
    """The network's input of one raw image, [1, size, size, 3].

    Channels are reversed where the pixels are read, so means and scales meet the wrong ones.
    """
    planted = Planted(mistakes)
    steps = steps._replace(
        resize=planted.value("resize", "", steps.resize),
        crop=planted.value("crop", "", steps.crop),
        mode=planted.value("mode", "", steps.mode),
    )
    x = resized(raw[..., ::-1] if planted.has("channels-reversed") else raw, steps)
    x = scaled(x, steps.mode, planted)
    if planted.has("mode-twice"):
        x = scaled(x, steps.mode, planted)
    later = Planted(mistake for mistake in planted.mistakes if mistake.id != "channels-reversed")
    return arranged(x[None], later)


def pixel_cases(steps: Steps) -> Iterator[Mistake]:
    """The catalogue's mistakes with a file, in its order."""
    yield Mistake("channels-reversed")
    if steps.mode in ("vgg", "caffe", "torch"):
        yield Mistake("mean-reversed")
    if steps.mode in ("vgg", "caffe"):
        yield Mistake("mean-scaled")
        yield Mistake("mean-rounded")
    yield from (Mistake("mode", None, mode) for mode in MODES if mode != steps.mode)
    yield Mistake("mode-twice")
    if steps.mode == "inception":
        yield Mistake("half-for-one")
    yield from (
        Mistake("resize", None, resize)
        for resize in RESIZES if resize.split(",")[0] != steps.resize and "PyTorch" not in resize
    )  # fmt: skip
    yield from (Mistake("crop", None, crop) for crop in CROPS if crop != steps.crop)
    yield Mistake("axes-swapped")
    yield Mistake("layout-reshaped")


def array_cases() -> Iterator[Mistake]:
    """Those that a port can still make with the reference's own input."""
    yield from map(Mistake, ("channels-reversed", "axes-swapped", "layout-reshaped"))
