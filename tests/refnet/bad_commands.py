"""Command lines that must be refused, and the exit code of each. ``tools/bad_inputs.py`` prints them.

`KINDS` has the values that an argument of a kind refuses, `ARGUMENTS` command lines and the kind of one argument more,
which is put at their end, or in the place of ``{}``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.refnet.bad_calls import make_files


class Kind(NamedTuple):
    """What an argument of a kind refuses: the exit code, words of the message, and values."""

    code: int
    message: str
    values: Sequence[str]


class BadCommand(NamedTuple):
    """A command line, the exit code, and words of the message."""

    arguments: list[str]
    code: int
    message: str


DIGITS_30, DIGITS_400, DIGITS_5000 = "9" * 30, "9" * 400, "9" * 5000
KINDS = {
    "count": Kind(
        2, "not a whole number of 1 or more|--top is",
        ("0", "-1", "1.5", "x", "", "\u00b2", "1e3", "nan", "0x9", DIGITS_30, DIGITS_400, DIGITS_5000),
    ),
    "threads": Kind(
        2, "threads is|invalid int value|expected one argument",
        ("0", "-1", "1025", "1.5", "x", "", "\u00b2", "None", DIGITS_30, DIGITS_400, DIGITS_5000),
    ),
    "seed": Kind(2, "seed is|invalid int value", ("1.5", "x", "", DIGITS_30, DIGITS_400, DIGITS_5000)),
    "fraction": Kind(
        2, "not a number above 0, up to 1",
        ("0", "-1", "1.5", "nan", "inf", "x", "", "1e400", DIGITS_400, DIGITS_5000),
    ),
    "device": Kind(3, "device", ("tpu", "", "cuda:99", "cpu:1", "cuda:-1", "cuda:\u00b2", "CPU", "cpu ", DIGITS_400)),
    "weights": Kind(
        4, "none|folder|fifo|null|empty|text|a.png|g.safetensors|xxx",
        ("none.npz", "folder", "fifo", "/dev/null", "empty.npz", "text.ckpt", "a.png", "g.safetensors", "x" * 300),
    ),
    "image": Kind(
        5, "none|folder|fifo|null|zero|empty|text|w.npz|xxx",
        ("none.png", "folder", "fifo", "/dev/null", "/dev/zero", "empty.npz", "text.ckpt", "w.npz", "x" * 300),
    ),
    "golden": Kind(
        5, "none|folder|fifo|null|empty|text|o.safetensors|w.npz|xxx",
        ("none.safetensors", "folder", "fifo", "/dev/null", "empty.npz", "text.ckpt", "w.npz", "o.safetensors",
         "x" * 300),
    ),
    "activations": Kind(
        5, "none|folder|fifo|null|empty|text|a.png|xxx|path",
        ("none.npz", "folder", "fifo", "/dev/null", "empty.npz", "text.ckpt", "a.png", "x" * 300, ""),
    ),
    "mapping": Kind(2, "THEIRS=OURS|names", ("a", "=", "a=", "=b", "a=b", DIGITS_400)),
    "labels": Kind(
        2, "label", ("none.txt", "folder", "fifo", "/dev/zero", "latin1.txt", "text.ckpt", "empty.npz", "x" * 300, ""),
    ),
    "path": Kind(2, "The path is|needs|empty", ("",)),
    "written weights": Kind(
        4, "No such file|Not a directory|too long", ("no/o.npz", "a.png/o.npz", f"{'x' * 300}.npz"),
    ),
    "refused weights": Kind(
        2, "its name can end|exists already|is the file|is a directory|path", ("o.h5", "o", "", "d.npz", "w.npz"),
    ),
    "written golden": Kind(
        5, "No such file|Not a directory|too long", ("no/g.st", "a.png/g.st", f"{'x' * 300}.safetensors"),
    ),
    "refused golden": Kind(2, "exists already|is a directory|path", ("folder", "g.safetensors", "fifo", "")),
    "picture": Kind(2, "picture|matplotlib", ("o.xyz", "o", "no/o.png", "d.png", "fifo.png")),
    "check": Kind(2, "There is no check", ("nope", "", "resnet_v2_51", DIGITS_400)),
    "network": Kind(2, "nearest networks", ("resnet_v2_51", "ResNet50", "resnet_v2_500")),
    "option": Kind(
        2, "",
        ("x", "=", "colour=1", "blocks=1", "device=cpu", "threads=1", "num_classes=0", "num_classes=x",
         "num_classes=8", f"num_classes={DIGITS_400}", f"num_classes={DIGITS_5000}", "num_classes=[7]",
         "output_stride=6", "output_stride=x", "output_stride=-Infinity", f"output_stride={DIGITS_400}",
         "global_pool=maybe", "global_pool=", "is_training=2", "spatial_squeeze=x", "batch_norm_epsilon=-1",
         "batch_norm_epsilon=1e999", "batch_norm_epsilon=NaN", "batch_norm_epsilon=true", "pool_mode=x",
         "pool_mode=1", "stride_place=x", "activation_fn=gelu", "multi_grid=1", "dtype=float16", "dtype=null"),
    ),
    "recipe": Kind(
        2, "recipe|resize_side|central_fraction|mean|std|mode|interpolation|height|crop_offset",
        ("torch", "", "=", "filter=box", "resize_side", "resize_side=x", "resize_side=0", "resize_side=1.5",
         f"resize_side={DIGITS_400}", f"height={DIGITS_5000}", "height=true", "central_fraction=0",
         "central_fraction=NaN", "mode=x", "interpolation=random", "mean=0.5", "mean=0.5,0.5", "mean=x,y,z",
         "std=0,0,0", "std=1e999,1,1", "crop_offset=up", "mode=[1]", "height={}"),
    ),
    "end point": Kind(2, "no end point|expected at least one", ("nowhere", "", DIGITS_400)),
    "unknown": Kind(2, "unrecognized arguments|are required", ("--colour", "--thread", "--jsonx", "-z")),
}  # fmt: skip

_PREDICT = "predict a.png --weights w.npz"
_MAPS = "plot features w.npz p.png --image a.png"
_RECORD = "golden record n.safetensors --weights w.npz"
#: A command line, and the kind of the argument after it.
ARGUMENTS = (
    ("", "unknown"), ("demo", "unknown"), (_PREDICT, "unknown"), ("golden", "unknown"), ("summary w.npz", "unknown"),
    (f"{_PREDICT} --top", "count"), (f"{_PREDICT} --size", "count"), (f"{_PREDICT} --height", "count"),
    (f"{_PREDICT} --width", "count"), (f"{_PREDICT} --central-fraction", "fraction"),
    (f"{_PREDICT} --threads", "threads"), (f"{_PREDICT} --device", "device"), (f"{_PREDICT} --labels", "labels"),
    ("predict --weights w.npz", "image"), ("predict a.png --weights", "weights"), ("predict a.png --weights", "path"),
    ("summary", "weights"), ("summary", "network"), ("summary", "path"), ("summary w.npz --size", "count"),
    ("convert w.npz", "refused weights"), ("convert w.npz", "written weights"),
    ("convert {} n.npz", "weights"), ("convert {} n.npz", "path"),
    ("bench --batch", "count"), ("bench --size", "count"), ("bench --rounds", "count"), ("bench --threads", "threads"),
    ("bench --device", "device"), ("bench", "weights"), ("bench", "path"),
    ("demo --threads", "threads"), ("demo --device", "device"), ("demo --plot", "picture"),
    ("plot network w.npz", "picture"), ("plot network {} p.png", "weights"), ("plot network {} p.png", "path"),
    ("plot network w.npz p.png --size", "count"), (f"{_MAPS} --end-point", "end point"),
    (f"{_MAPS} --end-point block1 --channels", "count"), (f"{_MAPS} --end-point block1 --threads", "threads"),
    (f"{_MAPS} --end-point block1 --device", "device"), ("plot dense w.npz p.png --image", "image"),
    ("plot dense w.npz p.png --image a.png --size", "count"), ("plot", "unknown"),
    ("selfcheck", "check"), ("selfcheck --threads", "threads"), ("selfcheck --device", "device"),
    (f"{_RECORD} --random", "seed"), (f"{_RECORD} --random 1 --size", "count"), (f"{_RECORD} --image", "image"),
    (f"{_RECORD} --random 1 --size 9 --option", "option"), (f"{_RECORD} --random 1 --threads", "threads"),
    (f"{_RECORD} --random 1 --device", "device"), (f"{_RECORD} --random 1 --size 9 --end-points", "end point"),
    (f"{_RECORD} --image a.png --recipe", "recipe"), (f"{_PREDICT} --recipe", "recipe"),
    ("summary w.npz --recipe", "recipe"), ("convert w.npz n.npz --recipe", "recipe"),
    ("golden record n.safetensors --random 1 --weights", "weights"),
    ("golden record --weights w.npz --random 1 --size 9", "written golden"),
    ("golden record --weights w.npz --random 1 --size 9", "refused golden"),
    ("compare {} w.npz", "activations"), ("compare w.npz", "activations"), ("compare w.npz w.npz --map", "mapping"),
    ("compare w.npz w.npz --plot", "picture"), ("compare w.npz --image a.png --weights", "weights"),
    ("compare w.npz --weights w.npz --image", "image"),
    ("golden check", "golden"), ("golden check g.safetensors --weights", "weights"),
    ("golden check g.safetensors --weights w.npz --image", "image"),
    ("golden check g.safetensors --weights w.npz --threads", "threads"),
    ("golden check g.safetensors --weights w.npz --device", "device"),
)  # fmt: skip

#: Command lines that are wrong as a whole.
LINES = (
    BadCommand(["golden"], 2, "required: record|check"),
    BadCommand(["golden", "record"], 2, "required"),
    BadCommand(["golden", "check"], 2, "required: GOLDEN"),
    BadCommand(
        ["golden", "record", "n.safetensors", "--weights", "resnet_v2_50", "--image", "a.png", "--recipe", "height=x"],
        2,
        "height is 'x'",
    ),
    BadCommand(["predict"], 2, "required"),
    BadCommand(["plot"], 2, "required: PICTURE"),
    BadCommand(["plot", "dense", "w.npz", "p.png"], 2, "required: --image"),
    BadCommand(["plot", "dense", "w.npz", "p.png", "--image", "a.png", "--output-stride", "6"], 2, "multiple of 4"),
    BadCommand(["compare"], 2, "required: REFERENCE"),
    BadCommand(["compare", "w.npz"], 2, "Pass two files"),
    BadCommand(["compare", "w.npz", "w.npz", "--image", "a.png"], 2, "--image is for --weights"),
    BadCommand(["compare", "w.npz", "w.npz", "--html", "d.png"], 2, "cannot be written"),
    BadCommand(["convert", "w.npz"], 2, "required: B"),
    BadCommand(_RECORD.split(), 2, "Pass --image, or --random"),
    BadCommand([*_RECORD.split(), "--image", "a.png", "--random", "1"], 2, "Pass --image, or --random"),
    BadCommand(["golden", "record", "n.safetensors", "--random", "1"], 2, "Pass --weights"),
    BadCommand(["golden", "check", "g.safetensors"], 2, "pass the weights"),
    BadCommand(["golden", "check", "g.safetensors", "--weights", "w.npz"], 2, "pass the images"),
    BadCommand(["golden", "check", "g.safetensors", "--weights", "w.npz", "--image", "a.png"], 5, "images"),
    BadCommand([*_PREDICT.split(), "--size", "9", "--width", "9"], 2, "leave out --height and --width"),
    BadCommand(["summary", "a\0b"], 2, "The path is"),
    BadCommand(["predict", "a\0b", "--weights", "w.npz"], 2, "The path is"),
    BadCommand(["convert", "w.npz", "a\0b.npz"], 2, "The path is"),
)


def make_bad_files(folder: Path) -> None:
    """The sound files of `make_files`, and those that the command lines name."""
    make_files(folder)
    for name in ("folder", "d.npz", "d.png"):
        (folder / name).mkdir()
    for name in ("fifo", "fifo.png"):
        os.mkfifo(folder / name)
    (folder / "empty.npz").touch()
    (folder / "text.ckpt").write_text("no weights\n")
    (folder / "latin1.txt").write_bytes("zw\u00f6lf\n".encode("latin-1"))
    np.savez(folder / "o.npz", a=np.zeros(1))
    (folder / "o.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")


def bad_commands() -> Iterator[BadCommand]:
    """Every command line."""
    yield from LINES
    for line, kind in ARGUMENTS:
        code, message, values = KINDS[kind]
        for value in values:
            words = line.split() if "{}" in line else [*line.split(), "{}"]
            yield BadCommand([value if word == "{}" else word for word in words], code, message)
