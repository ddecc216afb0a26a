"""Images that must be refused, in files and in arrays, and the error of each. ``tools/bad_inputs.py`` prints them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from refnet.errors import InputError
from refnet.images.files import load_image
from tests.refnet.formats.bad_files import BadFile
from tests.support.arrays import random_images

RGB = np.random.default_rng(11).integers(0, 256, (13, 17, 3), dtype=np.uint8)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of this size without any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif_header(width: int, height: int) -> bytes:
    """A GIF of this size without any pixels."""
    screen, place = struct.pack("<HHBBB", width, height, 0, 0, 0), struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + b"," + place + b"\x02\x00;"


def flipped(data: bytes, place: int) -> bytes:
    damaged = bytearray(data)
    damaged[place] ^= 0x55
    return bytes(damaged)


def _file(data: bytes, message: str) -> BadFile:
    def write(folder: Path) -> Path:
        (folder / "image.png").write_bytes(data)
        return folder / "image.png"

    return BadFile(write, InputError, f"image.png.*(?:{message})", load_image)


def _place(make: Callable[[Path], object]) -> BadFile:
    def write(folder: Path) -> Path:
        make(folder / "image.png")
        return folder / "image.png"

    return BadFile(write, InputError, "image.png is not a regular file", load_image)


def tiff(tags: Mapping[int, int], pixels: bytes = b"") -> bytes:
    """A TIFF of one strip, little-endian, with these tags of 32 bits in place of those of 1 x 1 grey pixels."""
    place = 8 + 2 + 12 * 9 + 4
    known = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: place, 277: 1, 278: 1, 279: len(pixels), **tags}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(known.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(known)) + entries + struct.pack("<I", 0) + pixels


def webp(kind: bytes, size: bytes) -> bytes:
    """The header of a WebP of this kind, and nothing else."""
    chunk = kind + struct.pack("<I", len(size)) + size
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def webp_headers(width: int, height: int) -> dict[str, bytes]:
    """WebP files of this size without any pixels: lossless, lossy and with extensions."""
    lossless = struct.pack("<BI", 0x2F, (width - 1) | (height - 1) << 14) + bytes(8)
    lossy = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8)
    extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return {"VP8L": webp(b"VP8L", lossless), "VP8": webp(b"VP8 ", lossy), "VP8X": webp(b"VP8X", extended)}


def avif_of(width: int, height: int) -> bytes:
    """An AVIF that claims this size."""
    data = encode(Image.fromarray(RGB), "AVIF")
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", width, height) + data[place + 8 :]


def _whole(kind: str) -> bytes:
    return encode(Image.fromarray(RGB), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", *(kind for kind in ("WebP", "AVIF") if features.check(kind.lower())))
_WHOLE = {kind: _whole(kind) for kind in KINDS}

FILES: dict[str, BadFile] = {
    "empty": _file(b"", "empty"),
    "text": _file(b"once upon a time", "Known formats: AVIF, BMP, GIF, JPEG, PNG, TIFF, WebP"),
    "an array of NumPy": _file(b"\x93NUMPY\x01\x00", "not an image that refnet reads"),
    "PostScript": _file(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image that refnet reads"),
    "a sound": _file(b"RIFF\x24\0\0\0WAVEfmt ", "not an image that refnet reads"),
    "a film": _file(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "not an image that refnet reads"),
    "a HEIC": _file(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image that refnet reads"),
    "the first bytes of a TIFF": _file(b"II*\0", "damaged or incomplete TIFF"),
    "the first bytes of a WebP": _file(b"RIFF\x24\0\0\0WEBPVP8 ", "damaged or incomplete WebP|0 x 0"),
    "the first bytes of an AVIF": _file(b"\0\0\0\x20ftypavif", "damaged or incomplete AVIF"),
    "a TIFF without pages": _file(b"II*\0\0\0\0\0", "damaged or incomplete TIFF"),
    "a TIFF whose page is at its end": _file(b"II*\0\xff\xff\xff\x7f", "damaged or incomplete TIFF"),
    "a TIFF of width 0": _file(tiff({256: 0}), "damaged or incomplete TIFF|0 pixels"),
    "a TIFF without its pixels": _file(tiff({256: 9, 257: 9}), "damaged or incomplete TIFF"),
    "a TIFF of floats": _file(tiff({258: 32, 339: 3}, bytes(4)), "mode F"),
    "a TIFF of integers": _file(tiff({258: 32, 339: 2}, bytes(4)), "mode I"),
    "a TIFF in which 0 is white": _file(tiff({258: 16, 262: 0}, bytes(2)), "16-bit values in which 0 is white"),
    "a preview in a TIFF": _file(tiff({254: 1}, bytes(1)), "begins with a preview"),
    "a raw photograph": _file(b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + tiff({}, b"\0")[8:], "begins with a preview"),
    "a TIFF of large tiles": _file(tiff({259: 5, 322: 40_000, 323: 40_000, 324: 8, 325: 9}), "tiles of 40000 x 40000"),
    "a TIFF of 400 million pixels": _file(tiff({256: 20_000, 257: 20_000}), "400,000,000"),
    "a TIFF of 89 million pixels": _file(tiff({256: 8_900, 257: 10_000}), "fewer than one per"),
    "a TIFF of 90 million pixels": _file(tiff({256: 9_000, 257: 10_000}), "90,000,000 pixels; it can have"),
    **{
        f"a {kind} of 262 million pixels": _file(data, r"262,128,000 pixels; it can have")
        for kind, data in webp_headers(16_000, 16_383).items()
        if "WebP" in KINDS
    },
    **{
        f"a {kind} of 99 million pixels": _file(data, "fewer than one per")
        for kind, data in webp_headers(9_900, 10_000).items()
        if "WebP" in KINDS
    },
    **(
        {
            "an AVIF of 400 million pixels": _file(avif_of(20_000, 20_000), "400,000,000|damaged or incomplete AVIF"),
            "an AVIF of 99 million pixels": _file(avif_of(9_900, 10_000), "fewer than one per|damaged"),
        }
        if "AVIF" in KINDS
        else {}
    ),
    "an SVG": _file(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image that refnet reads"),
    "the first bytes of a PNG": _file(b"\x89PNG\r\n\x1a\n", "damaged or incomplete PNG"),
    "the first bytes of a JPEG": _file(b"\xff\xd8\xff", "damaged or incomplete JPEG"),
    "the first bytes of a BMP": _file(b"BM", "damaged or incomplete BMP"),
    "the first bytes of a GIF": _file(b"GIF89a", "damaged or incomplete GIF"),
    "a PNG without pixels": _file(png_header(4, 4), "damaged or incomplete PNG"),
    "a PNG of width 0": _file(png_header(0, 4), "damaged or incomplete PNG|0 pixels"),
    **{f"half a {kind}": _file(data[: len(data) // 2], "damaged or incomplete") for kind, data in _WHOLE.items()},
    **{f"a {kind}'s first 30 bytes": _file(data[:30], "damaged or incomplete") for kind, data in _WHOLE.items()},
    "a PNG without its end": _file(_WHOLE["PNG"][:-12], "damaged or incomplete PNG"),
    "a JPEG without its end": _file(_WHOLE["JPEG"][:-40], "damaged or incomplete JPEG"),
    "a PNG with another pixel": _file(flipped(_WHOLE["PNG"], 60), "damaged or incomplete PNG"),
    "a PNG with another size": _file(flipped(_WHOLE["PNG"], 19), "damaged or incomplete PNG"),
    "more pixels than an image can have": _file(png_header(10_000, 10_001), "100,010,000"),
    "400 million pixels": _file(png_header(20_000, 20_000), "400,000,000"),
    "4 quintillion pixels": _file(png_header(2**31 - 1, 2**31 - 1), "4,611,686,014,132,420,609"),
    "a GIF of 65,535 x 65,535": _file(gif_header(65535, 65535), "4,294,836,225"),
    # Between Pillow's limit (89 million) and refnet's: past the count, to the missing pixels.
    "99 million pixels that are not there": _file(png_header(9_900, 10_000), "damaged|cannot hold"),
    "99 million pixels of a GIF that are not there": _file(gif_header(9_900, 10_000), "damaged|cannot hold"),
    "a directory": _place(Path.mkdir),
    "a FIFO": _place(os.mkfifo),
    "a link to /dev/zero": _place(lambda path: path.symlink_to("/dev/zero")),
}


class Unreadable:
    """As a tensor of PyTorch that requires grad."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


_IMAGE = random_images(32, 40, 3)
#: What a network of three channels refuses, and words of the InputError's message.
ARRAYS: dict[str, tuple[Any, str]] = {
    "None": (None, r"have shape \(\);"),
    "text": ("cat.png", r"have shape \(\);"),
    "list of str": (["a.png", "b.png"], r"have shape \(2,\);"),
    "0-d": (np.float32(1), r"have shape \(\);"),
    "ragged": ([[1.0], [1.0, 2.0]], "cannot be read as an array"),
    "grey": (_IMAGE[..., 0], r"have shape \(32, 40\);"),
    "CHW": (_IMAGE.transpose(2, 0, 1), "looks like CHW"),
    "NCHW": (_IMAGE.transpose(2, 0, 1)[None], "looks like CHW"),
    "1 channel": (_IMAGE[..., :1], "1 channels; the network takes 3"),
    "2 channels": (_IMAGE[..., :2], "2 channels"),
    "4 channels": (np.zeros((8, 8, 4), np.float32), "4 channels"),
    "5-d": (_IMAGE[None, None], r"have shape \(1, 1, 32"),
    "uint16": (_IMAGE.astype(np.uint16), "not uint16"),
    "int32": (_IMAGE.astype(np.int32), "not int32"),
    "bool": (_IMAGE > 0, "not bool"),
    "complex": (_IMAGE.astype(complex), "not complex128"),
    "object": (_IMAGE.astype(object), "not object"),
    "height 0": (np.zeros((0, 8, 3), np.float32), "no pixels"),
    "width 0": (np.zeros((2, 8, 0, 3), np.float32), "no pixels"),
    "broadcast view": (np.broadcast_to(np.float32(0), (10**8, 10**8, 3)), "would take .* GiB of memory, but"),
    "masked": (np.ma.masked_array(_IMAGE, _IMAGE > 0), "filled"),
    "a tensor that requires grad": (Unreadable(), "detach"),
}
