"""Reading image files as RGB pixels, or as grey ones."""

from __future__ import annotations

import io
import os
import stat
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.checks import as_int, check_choice, check_positive, path_of
from refnet.errors import ConfigError, InputError
from refnet.files import naming_file
from refnet.images.preprocess import MAX_PIXELS
from refnet.resources import check_room, for_images, is_want
from refnet_kernels.system.forks import once

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_MAGICS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP"}

#: How many pixels one byte can stand for: a bit each, deflated; a grey block of 8 x 8 in each bit; a string of 4096 in
#: 12 bits; a run of 255 in two bytes. A file that claims more is a bomb, unless its pixels are few.
_PIXELS_PER_BYTE = {"PNG": 8 * 1032, "JPEG": 8 * 64, "GIF": 4096 * 8 // 12, "BMP": 128}
_FEW_PIXELS = 4_000_000

#: What an image takes while it is read: four bytes per pixel in Pillow, and three in the result.
_BYTES_PER_PIXEL = 7

#: Pixels that are converted to RGB at a time.
_STRIP_PIXELS = 1 << 20


@for_images
def load_image(path: str | os.PathLike[str], channels: int = 3) -> npt.NDArray[np.uint8]:
    """Read a PNG, JPEG, GIF or BMP file, recognised by its content, as RGB pixels, or as grey ones.

    The pixels are those of TensorFlow's ``decode_image(channels=3)``. Exceptions are JPEG, whose decoders differ in the
    last bits (this is Pillow's), and the orientation, which TensorFlow ignores:

    - an EXIF orientation is applied;
    - grey, 1-bit and palette images become RGB; CMYK JPEG is converted to RGB by Pillow;
    - with one channel, grey images keep their values, and RGB pixels become Pillow's mode "L", which is
      ``(19595 * R + 38470 * G + 7471 * B + 2**15) >> 16``;
    - alpha and transparency are dropped: a transparent pixel keeps the colour stored for it;
    - 16-bit values become ``value >> 8``;
    - only the first frame of an animation is read.

    Parameters
    ----------
    path : str or path-like
        A regular file.
    channels : {3, 1}
        3: RGB. 1: grey, for a network that takes one channel.

    Returns
    -------
    numpy.ndarray of uint8
        [H, W, channels], C-contiguous and writable: always the whole image.

    Raises
    ------
    InputError
        The path is not a regular file, or the file is empty, has another format, is damaged or cut off, or has more
        than 100 million pixels, or more than its bytes can hold or the memory takes.
    ConfigError
        Pillow is set to load truncated images, or ``channels`` is neither 3 nor 1.
    FileNotFoundError, PermissionError
        From the system.

    Notes
    -----
    The checksums of a PNG are verified. The other formats have none: a change in their data is found only if it makes
    the file unreadable.
    """
    channels = as_int(channels)
    check_positive(channels=channels)
    check_choice("channels", channels, (3, 1))
    name = path_of(path)
    if not stat.S_ISREG(os.stat(name).st_mode):  # checked before opening, as opening a FIFO would wait for a writer
        raise InputError(f"{name} is not a regular file; give the path of an image file.", found=name)
    with naming_file(name), open(name, "rb") as file:
        return _read(name, file, channels)


@for_images
def image_of(content: bytes | bytearray | memoryview, channels: int = 3) -> npt.NDArray[np.uint8]:
    """The pixels of an image file whose bytes are in memory, as `load_image` reads them.

    Parameters
    ----------
    content : bytes-like
    channels : {3, 1}

    Returns
    -------
    numpy.ndarray of uint8
        [H, W, channels].

    Raises
    ------
    InputError, ConfigError
        As for `load_image`.
    """
    return _read("The image", io.BytesIO(content), channels)


def _read(name: str, file: BinaryIO, channels: int) -> npt.NDArray[np.uint8]:
    image_format = _image_format(name, file)
    try:
        return _to_channels(name, _decode(name, file, image_format), channels)
    except (InputError, ConfigError):
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error ...
        if is_want(error):
            raise
        message = f"{name} is a damaged or incomplete {image_format} file ({error}); get a fresh copy."
        raise InputError(message, found=image_format) from error


def _image_format(name: str, file: BinaryIO) -> str:
    """Recognise the format by the first bytes."""
    head = file.read(max(map(len, _MAGICS)))
    if not head:
        raise InputError(f"{name} is empty (0 bytes); an image file was expected.", found=0)
    for magic, image_format in _MAGICS.items():
        if head.startswith(magic):
            return image_format
    known = ", ".join(sorted(set(_MAGICS.values())))
    raise InputError(
        f"{name} is not an image that refnet reads: it begins with {head!r}. Known formats: {known}.", found=head
    )


@once
def _pillow() -> tuple[ModuleType, ModuleType, dict[str, type[ImageFile.ImageFile]]]:
    """Pillow's ImageFile, ImageOps, and its plugins: ``Image.open``, which finds them, warns about large images."""
    from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin
    from PIL import TiffImagePlugin as _  # noqa: F401 (which Pillow imports to read an orientation)

    plugins: dict[str, type[ImageFile.ImageFile]] = {
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
    }
    return ImageFile, ImageOps, plugins


def _open(file: BinaryIO, image_format: str) -> ImageFile.ImageFile:
    """Read the header."""
    plugins = _pillow()[2]
    file.seek(0)
    return plugins[image_format](file)


def _decode(name: str, file: BinaryIO, image_format: str) -> Image.Image:
    """Decode the whole image, upright, in the file's own mode."""
    image_file, image_ops, _ = _pillow()
    if image_file.LOAD_TRUNCATED_IMAGES:
        raise ConfigError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: Pillow would invent pixels. Set it to False.")
    image = _open(file, image_format)
    pixels = image.width * image.height
    if not 0 < pixels <= MAX_PIXELS:
        raise InputError(
            f"{name} has {image.width} x {image.height} = {pixels:,} pixels; it can have 1 to {MAX_PIXELS:,}.",
            expected=MAX_PIXELS,
            found=pixels,
        )
    size = file.seek(0, os.SEEK_END)
    if pixels > max(_FEW_PIXELS, size * _PIXELS_PER_BYTE[image_format]):
        raise InputError(
            f"{name} has {image.width} x {image.height} = {pixels:,} pixels, but only {size:,} bytes, which cannot "
            f"hold so many: it is damaged, or it was made to fill the memory.",
            expected=size * _PIXELS_PER_BYTE[image_format],
            found=pixels,
        )
    check_room(pixels * _BYTES_PER_PIXEL, f"{name}, {image.width} x {image.height} pixels,")
    if image_format == "PNG":
        image.verify()  # Pillow decodes a PNG without reading its checksums or its end
        image = _open(file, image_format)
    image.load()
    image_ops.exif_transpose(image, in_place=True)
    return image


#: Pillow's modes for grey images, with 16 bits and with up to 8, and for others.
_DEEP, _GREY, _COLOUR = "I;16", ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK")


def _to_channels(name: str, image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels as RGB, or as grey."""
    if not image.mode.startswith(_DEEP) and image.mode not in _GREY + _COLOUR:
        raise InputError(f"{name} has pixels of Pillow's mode {image.mode}; save it as 8-bit RGB.", found=image.mode)
    image.info.pop("transparency", None)  # else Pillow warns that a palette's transparency is lost
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    # In strips, as Pillow would make two more copies of the whole.
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = _strip(strip, channels)
    return pixels


def _strip(image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels of a part of an image, [H, W, channels] or for grey [H, W, 1]."""
    if image.mode.startswith(_DEEP):
        grey: npt.NDArray[np.uint8] = (np.asarray(image) >> 8).astype(np.uint8)
        return grey[:, :, np.newaxis]
    if image.mode in _GREY:
        return np.asarray(image.convert("L"))[:, :, np.newaxis]
    colour = image.convert("RGB")
    return np.asarray(colour) if channels == 3 else np.asarray(colour.convert("L"))[:, :, np.newaxis]
