"""Reading image files as RGB pixels, or as grey ones."""

from __future__ import annotations

import io
import logging
import os
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.checks import as_int, check_choice, check_positive, path_of, shown
from refnet.errors import ConfigError, InputError, RefnetWarning
from refnet.files import naming_file
from refnet.images.formats import (
    COLOUR,
    DEEP,
    FORMATS,
    GREY,
    HEAD_BYTES,
    check_size,
    check_tiff,
    format_of,
    plugin_of,
    webp_size,
)
from refnet.resources import for_images, is_want
from refnet_kernels.system.forks import once

if TYPE_CHECKING:
    from PIL import Image, ImageFile


#: The largest file that is taken into memory as a whole.
_WHOLE_BYTES = 2**30
#: Bytes that are read from a file object at a time.
_PIECE = 2**20

#: Pixels that are converted to RGB at a time.
_STRIP_PIXELS = 1 << 20

_LOG = logging.getLogger("refnet.images")


class _Notes:
    """What is said of a file whose pixels are not simply those of the result."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.doubts: list[str] = []

    def say(self, name: str) -> None:
        """Log what is merely converted, and warn of what is left out."""
        for text in self.infos:
            _LOG.info(f"%s {text}", name)
        for text in self.doubts:
            warnings.warn(f"{name} {text}", RefnetWarning, stacklevel=4)


@for_images
def load_image(
    path: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, channels: int = 3
) -> npt.NDArray[np.uint8]:
    """Read a PNG, JPEG, GIF, BMP, WebP, TIFF or AVIF file, recognised by its content, as RGB pixels, or as grey ones.

    The pixels are those of TensorFlow's ``decode_image(channels=3)``. Exceptions are JPEG and the lossy WebP and AVIF,
    whose decoders differ in the last bits (these are Pillow's), and the orientation, which TensorFlow ignores:

    - an EXIF orientation is applied;
    - grey, 1-bit and palette images become RGB; CMYK is converted to RGB by Pillow;
    - with one channel, grey images keep their values, and RGB pixels become Pillow's mode "L", which is
      ``(19595 * R + 38470 * G + 7471 * B + 2**15) >> 16``;
    - alpha and transparency are dropped: a transparent pixel keeps the colour stored for it;
    - 16-bit values become ``value >> 8``;
    - only the first frame of an animation is read, and the first page of a TIFF.

    What leaves out a part of the picture, transparency and further frames or pages, gives a `RefnetWarning`. What
    converts values is logged by the logger ``refnet.images``.

    Parameters
    ----------
    path : str or path-like, bytes-like, or binary file
        A regular file; or what one holds, as bytes, bytearray or memoryview; or what has a ``read``,
        such as ``io.BytesIO`` or ``open(path, "rb")``, which is read from where it stands to its end.
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
        than 100 million pixels (a TIFF 89 million), or more than its bytes can hold or the memory takes. A file object
        is opened as text. Pillow was built without the format.
    ConfigError
        ``path`` is none of these, Pillow is set to load truncated images, or ``channels`` is neither 3 nor 1.
    FileNotFoundError, PermissionError
        From the system.

    Notes
    -----
    The checksums of a PNG are verified. The other formats have none: a change in their data is found only if it makes
    the file unreadable.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> image.shape, image.dtype
    ((8, 8, 3), dtype('uint8'))
    >>> with open("digit3.png", "rb") as file:
    ...     refnet.load_image(file, channels=1).shape
    (8, 8, 1)
    """
    pixels, name, notes = _loaded(path, channels)
    notes.say(name)
    return pixels


@for_images
def image_and_doubts(
    path: str | os.PathLike[str] | bytes | bytearray | memoryview, channels: int = 3
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """What `load_image` gives, and in place of its warnings what the pixels leave out, in a few words each."""
    pixels, _, notes = _loaded(path, channels)
    return pixels, notes.doubts


def _loaded(path: Any, channels: int) -> tuple[npt.NDArray[np.uint8], str, _Notes]:
    channels = as_int(channels)
    check_positive(channels=channels)
    check_choice("channels", channels, (3, 1))
    notes = _Notes()
    if isinstance(path, bytes | bytearray | memoryview):
        name = "The image in memory"
        pixels = _read(name, io.BytesIO(_bytes_of(path)), channels, notes)
    elif (read := _reader_of(path)) is not None:
        name = _name_of(path)
        pixels = _read(name, _in_memory(name, read), channels, notes)
    else:
        name = _path_of(path)
        if not stat.S_ISREG(os.stat(name).st_mode):  # before it is opened, as opening a FIFO would wait for a writer
            raise InputError(f"{name} is not a regular file; give the path of an image file.", found=name)
        with naming_file(name), open(name, "rb") as file:
            pixels = _read(name, file, channels, notes)
    return pixels, name, notes


def _bytes_of(content: bytes | bytearray | memoryview) -> bytes:
    try:
        return bytes(content)
    except ValueError as error:  # of a memoryview that was released
        raise InputError(f"The image in memory cannot be read: {error}.") from error


def _reader_of(file: Any) -> Callable[[int], Any] | None:
    """The ``read`` of a file object; None for anything else."""
    read = None
    with suppress(Exception):  # of strange objects
        read = file.read
    return read if callable(read) else None


def _name_of(file: Any) -> str:
    """How messages call a file object."""
    name = None
    with suppress(Exception):
        name = file.name
    return name if isinstance(name, str) and name else f"The image in the {type(file).__name__}"


def _path_of(path: Any) -> str:
    try:
        return path_of(path)
    except ConfigError as error:
        raise ConfigError(
            f"The path is {shown(path)}; it is the path of an image file, or the file's bytes, or the file opened in "
            "binary mode.",
            found=path,
        ) from error


def _in_memory(name: str, read: Callable[[int], Any]) -> BinaryIO:
    """What a file object gives up to its end. Something that never ends is no image, or more than is taken."""
    content, known = io.BytesIO(), False
    while True:
        try:
            piece = read(_PIECE)
        except Exception as error:  # of a closed file, or of somebody else's object
            if isinstance(error, OSError) or is_want(error):
                raise
            raise InputError(f"{name} cannot be read: {error}") from error
        if not isinstance(piece, bytes | bytearray | memoryview):
            how = ': open it in binary mode, "rb"' if isinstance(piece, str) else ""
            raise InputError(
                f"{name} gives {type(piece).__name__} where bytes were expected{how}.", found=type(piece).__name__
            )
        content.write(piece)
        if not piece and not content.tell():
            raise InputError(f"{name} gives no bytes. If it was just written, call its seek(0) first.", found=0)
        if not known and content.tell() >= HEAD_BYTES:
            known = bool(format_of(name, content.getvalue()[:HEAD_BYTES]))
        if not piece:
            return content
        if content.tell() > _WHOLE_BYTES:
            raise InputError(
                f"{name} has more than {_WHOLE_BYTES:,} bytes; as a file on the disk it could be larger.",
                expected=_WHOLE_BYTES,
            )


def _read(name: str, file: BinaryIO, channels: int, notes: _Notes) -> npt.NDArray[np.uint8]:
    """The pixels of an open file."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    image_format = format_of(name, head)
    size = file.seek(0, io.SEEK_END)
    try:
        image = _decode(name, file, image_format, head, size, notes)
        return _to_channels(name, image, channels, notes)
    except (InputError, ConfigError):
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error ...
        if is_want(error):
            raise
        message = f"{name} is a damaged or incomplete {image_format} file ({error}); get a fresh copy."
        raise InputError(message, found=image_format) from error


@once
def _pillow() -> tuple[ModuleType, ModuleType]:
    """Pillow's ImageFile and ImageOps."""
    from PIL import ImageFile, ImageOps
    from PIL import TiffImagePlugin as _  # noqa: F401 (which Pillow imports to read an orientation)

    return ImageFile, ImageOps


def _open(name: str, file: BinaryIO, image_format: str) -> ImageFile.ImageFile:
    """Read the header."""
    plugin = plugin_of(image_format)
    if plugin is None:
        raise InputError(
            f"{name} is a file of {image_format}, which the installed Pillow does not read: install a newer one, or "
            "save the image as PNG.",
            found=image_format,
        )
    file.seek(0)
    return plugin(file)


def _decode(name: str, file: BinaryIO, image_format: str, head: bytes, nbytes: int, notes: _Notes) -> Image.Image:
    """Decode the whole image, upright, in the file's own mode."""
    image_file, image_ops = _pillow()
    if image_file.LOAD_TRUNCATED_IMAGES:
        raise ConfigError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: Pillow would invent pixels. Set it to False.")
    if FORMATS[image_format].whole and nbytes > _WHOLE_BYTES:
        raise InputError(
            f"{name} has {nbytes:,} bytes; a file of {image_format} can have {_WHOLE_BYTES:,}.",
            expected=_WHOLE_BYTES,
            found=nbytes,
        )
    if image_format == "WebP":  # Pillow makes room for the pixels when it opens the file
        check_size(name, image_format, webp_size(head), nbytes)
    image = _open(name, file, image_format)
    check_size(name, image_format, image.size, nbytes)
    if image_format == "TIFF":
        check_tiff(name, image, head)
    if image_format == "PNG":
        image.verify()  # Pillow decodes a PNG without reading its checksums or its end
        image = _open(name, file, image_format)
    image.load()
    size = image.size
    image_ops.exif_transpose(image, in_place=True)
    if _is_first_of_several(name, file, image, image_format):
        notes.doubts.append("has several frames or pages; only the first is read.")
    if size != image.size:
        notes.infos.append("is turned upright, as its orientation says")
    return image


def _is_first_of_several(name: str, file: BinaryIO, image: Image.Image, image_format: str) -> bool:
    """Whether there are further frames or pages."""
    if image_format != "GIF":
        return bool(getattr(image, "is_animated", False))
    # Of a GIF this is found by a look at the second frame, after which the first one would have to be decoded again.
    with suppress(Exception):
        return bool(_open(name, file, image_format).is_animated)  # type: ignore[attr-defined]
    return False


def _to_channels(name: str, image: Image.Image, channels: int, notes: _Notes) -> npt.NDArray[np.uint8]:
    """The pixels as RGB, or as grey."""
    if not image.mode.startswith(DEEP) and image.mode not in GREY + COLOUR:
        raise InputError(f"{name} has pixels of Pillow's mode {image.mode}; save it as 8-bit RGB.", found=image.mode)
    transparency = image.info.pop("transparency", None)  # with it Pillow would warn that a palette's is lost
    clear = False
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    # In strips, as Pillow would make two more copies of the whole.
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = _strip(strip, channels)
        clear = clear or _is_transparent(strip, transparency)
    if clear:
        notes.doubts.append("is transparent in places; the colours stored there are taken as they are.")
    notes.infos += _conversions(image.mode, channels)
    return pixels


def _is_transparent(image: Image.Image, transparency: Any) -> bool:
    """Whether a pixel is not opaque, by its alpha, by its palette, or by the colour that stands for transparency."""
    if image.mode in ("LA", "PA", "RGBA"):
        low, _ = image.getchannel("A").getextrema()
        return bool(low < 255)  # type: ignore[operator]
    if transparency is None:
        return False
    values = np.asarray(image)
    if isinstance(transparency, bytes):
        alphas = np.full(256, 255, np.uint8)
        alphas[: len(transparency)] = np.frombuffer(transparency, np.uint8)[:256]
        return bool((alphas[values] < 255).any())
    if image.mode == "1":
        values = values * np.uint8(255)
    key = np.asarray(transparency)
    if values.dtype == np.uint8 and key.max() > 255:  # of 16 bits, which Pillow has made 8
        key = key >> 8
    same = values == key
    return bool((same.all(axis=-1) if same.ndim == 3 else same).any())


def _conversions(mode: str, channels: int) -> list[str]:
    """What is said of pixels that are not stored as the network takes them."""
    found = []
    if mode.startswith(DEEP):
        found.append("has 16 bits per value, of which the upper 8 are taken")
    if mode == "CMYK":
        found.append("is CMYK, which becomes RGB without a colour profile")
    if channels == 3 and (mode.startswith(DEEP) or mode in GREY):
        found.append("is grey: its values are those of red, green and blue")
    if channels == 1 and not mode.startswith(DEEP) and mode not in GREY:
        found.append("is coloured, and becomes grey")
    return found


def _strip(image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels of a part of an image, [H, W, channels] or for grey [H, W, 1]."""
    if image.mode.startswith(DEEP):
        grey: npt.NDArray[np.uint8] = (np.asarray(image) >> 8).astype(np.uint8)
        return grey[:, :, np.newaxis]
    if image.mode in GREY:
        return np.asarray(image.convert("L"))[:, :, np.newaxis]
    colour = image.convert("RGB")
    return np.asarray(colour) if channels == 3 else np.asarray(colour.convert("L"))[:, :, np.newaxis]
