"""Image files: each defined conversion, against TensorFlow's decoder where it defines one, and each bad file."""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from refnet import resources
from refnet.errors import ConfigError, InputError, RefnetWarning
from refnet.images.files import load_image
from refnet_kernels.system.memory import Room
from tests.refnet.bad_images import KINDS, RGB, avif_of, encode, png_header, tiff, webp_headers

RNG = np.random.default_rng(12)
GREY = RGB[:, :, 0].copy()
ALPHA = RGB[:, :, 1].copy()


def load(folder: Path, data: bytes, name: str = "image.png", says: str = "") -> np.ndarray:
    """The pixels of a file of these bytes; ``says``: words of the warning about what they leave out."""
    path = folder / name
    path.write_bytes(data)
    with pytest.warns(RefnetWarning, match=f"{name} {says}") if says else nullcontext():
        return load_image(path)


CLEAR, SEVERAL = "is transparent in places", "has several frames or pages"


def palette_image() -> Image.Image:
    return Image.fromarray(RGB).quantize(16)


LOSSLESS = {
    "rgb": lambda: encode(Image.fromarray(RGB), "PNG"),
    "grey": lambda: encode(Image.fromarray(GREY), "PNG"),
    "one_bit": lambda: encode(Image.fromarray(GREY > 99), "PNG"),
    "grey_alpha": lambda: encode(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"),
    "rgb_alpha": lambda: encode(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"),
    "rgb_colour_key": lambda: encode(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3)),
    "palette": lambda: encode(palette_image(), "PNG"),
    "palette_one_transparent": lambda: encode(palette_image(), "PNG", transparency=3),
    "palette_alphas": lambda: encode(palette_image(), "PNG", transparency=bytes(range(0, 256, 16))),
    "grey_16_bit": lambda: encode(Image.fromarray(GREY.astype(np.uint16) * 251 + 77), "PNG"),
    "bmp": lambda: encode(Image.fromarray(RGB), "BMP"),
    "gif": lambda: encode(palette_image(), "GIF"),
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_lossless_files_give_tensorflows_pixels(tf: Any, tmp_path: Path, case: str) -> None:
    data = LOSSLESS[case]()
    expected = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    found = load(tmp_path, data, says=CLEAR if "alpha" in case or "transparent" in case else "")
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_gives_the_high_bytes_as_tensorflow_does(tf: Any, tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 2**16, (9, 7, channels), dtype=np.uint16)
    data = tf.io.encode_png(values).numpy()
    expected = (values[:, :, :1] if channels < 3 else values[:, :, :3]) >> 8
    found = load(tmp_path, data, says="" if channels % 2 else CLEAR)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (9, 7, 3)))
    np.testing.assert_array_equal(found, tf.io.decode_image(data, channels=3).numpy())


def test_a_palette_bmp_gives_the_colours_of_its_palette(tmp_path: Path) -> None:
    image = palette_image()  # TensorFlow reads no palette in a BMP
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(load(tmp_path, encode(image, "BMP")), colours[np.asarray(image)])


def test_alpha_is_dropped_not_composed(tmp_path: Path) -> None:
    clear = np.dstack([RGB, np.zeros_like(GREY)])
    np.testing.assert_array_equal(load(tmp_path, encode(Image.fromarray(clear), "PNG"), says=CLEAR), RGB)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "TIFF", *KINDS[5:]])
def test_an_animation_gives_its_first_frame(tmp_path: Path, image_format: str) -> None:
    frames = [Image.fromarray(np.full((5, 6, 3), value, np.uint8)) for value in (10, 200, 90)]
    exact = {"WebP": {"lossless": True}, "AVIF": {"quality": 100}}.get(image_format, {})
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **exact)
    np.testing.assert_array_equal(load(tmp_path, data, says=SEVERAL), np.full((5, 6, 3), 10))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_one_colour(tmp_path: Path, mode: str, progressive: bool) -> None:
    # A block of one colour has no AC terms and, at this quality, an exact DC term. What is left is the rounding of
    # Y, Cb and Cr and back, at most 0.5 + 1.772 * 0.5 + 0.5 per channel, and in CMYK that of K.
    colour: tuple[int, ...] = {"L": (77,), "RGB": (200, 30, 90), "CMYK": (20, 0, 155, 40)}[mode]
    image = Image.new(mode, (24, 16), colour if len(colour) > 1 else colour[0])
    found = load(tmp_path, encode(image, "JPEG", quality=100, progressive=progressive))
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2


def test_jpeg_is_the_picture_that_tensorflow_sees(tf: Any, tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((64, 48)))
    data = encode(Image.fromarray(smooth), "JPEG", quality=95, subsampling=0)
    # With the accurate inverse DCT and no subsampling, what libjpeg-turbo computes is defined.
    expected = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(load(tmp_path, data, "image.jpg"), expected)


def upright(orientation: int) -> np.ndarray:
    """What the EXIF standard's table says that the stored rows and columns mean."""
    stored = RGB
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load(tmp_path, encode(Image.fromarray(RGB), "PNG", exif=exif))
    np.testing.assert_array_equal(found, upright(orientation))
    jpeg = load(tmp_path, encode(Image.fromarray(RGB), "JPEG", exif=exif))
    assert jpeg.shape == upright(orientation).shape


def test_16_bit_with_an_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = GREY.astype(np.uint16) << 8
    found = load(tmp_path, encode(Image.fromarray(values), "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.repeat(GREY[::-1].T[:, :, np.newaxis], 3, axis=2))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load(tmp_path, encode(Image.fromarray(RGB), "PNG"), "image.jpg"), RGB)
    np.testing.assert_array_equal(load_image(str(tmp_path / "image.jpg")), RGB)


CUT = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive_jpeg": ("JPEG", {"progressive": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WebP", {"lossless": True}),
    "avif": ("AVIF", {}),
}


@pytest.mark.parametrize("case", [case for case, (kind, _) in CUT.items() if kind in KINDS])
def test_a_file_cut_off_anywhere_is_an_error_or_the_whole_image(tmp_path: Path, case: str) -> None:
    image_format, options = CUT[case]
    data = encode(Image.fromarray(RGB), image_format, **options)
    whole = load(tmp_path, data)
    loaded = 0
    for length in range(len(data)):
        try:
            found = load(tmp_path, data[:length])
        except InputError:
            continue
        np.testing.assert_array_equal(found, whole)
        loaded += 1
    assert loaded <= 4  # what follows the pixels: PNG's last checksum, GIF's terminator, BMP's padding


def test_a_flipped_bit_in_a_png_is_an_error_or_changes_no_pixel(tmp_path: Path) -> None:
    data = encode(Image.fromarray(RGB[:5, :5]), "PNG")
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        try:
            found = load(tmp_path, bytes(damaged))
        except InputError:
            continue
        np.testing.assert_array_equal(found, RGB[:5, :5])


@pytest.mark.parametrize("image_format", KINDS)
def test_damaged_files_raise_nothing_but_input_errors(tmp_path: Path, image_format: str) -> None:
    data = encode(Image.fromarray(RGB), image_format)
    rng = np.random.default_rng(3)
    for _ in range(200):
        damaged = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, min(len(data), 300), 3)
        damaged[places] = rng.integers(0, 256, 3)
        try:
            found = load(tmp_path, damaged.tobytes())
        except (InputError, RefnetWarning):
            continue
        assert found.dtype == np.uint8
        assert found.ndim == 3


def test_missing_and_forbidden_files_are_the_systems_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "none.png")
    forbidden = tmp_path / "forbidden.png"
    forbidden.write_bytes(encode(Image.fromarray(RGB), "PNG"))
    forbidden.chmod(0)
    if os.access(forbidden, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError):
        load_image(forbidden)


def test_pillow_told_to_load_truncated_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ConfigError, match="LOAD_TRUNCATED_IMAGES"):
        load(tmp_path, encode(Image.fromarray(RGB), "JPEG"))


def test_pillow_is_imported_only_to_load() -> None:
    code = "import sys, refnet.images; sys.exit('PIL' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


#: An image of one colour, of more pixels than any file may claim, is the densest that there is.
UNIFORM = {
    "one bit PNG": ("1", "PNG", {"compress_level": 9}),
    "grey PNG": ("L", "PNG", {"compress_level": 9}),
    "PNG": ("RGB", "PNG", {"compress_level": 9}),
    "grey JPEG": ("L", "JPEG", {"quality": 1, "optimize": True}),
    "progressive JPEG": ("RGB", "JPEG", {"quality": 1, "optimize": True, "progressive": True}),
    "GIF": ("P", "GIF", {}),
    "BMP": ("1", "BMP", {}),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_images_are_no_bombs(tmp_path: Path, name: str) -> None:
    mode, image_format, options = UNIFORM[name]
    pixels = load(tmp_path, encode(Image.new(mode, (2600, 2500)), image_format, **options))
    assert pixels.shape == (2500, 2600, 3)
    assert (pixels == pixels[0, 0]).all()


def bombs() -> dict[str, bytes]:
    """Files of a few bytes that claim a hundred million pixels, or five."""
    gif, bmp = (bytearray(encode(Image.new("P", (1, 1)), image_format)) for image_format in ("GIF", "BMP"))
    gif[6:10] = struct.pack("<HH", 10_000, 9_999)
    bmp[18:26] = struct.pack("<ii", 10_000, 9_999)
    jpeg = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 9_999, 10_000)
    files = {
        "GIF": gif,
        "BMP": bmp,
        "JPEG": jpeg,
        "PNG": png_header(10_000, 9_999),
        "PNG, five": png_header(2500, 2000),
        "TIFF": tiff({256: 8_000, 257: 10_000}),
        "TIFF, five": tiff({256: 2500, 257: 2000}),
    }
    if "WebP" in KINDS:
        files |= webp_headers(10_000, 9_999)
    if "AVIF" in KINDS:
        files["AVIF"] = avif_of(10_000, 9_999)
    return {name: bytes(file) for name, file in files.items()}


@pytest.mark.parametrize("name", bombs())
def test_pixels_that_the_bytes_cannot_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"0,000 pixels, but only [\d,]+ bytes, (which cannot hold so many|fewer than one)"
    ):
        load(tmp_path, bombs()[name])


def test_an_image_larger_than_the_memory_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "room_for_more", lambda: Room(2**25, "a test"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(InputError, match=r"2600 x 2500 pixels, would take 43 MiB of memory, but 32 MiB are left"):
        load(tmp_path, encode(Image.new("RGB", (2600, 2500)), "PNG"))


def test_strips_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.images.files._STRIP_PIXELS", 3 * RGB.shape[1])
    assert np.array_equal(load(tmp_path, encode(Image.fromarray(RGB), "PNG")), RGB)
    sixteen = GREY.astype(np.uint16) * 257
    assert np.array_equal(load(tmp_path, encode(Image.fromarray(sixteen), "PNG")), GREY[:, :, None].repeat(3, axis=2))


#: Files without loss, and the pixels that were put in.
WITHOUT_LOSS = {
    "WebP": ("WebP", RGB, {"lossless": True}),
    "WebP with alpha": ("WebP", np.dstack([RGB, np.full_like(GREY, 255)]), {"lossless": True}),
    "TIFF": ("TIFF", RGB, {}),
    "TIFF, LZW": ("TIFF", RGB, {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", RGB, {"compression": "tiff_adobe_deflate"}),
    "TIFF, packbits": ("TIFF", GREY, {"compression": "packbits"}),
    "TIFF, fax": ("TIFF", GREY > 99, {"compression": "group4"}),
    "TIFF, grey": ("TIFF", GREY, {}),
    "TIFF, opaque": ("TIFF", np.dstack([RGB, np.full_like(GREY, 255)]), {}),
    "TIFF, 16 bits": ("TIFF", GREY.astype(np.uint16) * 251 + 77, {}),
    "TIFF, 16 bits, big-endian": ("TIFF", (GREY.astype(np.uint16) * 251 + 77).astype(">u2"), {}),
    "BigTIFF": ("TIFF", RGB, {"big_tiff": True}),
}


@pytest.mark.parametrize("case", [case for case, (kind, _, _) in WITHOUT_LOSS.items() if kind in KINDS])
def test_files_without_loss_give_what_was_saved(tmp_path: Path, case: str) -> None:
    image_format, values, options = WITHOUT_LOSS[case]
    expected = values[..., :3] if values.ndim == 3 else np.repeat(values[..., np.newaxis], 3, axis=2)
    if expected.dtype.itemsize == 2:
        expected = expected >> 8
    if expected.dtype == bool:
        expected = expected * np.uint8(255)
    np.testing.assert_array_equal(load(tmp_path, encode(Image.fromarray(values), image_format, **options)), expected)


def test_a_palette_and_white_as_0_in_a_tiff(tmp_path: Path) -> None:
    image = palette_image()
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(load(tmp_path, encode(image, "TIFF")), colours[np.asarray(image)])
    np.testing.assert_array_equal(load(tmp_path, tiff({262: 0}, b"\x05")), np.full((1, 1, 3), 250))


def test_a_cmyk_tiff_is_the_cmyk_that_pillow_converts(tmp_path: Path) -> None:
    image = Image.new("CMYK", (3, 2), (20, 0, 155, 40))
    found = load(tmp_path, encode(image, "TIFF"))
    # Less ink is lighter: (255 - ink) * (255 - black) / 255.
    expected = np.array([(255 - ink) * (255 - 40) / 255 for ink in (20, 0, 155)])
    assert np.abs(found - expected).max() <= 1


@pytest.mark.skipif("AVIF" not in KINDS, reason="Pillow has no AVIF")
def test_avif_is_close_to_what_was_saved(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((64, 48)))
    found = load(tmp_path, encode(Image.fromarray(smooth), "AVIF", quality=100, subsampling="4:4:4"))
    assert np.abs(found.astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("image_format", ["TIFF", *KINDS[5:]])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientations_of_other_formats(tmp_path: Path, image_format: str, orientation: int) -> None:
    """The dark half of the picture is where the orientation says."""
    stored = np.full((16, 24, 3), 200, np.uint8)
    stored[:, :12] = 20
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load(tmp_path, encode(Image.fromarray(stored), image_format, exif=exif))
    expected = {
        1: stored,
        3: stored[::-1, ::-1],
        6: stored[::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    assert found.shape == expected[orientation].shape
    assert np.abs(found.astype(int) - expected[orientation]).mean() < 5


class Slow(io.RawIOBase):
    """A stream that gives a few bytes at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        piece, self._left = self._left[:7], self._left[7:]
        return piece


SOURCES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "every other byte": lambda data: memoryview(np.repeat(np.frombuffer(data, np.uint8), 2).tobytes())[::2],
    "BytesIO": io.BytesIO,
    "a stream": Slow,
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("image_format", KINDS)
def test_bytes_and_files_give_the_pixels_of_the_path(tmp_path: Path, image_format: str, source: str) -> None:
    data = encode(Image.fromarray(RGB), image_format)
    expected = load(tmp_path, data)
    np.testing.assert_array_equal(load_image(SOURCES[source](data)), expected)
    np.testing.assert_array_equal(load_image(SOURCES[source](data), channels=1), load_image(tmp_path / "image.png", 1))


def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    data = encode(Image.fromarray(RGB), "PNG")
    (tmp_path / "image").write_bytes(b"before" + data)
    with open(tmp_path / "image", "rb") as file:
        file.seek(6)
        np.testing.assert_array_equal(load_image(file), RGB)
        assert not file.closed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: b"", r"The image in memory is empty \(0 bytes\)"),
        (lambda path: b"text", "The image in memory is not an image that refnet reads: it begins with b'text'"),
        (lambda path: bytes(path), "The image in memory is not an image"),
        (lambda path: io.BytesIO(), r"in the BytesIO gives no bytes. If it was just written, call its seek\(0\) first"),
        (lambda path: io.StringIO("x"), "in the StringIO gives str where bytes were expected: open it in binary mode"),
        (lambda path: open(path, encoding="latin-1"), 'image.png gives str where bytes were expected: .* mode, "rb"'),  # noqa: SIM115
        (lambda path: open("/dev/zero", "rb"), "/dev/zero is not an image that refnet reads"),  # noqa: SIM115
        (lambda path: closed(path), "image.png cannot be read: read of closed file"),
        (lambda path: io.BytesIO(path.read_bytes()[:-20]), "The image in the BytesIO is a damaged or incomplete PNG"),
        (lambda path: path.read_bytes()[:-20], "The image in memory is a damaged or incomplete PNG"),
        (lambda path: png_header(20_000, 20_000), "The image in memory has 20000 x 20000 = 400,000,000 pixels"),
        (lambda path: released(path), "The image in memory cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_bytes_and_files_that_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    (tmp_path / "image.png").write_bytes(encode(Image.fromarray(RGB), "PNG"))
    with pytest.raises(InputError, match=message):
        load_image(make(tmp_path / "image.png"))


def closed(path: Path) -> Any:
    with open(path, "rb") as file:
        return file


def released(path: Path) -> memoryview:
    view = memoryview(path.read_bytes())
    view.release()
    return view


def test_a_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.images.files._WHOLE_BYTES", 2**20)

    class Endless:
        def read(self, size: int) -> bytes:
            return b"\xff\xd8\xff" + bytes(size - 3)

    with pytest.raises(InputError, match="Endless has more than 1,048,576 bytes"):
        load_image(Endless())  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("make", "grey", "coloured"),
    [
        (lambda: encode(Image.fromarray(RGB), "PNG"), "is coloured, and becomes grey", ""),
        (lambda: encode(Image.fromarray(GREY), "PNG"), "", "is grey: its values are those of red, green and blue"),
        (lambda: encode(Image.new("CMYK", (8, 8)), "JPEG"), "is coloured", "is CMYK, which becomes RGB"),
        (lambda: encode(Image.fromarray(GREY.astype(np.uint16)), "PNG"), "16 bits per value", "is grey"),
    ],
)
def test_conversions_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int, make: Any, grey: str, coloured: str
) -> None:
    (tmp_path / "image.png").write_bytes(make())
    with caplog.at_level(logging.INFO, "refnet.images"):
        load_image(tmp_path / "image.png", channels)
    expected = coloured if channels == 3 else grey
    assert expected in caplog.text
    assert bool(caplog.records) == bool(expected)
    assert all(record.getMessage().startswith(str(tmp_path)) for record in caplog.records)


@pytest.mark.parametrize("transparency", [None, 5, (1, 2, 3), bytes([255, 255]), (257, 514, 771)])
def test_opaque_images_are_not_called_transparent(tmp_path: Path, transparency: Any) -> None:
    opaque = np.full((4, 4, 3), 200, np.uint8)
    image = Image.fromarray(opaque if isinstance(transparency, tuple | None) else opaque[..., 0])
    image = image.quantize(4) if isinstance(transparency, bytes) else image
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(load(tmp_path, encode(image, "PNG", **options)), opaque)


def test_a_format_that_pillow_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.images.files.plugin_of", lambda image_format: None)
    with pytest.raises(
        InputError, match=r"image.png is a file of BMP, which the installed Pillow does not read: install"
    ):
        load(tmp_path, encode(Image.fromarray(RGB), "BMP"))
