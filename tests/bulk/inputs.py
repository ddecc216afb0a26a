"""Images for jobs, good and bad ones, and the rows that they must give: one forward after another, hashed by hand."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import refnet
from tests.support.nets import lively_weights

RECIPE = refnet.Recipe(17, 17, 1.0)
WEIGHTS = refnet.Weights(lively_weights(), recipe=RECIPE, labels=list("abcdefg"))

#: Files that give error rows, and the type of each.
BAD = {
    "empty.jpg": (b"", "InputError"),
    "text.png": (b"no image\n", "InputError"),
    "cut.png": (None, "InputError"),
    "large.bmp": (b"BM" + struct.pack("<3I3i2H6I", 70, 0, 54, 40, 60000, 60000, 1, 24, *6 * [0]), "InputError"),
}  # fmt: skip


def write_images(folder: Path, count: int, bad: bool = True) -> None:
    """Small images in three directories, and bad ones among them."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class {number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (18 + number % 4, 20, 3), np.uint8)).save(path)
    if bad:
        for name, (content, _) in BAD.items():
            whole = (folder / "class 0" / "0000.png").read_bytes()
            (folder / "class 1" / name).write_bytes(whole[:-20] if content is None else content)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def expected(folder: Path, top: int = 5) -> dict[str, tuple[Any, bytes]]:
    """By its id, the classes of each image below a folder, or the type of its error; and the digest of its row."""
    found: dict[str, tuple[Any, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".png", ".jpg", ".bmp"):
            continue
        id = str(path.relative_to(folder))
        if path.name in BAD:
            type = BAD[path.name][1]
            found[id] = (type, hashlib.sha256(text(id) + text("error") + text(type)).digest())
            continue
        logits, ends = refnet.forward(WEIGHTS, refnet.load_image(path), end_points=["predictions"])
        classes = sorted(range(len(logits)), key=lambda i: -logits[i])[:top]
        probabilities = [ends["predictions"][i] for i in classes]
        row = text(id) + text("result")
        row += text("classes") + text("int32") + struct.pack(f"<2Q{top}i", 1, top, *classes)
        row += text("probabilities") + text("float32") + struct.pack(f"<2Q{top}f", 1, top, *probabilities)
        row += text("labels") + text("text") + struct.pack("<Q", top) + b"".join(text("abcdefg"[i]) for i in classes)
        found[id] = (classes, hashlib.sha256(row).digest())
    return found


def hash_of(rows: dict[str, tuple[Any, bytes]]) -> str:
    return hashlib.sha256(b"".join(rows[id][1] for id in sorted(rows, key=str.encode))).hexdigest()
