"""Files that refnet does not read: what each of them is by its content, and what to do about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from refnet.weights.formats import pytorch


class Foreign(NamedTuple):
    """A row of `FOREIGN`.

    Attributes
    ----------
    fits : callable
        Tells from a file's first bytes whether it is one.
    words : str
        What it is, and what to do.
    """

    fits: Callable[[bytes], bool]
    words: str


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _is_page(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml version")) and b"<net" not in start


def _is_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))


def _field(message: bytes, place: int) -> tuple[int, bytes, int]:
    """The number of a field of bytes in a protobuf message of less than 16 KiB, its content and its end."""
    tag, size, place = message[place], message[place + 1], place + 2
    if size & 0x80:
        size, place = size & 0x7F | message[place] << 7, place + 1
    if tag & 7 != 2 or not size:
        raise ValueError("the field is a number, or empty")
    return tag >> 3, message[place : place + size], place + size


def _first_strings(head: bytes) -> tuple[bytes, bytes]:
    """The first two strings of a protobuf message whose first field is a message."""
    try:
        number, node, _ = _field(head, 0)
        first, name, place = _field(node, 0)
        second, op, _ = _field(node, place)
    except (IndexError, ValueError):
        return b"", b""
    return (name, op) if (number, first, second) == (1, 1, 2) else (b"", b"")


def _is_graph(head: bytes) -> bool:
    """TensorFlow's GraphDef: a node with its name and the name of its op."""
    name, op = _first_strings(head)
    return name.isascii() and op.isascii() and op.isalnum() and op[:1].isupper()


def _is_caffe(head: bytes) -> bool:
    """Caffe's NetParameter: the network's name, then its layers (field 100)."""
    try:
        number, name, place = _field(head, 0)
    except (IndexError, ValueError):
        return False
    return number == 1 and name.isascii() and head[place : place + 2] == b"\xa2\x06"


#: The first that fits says what a file is.
FOREIGN: tuple[Foreign, ...] = (
    Foreign(
        _starts(b"version https://git-lfs"),
        "a pointer of Git LFS in place of the file: run 'git lfs pull' in its clone, or download the file itself",
    ),
    Foreign(_is_page, "a web page, as a failed download leaves it: download the file again"),
    Foreign(_starts(b"\x1f\x8b"), "a gzip archive: unpack it first (gunzip, or tar -xzf)"),
    Foreign(_starts(b"BZh"), "a bzip2 archive: unpack it first (bunzip2, or tar -xjf)"),
    Foreign(_starts(b"\xfd7zXZ\0"), "an xz archive: unpack it first (unxz, or tar -xJf)"),
    Foreign(_starts(b"\x28\xb5\x2f\xfd"), "a zstd archive: unpack it first (unzstd)"),
    Foreign(_starts(b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"), "a 7z or RAR archive: unpack it first"),
    Foreign(_starts(b"\x93NUMPY"), "a single NumPy array: save all the weights with numpy.savez"),
    Foreign(
        lambda head: head[4:8] == b"TFL3",
        "a TFLite model, whose tensors have lost their names: load the checkpoint or SavedModel that it was made from",
    ),
    Foreign(
        _starts(struct.pack("<QQ", 0x112, 0)),
        "MXNet's .params: load the network's ONNX file, as the ONNX model zoo has it, or export one with MXNet "
        "(mxnet.onnx.export_model)",
    ),
    Foreign(
        _starts(b"7767517"), "the graph of ncnn, whose weights are in its .bin: load the file that it was made from"
    ),
    Foreign(_starts(b"GGUF"), "a GGUF file, of language models: it holds no ResNet that refnet knows"),
    Foreign(
        lambda head: head.lstrip().startswith((b"<?xml", b"<net")),
        "a graph in XML, such as OpenVINO's, whose weights are in its .bin: load the file that it was made from",
    ),
    Foreign(
        _starts(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
        "an image: pass it where images belong, and a file of weights here",
    ),
    Foreign(_starts(b"MATLAB 5.0"), "a MATLAB file: load it with scipy.io.loadmat, and save with numpy.savez"),
    Foreign(_starts(b"%PDF"), "a PDF document"),
    Foreign(
        _is_json,
        "JSON, which holds no weights: pass the file with the weights, or the directory that both are in",
    ),
    Foreign(
        _is_graph,
        "a TensorFlow graph (frozen, if it holds weights): load the checkpoint or SavedModel that it was made from, or "
        "convert it (python -m tf2onnx.convert --graphdef A.pb --output A.onnx --inputs NAME:0 --outputs NAME:0), and "
        "load the .onnx",
    ),
    Foreign(
        _is_caffe,
        "a Caffe model: Keras Applications' ResNet50 has the weights that were published in Caffe, so load that",
    ),
)


def foreign(path: str, head: bytes) -> str | None:
    """What a file is that refnet does not read, and what to do.

    Parameters
    ----------
    path : str
    head : bytes
        Its first `HEAD_BYTES`.

    Returns
    -------
    str or None
        Words for an error; None if it is of an unknown format.
    """
    return pytorch.foreign(path, head) or next((row.words for row in FOREIGN if row.fits(head)), None)
