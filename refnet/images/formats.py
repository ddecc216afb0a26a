"""The formats of image files: how they are recognised, what reads them, and what is checked before that."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from refnet.checks import shown
from refnet.errors import InputError
from refnet.images.preprocess import MAX_PIXELS
from refnet.resources import check_room
from refnet_kernels.system.forks import making

if TYPE_CHECKING:
    from PIL import ImageFile


class Format(NamedTuple):
    """What refnet has to know of a format to have Pillow read it.

    Attributes
    ----------
    plugin : str
        Pillow's module and class.
    pixels_per_byte : int
        How many pixels one byte can stand for. A file that claims more is a bomb, unless its pixels are few.
    bounded : bool
        False: there is no such bound, as a byte more may be a million pixels more of the same colour, and this many
        are allowed.
    most_pixels : int
    whole : bool
        Whether Pillow takes the whole file into memory.
    """

    plugin: str
    pixels_per_byte: int
    bounded: bool = True
    most_pixels: int = MAX_PIXELS
    whole: bool = False


#: In a PNG a byte stands for up to 1032 bytes, deflated, of 8 pixels each.
_DEFLATED = 8 * 1032


FORMATS = {
    "AVIF": Format("AvifImagePlugin.AvifImageFile", _DEFLATED, bounded=False, whole=True),
    # A run of 255 in two bytes.
    "BMP": Format("BmpImagePlugin.BmpImageFile", 128),
    # A string of 4096 in 12 bits.
    "GIF": Format("GifImagePlugin.GifImageFile", 4096 * 8 // 12),
    # A grey block of 8 x 8 in each bit.
    "JPEG": Format("JpegImagePlugin.JpegImageFile", 8 * 64),
    "PNG": Format("PngImagePlugin.PngImageFile", _DEFLATED),
    # Pillow warns about larger ones.
    "TIFF": Format("TiffImagePlugin.TiffImageFile", _DEFLATED, bounded=False, most_pixels=89_000_000),
    "WebP": Format("WebPImagePlugin.WebPImageFile", _DEFLATED, bounded=False, whole=True),
}
#: So many pixels are allowed whatever the file.
FEW_PIXELS = 4_000_000

_MAGICS = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
_AVIF = {b"avif", b"avis"}
#: Bytes by which a format is recognised.
HEAD_BYTES = 64

#: What an image takes while it is read: four bytes per pixel in Pillow, and three in the result.
BYTES_PER_PIXEL = 7


def format_of(name: str, head: bytes) -> str:
    """Recognise the format by the first bytes.

    Parameters
    ----------
    name : str
        The file, for errors; so in all functions here.
    head : bytes
        The first `HEAD_BYTES`, or all if there are fewer.

    Returns
    -------
    str
        A name in `FORMATS`.

    Raises
    ------
    InputError
        It is none of them.
    """
    if not head:
        raise InputError(f"{name} is empty (0 bytes); an image file was expected.", found=0)
    for magic, image_format in _MAGICS.items():
        if head.startswith(magic):
            return image_format
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    # The brands of the file: what its pictures are, the main one first. Some are for several codecs.
    main, *others = [head[i : i + 4] for i in range(8, max(len(head), 9), 4)]
    if head[4:8] == b"ftyp" and (main in _AVIF or (main in (b"mif1", b"msf1") and not _AVIF.isdisjoint(others))):
        return "AVIF"
    begins = bytes(head[:8])
    raise InputError(
        f"{name} is not an image that refnet reads: it begins with {begins!r}. Known formats: {', '.join(FORMATS)}.",
        found=begins,
    )


@cache
def plugin_of(image_format: str) -> type[ImageFile.ImageFile] | None:
    """What reads a format; None if the installed Pillow does not. ``Image.open`` itself warns of large images.

    Parameters
    ----------
    image_format : str

    Returns
    -------
    type, or None
    """
    module, _, name = FORMATS[image_format].plugin.partition(".")
    with making:
        try:
            found = import_module(f"PIL.{module}")
        except ImportError:  # Pillow is older than the format
            return None
    plugin: type[ImageFile.ImageFile] = getattr(found, name)
    return plugin if getattr(found, "SUPPORTED", True) else None


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP: lossless, with extensions, or lossy.

    Source: RFC 9649, section 2.

    Parameters
    ----------
    head : bytes

    Returns
    -------
    width, height : int
        0 if the header is cut off.
    """
    kind = head[12:16]
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def check_size(name: str, image_format: str, size: tuple[int, int], nbytes: int) -> None:
    """Refuse more pixels than an image can have, than these bytes can hold, or than the memory takes.

    Parameters
    ----------
    name, image_format : str
    size : tuple of int
        Width and height.
    nbytes : int
        The size of the file.

    Raises
    ------
    InputError
    """
    (width, height), known = size, FORMATS[image_format]
    pixels = width * height
    if not 0 < pixels <= known.most_pixels:
        raise InputError(
            f"{name} has {width} x {height} = {pixels:,} pixels; it can have 1 to {known.most_pixels:,}.",
            expected=known.most_pixels,
            found=pixels,
        )
    if pixels > max(FEW_PIXELS, nbytes * known.pixels_per_byte):
        why = "which cannot hold so many: it is damaged, or it was made to fill the memory"
        if not known.bounded:
            why = f"fewer than one per {known.pixels_per_byte:,}: it has no picture, or was made to fill the memory"
        raise InputError(
            f"{name} has {width} x {height} = {pixels:,} pixels, but only {nbytes:,} bytes, {why}.",
            expected=nbytes * known.pixels_per_byte,
            found=pixels,
        )
    check_room(pixels * BYTES_PER_PIXEL + nbytes * known.whole, f"{name}, {width} x {height} pixels,")


#: Pillow's modes for grey images, with 16 bits and with up to 8, and for others.
DEEP, GREY, COLOUR = "I;16", ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK")

#: Tags of TIFF: that a page is only a smaller version of another one, whether 0 is black or white, the size of a tile.
_SUBFILE_TYPE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 254, 262, 322, 323


def check_tiff(name: str, image: ImageFile.ImageFile, head: bytes) -> None:
    """Refuse files whose first page is not the picture, or that Pillow would read wrongly.

    Parameters
    ----------
    name : str
    image : TiffImageFile
        Not decoded yet.
    head : bytes

    Raises
    ------
    InputError
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    kind = tags.get(_SUBFILE_TYPE, 0)
    if head[8:10] == b"CR" or (isinstance(kind, int) and kind & 1):
        raise InputError(
            f"{name} begins with a preview of its picture, as the raw files of cameras do: export it as PNG or JPEG.",
            found=kind,
        )
    tile = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > max(
        FEW_PIXELS, image.width * image.height
    ):
        raise InputError(
            f"{name} has tiles of {shown(tile[0])} x {shown(tile[1])}, and is no larger itself.", found=tile
        )
    if image.mode.startswith(DEEP) and tags.get(_PHOTOMETRIC) == 0:
        raise InputError(f"{name} has 16-bit values in which 0 is white; save it with 0 as black, or as PNG.")
