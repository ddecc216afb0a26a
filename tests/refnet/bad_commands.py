"""Command lines that must be refused, and the exit code of each. ``tools/bad_inputs.py`` prints them.

`KINDS` has the values that an argument of a kind refuses, `ARGUMENTS` command lines and the kind of one argument more,
which is put at their end, or in the place of ``{}``.
"""

from __future__ import annotations

import io
import os
import tarfile
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
    "seconds": Kind(
        2, "not a number of seconds|expected one argument", ("-1", "nan", "inf", "x", "", "1e400", DIGITS_400),
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
    "conv": Kind(
        2, "HEIGHTxWIDTHxCHANNELS,KHxKW,OUTPUTS|expected one argument",
        ("", "x", "28x28x128", "28x28x128,3x3", "28x28,3x3,256", "28x28x128,3,256", "28x28x128,3x3,256,2",
         "-1x9x9,3x3,9", "28x28x128;3x3;256", "0x28x128,3x3,256", "28x28x128,3x3,0", "2.5x28x128,3x3,256",
         "\u00b2x9x9,3x3,9", " 9x9x9,3x3,9", f"{DIGITS_30}x9x9,3x3,9", f"9x9x9,3x3,{DIGITS_5000}"),
    ),
    "conv without memory": Kind(
        5, "would take", ("1000000x1000000x9,3x3,9", "9x9x1000000,99x99,1000000"),
    ),
    "rate without memory": Kind(
        5, "would take", ("1000000000", "1000000"),
    ),
    "share": Kind(
        2, "is not a share, from 0 to 1|expected one", ("-0.1", "1.1", "nan", "inf", "x", "", "50%", DIGITS_400),
    ),
    "not with conv": Kind(
        2, "cannot be used with --conv",
        ("resnet_v2_50", "w.npz", "--size=9", "--layers", "--scope=a", "--head=none", "--averages", "--recipe=vgg",
         "--option=pool_mode=torch"),
    ),
    "only with conv": Kind(2, "can only be used with --conv", ("--stride=2", "--rate=1", "--zeros=0.5", "--zeros=0")),
    "not with tune": Kind(
        2, "leave out|is for the CPU",
        ("--layers", "--conv=9x9x9,3x3,9", "--size=9", "resnet_v2_50", "--averages", "--device=reference"),
    ),
    "only with layers": Kind(2, "can only be used with --layers or --conv", ("--roofline=o.png",)),
    "not of layers": Kind(2, "compiled kernels", ("--device=reference",)),
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
    "folder": Kind(
        2, "path|not a directory|Not a directory|too long", ("", "a.png", "fifo", "/dev/null", "a.png/x", "x" * 300),
    ),
    "layer": Kind(2, "no convolution|convolutions end in", ("nowhere", "", "conv2", DIGITS_400)),
    "input channel": Kind(
        2, "input channels of these|not a whole number", ("3", "-1", "1.5", "x", "", DIGITS_400, DIGITS_5000)
    ),
    "end point": Kind(2, "no end point|expected at least one", ("nowhere", "", DIGITS_400)),
    "whole": Kind(2, "not a whole number of 1 or more", ("-1", "1.5", "x", "", "\u00b2", DIGITS_400, DIGITS_5000)),
    "some seconds": Kind(2, "number of seconds", ("0", "-1", "nan", "inf", "x", "", DIGITS_400)),
    "choice": Kind(2, "invalid choice", ("x", "", "csv", "Dense", DIGITS_400)),
    "many images": Kind(
        5, "no images|No such file|No file matches|damaged|cut off|is empty",
        ("folder", "none", "*.none", "x" * 300, "bad.tar", "half.tar"),
    ),
    "directory of rows": Kind(
        2, "holds other files|another version|is damaged|The path is|Pass SRC", ("d.rows", "new.rows", "bad.rows", "")
    ),
    "job": Kind(
        2, "no job|another version|is damaged|The path is", ("folder", "none", "", "d.rows", "new.rows", "bad.rows")
    ),
    "unknown": Kind(2, "unrecognized arguments|are required", ("--colour", "--thread", "--jsonx", "-z")),
}  # fmt: skip

_PREDICT = "predict a.png --weights w.npz"
_MAPS = "plot features w.npz p.png --image a.png"
_KERNELS = "plot kernels w.npz p.png"
_BATCH = "batch a.png --weights w.npz --out rows"
_RECORD = "golden record n.safetensors --weights w.npz"
_CONV = "bench --conv 9x9x9,3x3,9"
#: A command line, and the kind of the argument after it.
ARGUMENTS = (
    ("", "unknown"), ("demo", "unknown"), (_PREDICT, "unknown"), ("golden", "unknown"), ("summary w.npz", "unknown"),
    (f"{_PREDICT} --top", "count"), (f"{_PREDICT} --size", "count"), (f"{_PREDICT} --height", "count"),
    (f"{_PREDICT} --width", "count"), (f"{_PREDICT} --central-fraction", "fraction"),
    (f"{_PREDICT} --threads", "threads"), (f"{_PREDICT} --device", "device"), (f"{_PREDICT} --labels", "labels"),
    ("predict --weights w.npz", "image"), ("predict a.png --weights", "weights"), ("predict a.png --weights", "path"),
    (f"{_BATCH} --top", "count"), (f"{_BATCH} --batch", "count"), (f"{_BATCH} --shard-rows", "count"),
    (f"{_BATCH} --max-errors", "whole"), (f"{_BATCH} --row-seconds", "some seconds"),
    (f"{_BATCH} --features", "choice"),
    (f"{_BATCH} --format", "choice"), (f"{_BATCH} --runner", "choice"), (f"{_BATCH} --end-points", "end point"),
    (f"{_BATCH} --threads", "threads"), (f"{_BATCH} --device", "device"), (f"{_BATCH} --recipe", "recipe"),
    (f"{_BATCH} --labels", "labels"), ("batch a.png --out rows --weights", "weights"),
    ("batch --weights w.npz --out rows", "many images"), ("batch a.png --weights w.npz --out", "directory of rows"),
    ("batch --status", "job"), (_BATCH, "unknown"), ("completion", "choice"), ("completion bash", "unknown"),
    ("summary", "weights"), ("summary", "network"), ("summary", "path"), ("summary w.npz --size", "count"),
    ("convert w.npz", "refused weights"), ("convert w.npz", "written weights"),
    ("convert {} n.npz", "weights"), ("convert {} n.npz", "path"),
    ("bench --batch", "count"), ("bench --size", "count"), ("bench --rounds", "count"), ("bench --threads", "threads"),
    ("bench --device", "device"), ("bench", "weights"), ("bench", "path"),
    ("plot network w.npz", "picture"), ("plot network {} p.png", "weights"), ("plot network {} p.png", "path"),
    ("plot network w.npz p.png --size", "count"), (f"{_MAPS} --end-point", "end point"),
    (f"{_MAPS} --end-point block1 --channels", "count"), (f"{_MAPS} --end-point block1 --threads", "threads"),
    (f"{_MAPS} --end-point block1 --device", "device"), ("plot dense w.npz p.png --image", "image"),
    ("plot dense w.npz p.png --image a.png --size", "count"), ("plot", "unknown"),
    (f"{_KERNELS} --layer", "layer"), (f"{_KERNELS} --layer conv1 --channel", "input channel"),
    (f"{_KERNELS} --layer conv1 --count", "count"), ("plot kernels w.npz --layer conv1", "picture"),
    ("plot kernels {} p.png --layer conv1", "weights"), (_KERNELS, "unknown"),
    ("bench --conv", "conv"), ("bench --conv", "conv without memory"), (f"{_CONV} --stride", "count"),
    (f"{_CONV} --rate", "count"), (f"{_CONV} --rate", "rate without memory"),
    (f"{_CONV} --zeros", "share"), (f"{_CONV} --batch", "count"),
    (_CONV, "not with conv"), (_CONV, "not of layers"), (f"{_CONV} --roofline", "picture"), ("bench", "only with conv"),
    ("bench --tune", "not with tune"),
    ("bench --layers", "only with conv"), ("bench", "only with layers"), ("bench --layers", "not of layers"),
    ("bench --layers --roofline", "picture"), ("bench --layers", "weights"),
    ("demo --threads", "threads"), ("demo --device", "device"), ("demo --plot", "picture"), ("demo --save", "folder"),
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
    ("diagnose w.npz --image a.png --weights w.npz --limit", "seconds"),
    ("diagnose --weights w.npz --image a.png", "activations"),
    ("diagnose g.safetensors --image a.png --weights", "weights"),
    ("diagnose g.safetensors --weights w.npz --image", "image"),
    ("explain", "choice"), ("golden check", "golden"), ("golden check g.safetensors --weights", "weights"),
    ("golden check g.safetensors --weights w.npz --image", "image"),
    ("golden check g.safetensors --weights w.npz --threads", "threads"),
    ("golden check g.safetensors --weights w.npz --device", "device"),
)  # fmt: skip

#: Command lines that are wrong as a whole.
LINES = (
    BadCommand(["batch"], 2, "SRC, --weights, --out"),
    BadCommand(["batch", "a.png", "--out", "rows"], 2, "missing: --weights"),
    BadCommand(["batch", "a.png", "--status", "rows"], 2, "stands alone"),
    BadCommand([*_BATCH.split(), "--workers", "2"], 2, "workers are for"),
    BadCommand([*_BATCH.split(), "--column", "image"], 2, "Columns are for Parquet"),
    BadCommand([*_BATCH.split(), "--features", "dense", "--top", "3"], 2, "without logits"),
    BadCommand(["batch", "a.png", "bad.tar", "--weights", "w.npz", "--out", "rows"], 2, "several kinds"),
    BadCommand(["batch", "a.tar.gz", "--weights", "w.npz", "--out", "rows"], 5, "No such file"),
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


def _tar(name: str, content: bytes) -> bytes:
    file, member = io.BytesIO(), tarfile.TarInfo(name)
    member.size = len(content)
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def make_bad_files(folder: Path) -> None:
    """The sound files of `make_files`, and those that the command lines name."""
    make_files(folder)
    for name in ("folder", "d.npz", "d.png"):
        (folder / name).mkdir()
    for name in ("fifo", "fifo.png"):
        os.mkfifo(folder / name)
    for name, content in {"d": None, "new": '{"kind": "refnet batch", "version": 99}', "bad": "{"}.items():
        (folder / f"{name}.rows").mkdir()
        (folder / f"{name}.rows" / ("manifest.json" if content else "others")).write_text(content or "")
    (folder / "bad.tar").write_bytes(b"x" * 1024)
    (folder / "half.tar").write_bytes(_tar("a.png", bytes(2000))[:1500])
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
