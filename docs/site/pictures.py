"""Draw the diagrams of the pages: ``python docs/site/pictures.py``; ``--check`` only says whether they are up to date.

The diagrams are SVG of plain numbers and words, the same on every machine. What they show is read off the kernels and
their geometry, not repeated here. The other pictures are drawn by ``refnet plot``; they are compared where matplotlib
has the version that drew them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from refnet.cli import main as main_of_refnet
from refnet_kernels import target
from refnet_kernels.contract import ConvGeometry, GroupNormGeometry, PoolGeometry, SubsampleGeometry, Target
from refnet_kernels.system.cores import share_of
from tests.support.pages import by_this_matplotlib, same_picture

FOLDER = Path(__file__).parents[1] / "pictures"
SIDE = 34
#: The threads of the diagrams, and an image with a group norm.
THREADS = 2
GROUPED = GroupNormGeometry.of((1, 28, 28, 512), groups=32, epsilon=1e-5)
BLUE, ORANGE, GREEN, GREY = "#9ecae1", "#fdae6b", "#a1d99b", "#f0f0f0"


class Drawing:
    """Rectangles, lines and words."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, text: str = "", colour: str = "white", width: float = SIDE, dashed: bool = False
    ) -> None:
        """A box with a word in it."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{SIDE}" fill="{colour}" stroke="#444"{dash}/>'
        )
        if text:
            self.text(x + width / 2, y + SIDE / 2 + 5, text, "middle")

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Words."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>')

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str = "#444") -> None:
        """A line."""
        self.parts.append(
            f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{colour}" stroke-width="1.6" fill="none"/>'
        )

    def svg(self) -> str:
        """The file."""
        width, height = self.size
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="monospace" font-size="14">\n<rect width="{width}" height="{height}" fill="white"/>\n'
            f"{body}\n</svg>\n"
        )


def reads(geometry: ConvGeometry, output: int) -> list[int]:
    """The columns that an output reads; those below 0 and beyond the image are padding."""
    return [output * geometry.stride + tap * geometry.rate - geometry.pad_left for tap in range(geometry.kernel_width)]


def _row(drawing: Drawing, y: float, geometry: ConvGeometry, output: int, left: float, colour: str) -> None:
    """A row of pixels with what an output reads, and the outputs above them, each over the middle of what it reads."""
    read = reads(geometry, output)
    for column in range(
        min(read[0], -geometry.pad_left), max(reads(geometry, geometry.out_width - 1)[-1] + 1, geometry.width)
    ):
        inside = 0 <= column < geometry.width
        shown = colour if column in read else "white" if inside else GREY
        drawing.box(left + column * SIDE, y, str(column) if inside else "pad", shown, dashed=not inside)
    for place in range(geometry.out_width):
        middle = left + (np.mean(reads(geometry, place)) + 0.5) * SIDE
        drawing.box(middle - SIDE / 2, y - 2.2 * SIDE, str(place), colour if place == output else "white")
        if place == output:
            for column in read:
                drawing.line(middle, y - 1.2 * SIDE, left + (column + 0.5) * SIDE, y)


def conv2d_same() -> str:
    """Pads at stride 2 of a row of four pixels: TensorFlow's "SAME", and conv2d_same."""
    drawing = Drawing(560, 325)
    image, weights = np.zeros((1, 4, 4, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32)
    for i, (name, make) in enumerate(
        (
            ("conv2d_same, stride 2", ConvGeometry.same),
            ("padding=&quot;SAME&quot;, stride 2", ConvGeometry.tensorflow_same),
        )
    ):
        geometry = make(image, weights, stride=2, rate=1)
        y = 110 + i * 160
        drawing.text(20, y + SIDE / 2 + 5, name)
        _row(drawing, y, geometry, 0, 330, (BLUE, ORANGE)[i])
    return drawing.svg()


def atrous() -> str:
    """A stride that is left out, and the rate that takes its place."""
    drawing = Drawing(600, 345)
    image, weights = np.zeros((1, 9, 9, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32)
    left = 250
    drawing.text(20, 127, "stride 2, then")
    drawing.text(20, 147, "3 taps, rate 1")
    thin = [2 * i for i in range(5)]
    for column in range(9):
        chosen = column in thin[1:4]
        drawing.box(
            left + column * SIDE,
            110,
            str(column) if column in thin else "",
            BLUE if chosen else "white" if column in thin else GREY,
        )
    drawing.box(left + 4 * SIDE, 30, "", BLUE)
    for column in thin[1:4]:
        drawing.line(left + 4.5 * SIDE, 30 + SIDE, left + (column + 0.5) * SIDE, 110)
    geometry = ConvGeometry.same(image, weights, stride=1, rate=2)
    drawing.text(20, 307, "no stride, then")
    drawing.text(20, 327, "3 taps, rate 2")
    assert reads(geometry, 4) == thin[1:4]
    for column in range(9):
        drawing.box(left + column * SIDE, 290, str(column), ORANGE if column in reads(geometry, 4) else "white")
        drawing.box(left + column * SIDE, 210, "", ORANGE if column == 4 else "white" if column in thin else GREEN)
    for column in reads(geometry, 4):
        drawing.line(left + 4.5 * SIDE, 210 + SIDE, left + (column + 0.5) * SIDE, 290)
    return drawing.svg()


def numbers() -> dict[str, Any]:
    """How the CPU's kernels divide their work, read off them."""
    cpu = {
        op: import_module(f"refnet_kernels.{op}.cpu")
        for op in ("batch_norm", "conv", "group_norm", "max_pool", "mean", "residual")
    }
    return {
        "lanes": target.LANES,
        "rows": target.ROWS,
        "vectors": target.VECTORS,
        "width": target.WIDTH,
        "operands": cpu["conv"].OPERANDS,
        "pool tiles": cpu["max_pool"].ITEM_TILES,
        "norm item": cpu["batch_norm"].ITEM,
        "residual item": cpu["residual"].ITEM,
        "statistics block": cpu["batch_norm"].BLOCK,
        "mean block": cpu["mean"].BLOCK,
        "group item": cpu["group_norm"].item_channels(GROUPED, Target(workers=THREADS)),
    }


@cache
def of_16_lanes() -> dict[str, Any]:
    """These numbers where vectors have 16 lanes, whatever this machine has."""
    command = [sys.executable, __file__, "--numbers"]
    environment = {**os.environ, "REFNET_LANES": "16"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tiles() -> str:
    """The registers of a tile of the convolution, with 32 of 16 lanes."""
    lanes, rows, vectors = (of_16_lanes()[name] for name in ("lanes", "rows", "vectors"))
    drawing = Drawing(620, 400)
    wide = 150
    drawing.text(20, 30, f"{vectors} vectors of {lanes} weights")
    drawing.text(20, 75, "pixels")
    for row in range(rows):
        drawing.box(20, 85 + row * (SIDE + 6), f"x{row}", BLUE)
    for vector in range(vectors):
        x = 200 + vector * (wide + 12)
        drawing.box(x, 40, f"w[k, {vector * lanes}:{(vector + 1) * lanes}]", ORANGE, width=wide)
        for row in range(rows):
            drawing.box(x, 85 + row * (SIDE + 6), f"s{row},{vector}", GREEN, width=wide)
    for row in range(rows):
        drawing.line(20 + SIDE, 85 + row * (SIDE + 6) + SIDE / 2, 200, 85 + row * (SIDE + 6) + SIDE / 2)
    drawing.text(
        20,
        385,
        f"s = fma(x, w, s): {rows * vectors} registers of sums, {rows} pixels by {vectors * lanes} channels",
    )
    return drawing.svg()


def epilogue() -> str:
    """What a tile's sums pass before they are stored."""
    rows, width, operands = (of_16_lanes()[name] for name in ("rows", "width", "operands"))
    order = [operands.index(name) for name in ("bias", "mean", "shortcut", "out", "next_mean", "preact")]
    assert order == sorted(order)
    drawing = Drawing(830, 235)
    wide, step = 96, 114
    drawing.text(20, 28, f"{rows} pixels by {width} channels, in registers; each step is there or left out")
    drawing.text(20, 200, "blue: read from memory   orange: written to memory")
    chain = ["sums", "+ bias", "norm", "ReLU", "+ shortcut", "ReLU", "out"]
    below = {3: "norm", 4: "ReLU", 5: "preact"}
    for place, text in enumerate(chain):
        x = 20 + place * step
        if place:
            drawing.line(x - step + wide, 50 + SIDE / 2, x, 50 + SIDE / 2)
        drawing.box(x, 50, text, _of(text), width=wide)
    drawing.line(20 + 6 * step + wide / 2, 50 + SIDE, 20 + 6 * step + wide / 2, 115)
    drawing.line(20 + 6 * step + wide / 2, 115, 20 + 3 * step + wide / 2, 115)
    drawing.line(20 + 3 * step + wide / 2, 115, 20 + 3 * step + wide / 2, 135)
    for place, text in below.items():
        x = 20 + place * step
        if place > 3:
            drawing.line(x - step + wide, 135 + SIDE / 2, x, 135 + SIDE / 2)
        drawing.box(x, 135, text, _of(text), width=wide)
    drawing.text(20, 157, "for the next unit, of out as stored:")
    return drawing.svg()


def _of(step: str) -> str:
    """The colour of a step: whether it reads, writes or stays in registers."""
    return ORANGE if step in ("out", "preact") else BLUE if step.startswith("+") or step == "norm" else GREEN


def pool_tiles() -> str:
    """The tiles of a max pool, which one thread takes, and what one of them reads."""
    rows, width, count = (of_16_lanes()[name] for name in ("rows", "width", "pool tiles"))
    pool = PoolGeometry.same((1, 112, 112, 64), window=3, stride=2)
    drawing = Drawing(720, 330)
    drawing.text(20, 28, f"an item, for one thread: {count} tiles of {rows} output pixels, row by row")
    wide = 80
    for tile in range(count):
        drawing.box(20 + tile * wide, 42, f"{tile * rows}-{(tile + 1) * rows - 1}", GREEN if not tile else GREY,
                    width=wide)  # fmt: skip
    drawing.line(60, 42 + SIDE, 60, 120)
    drawing.text(20, 140, f"a tile: {rows} pixels by {width} channels")
    for row in range(rows):
        drawing.box(20 + row * (SIDE + 4), 155, f"t{row}", GREEN)
    for panel in range(pool.channels // width):
        drawing.text(20, 222 + 20 * panel, f"channels {panel * width}-{(panel + 1) * width - 1}")
    drawing.text(400, 140, f"each reads its window, {pool.window} x {pool.window}:")
    for tap in range(pool.window**2):
        row, column = divmod(tap, pool.window)
        drawing.box(430 + column * SIDE, 155 + row * SIDE, f"{tap}", BLUE)
    drawing.text(400, 290, "t = larger(t, x), tap by tap")
    return drawing.svg()


def rows() -> str:
    """Ops whose item is a row of the output: the average pool, and subsampling."""
    size, factor, items = 8, 2, 2
    pool = PoolGeometry.same((1, size, size, 1), window=factor, stride=factor)
    thin = SubsampleGeometry.of((1, size, size, 1), factor)
    drawing = Drawing(650, 350)
    for left, title, read in (
        (20, f"avg_pool, window {pool.window}, stride {pool.stride}", pool.window),
        (345, f"subsample, factor {thin.factor}", 1),
    ):
        drawing.text(left, 28, title)
        for item in range(items):
            drawing.text(left, 64 + item * SIDE, f"item {item}")
            for column in range(pool.out_width):
                drawing.box(left + (column + 2) * SIDE, 42 + item * SIDE, "", (BLUE, ORANGE)[item])
        drawing.text(left, 145, "reads")
        for row in range(items * factor):
            for column in range(size):
                is_read = row % factor < read and column % factor < read
                colour = (BLUE, ORANGE)[row // factor] if is_read else "white"
                drawing.box(left + column * SIDE, 158 + row * SIDE, "", colour)
    drawing.text(20, 328, "each box is a pixel with all its channels, over which the vectors go")
    return drawing.svg()


def pieces() -> str:
    """Ops in which each number is on its own."""
    found = of_16_lanes()
    assert found["norm item"] == found["residual item"]
    count, channels = 56 * 56 * 256, 256
    items = -(-count // found["norm item"])
    drawing = Drawing(720, 165)
    drawing.text(20, 28, f"56 x 56 x {channels} = {count:,} numbers, in the order of the memory, {THREADS} threads")
    wide = 52
    for thread in range(THREADS):
        for item in share_of(items, thread, THREADS):
            drawing.box(20 + item * wide, 45, f"{item}", (BLUE, ORANGE)[thread], width=wide)
    drawing.text(
        20,
        110,
        f"an item: {found['norm item']:,} numbers, {found['norm item'] // channels} pixels; the last has the rest",
    )
    drawing.text(20, 135, "blue and orange: what each thread draws first; one that is done helps the other")
    return drawing.svg()


def columns() -> str:
    """Ops with one chain of additions per channel."""
    found = of_16_lanes()
    channels, pixels = 2048, 49
    block = found["mean block"]
    blocks = channels // block
    drawing = Drawing(720, 300)
    drawing.text(20, 28, f"7 x 7 x {channels}: an item is {block} channels, {THREADS} threads")
    wide = 80
    for thread in range(THREADS):
        for item in share_of(blocks, thread, THREADS):
            x = 20 + item * wide
            for pixel in range(4):
                y = 45 + pixel * (SIDE + 8)
                words = ("pixel 0", "pixel 1", "...", f"pixel {pixels - 1}")[pixel]
                drawing.box(x, y, words, (BLUE, ORANGE)[thread], width=wide - 6)
                drawing.line(x + wide / 2 - 3, y + SIDE, x + wide / 2 - 3, y + SIDE + 8)
            drawing.box(x, 45 + 4 * (SIDE + 8), "sums", GREEN, width=wide - 6)
    drawing.text(
        20,
        275,
        f"a sum per channel, in binary64, pixel after pixel; batch_statistics: {found['statistics block']} channels",
    )
    return drawing.svg()


def groups() -> str:
    """The items of a group norm, and the three times that it reads its images."""
    most, g = of_16_lanes()["group item"], GROUPED
    size = f"{g.height} x {g.width} x {g.channels}"
    drawing = Drawing(720, 275)
    drawing.text(20, 28, f"{size}, {g.groups} groups of {g.group_channels} channels, {THREADS} threads")
    scale, items = 660 / g.channels, -(-g.channels // most)
    for thread in range(THREADS):
        for item in share_of(items, thread, THREADS):
            first, last = item * most, min((item + 1) * most, g.channels)
            words = f"{first}-{last - 1}" if last - first > g.group_channels * 2 else ""
            drawing.box(20 + first * scale, 45, words, (BLUE, ORANGE)[thread], width=(last - first) * scale)
    for group in range(g.groups):
        side = g.group_channels * scale
        drawing.box(20 + group * side, 45 + SIDE + 6, "", GREEN, width=side)
    drawing.text(
        20, 145, f"an item: {most} channels of one image, {most // g.group_channels} groups, read three times:"
    )
    for place, text in enumerate(("sums: mean", "squares: scale", "fma(x-mean, scale, beta)")):
        drawing.box(20 + place * 225, 160, text, (GREY, GREY, GREEN)[place], width=215)
    drawing.text(20, 225, "a sum in binary64: along each row of a channel, then over its rows,")
    drawing.text(20, 247, "then over the group's channels")
    return drawing.svg()


#: Each picture, by the name of its file.
PICTURES: dict[str, Callable[[], str]] = {
    draw.__name__: draw for draw in (atrous, columns, conv2d_same, epilogue, groups, pieces, pool_tiles, rows, tiles)
}


def plots(folder: Path) -> dict[str, list[str]]:
    """The command of each picture that refnet draws, as the page has it, on the files of ``refnet demo --save``."""
    with contextlib.redirect_stdout(io.StringIO()):
        main_of_refnet(["demo", "--save", str(folder / "play")])
    weights, image = str(folder / "play" / "digits.ckpt"), ["--image", str(folder / "play" / "digit5.png")]
    return {
        "network.svg": ["network", "resnet_v2_50"],
        "maps.png": ["features", weights, *image, "--size", "129", "--end-point", "block1"],
        "dense_4.png": ["dense", weights, *image, "--size", "129", "--output-stride", "4"],
        "kernels.png": ["kernels", weights, "--layer", "conv1"],
        "dense_16.png": ["dense", weights, *image, "--size", "129", "--output-stride", "16"],
    }


def _drawn(command: list[str], path: Path) -> None:
    kind, weights, *rest = command
    if main_of_refnet(["plot", kind, weights, str(path), *rest]):
        raise SystemExit(f"refnet plot {' '.join(command)} failed")


def check_plots(names: Iterable[str]) -> int:
    """Draw the pictures of refnet again; how many differ."""
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        commands = plots(Path(folder))
        for name in names:
            if by_this_matplotlib(FOLDER / name):
                _drawn(commands[name], Path(folder) / name)
                if not same_picture(FOLDER / name, Path(folder) / name):
                    print(f"docs/pictures/{name} is out of date: run python docs/site/pictures.py", file=sys.stderr)
                    differing += 1
    return differing


def main() -> int:
    """Write the pictures, or compare them; 1 if one differs."""
    if "--numbers" in sys.argv[1:]:
        print(json.dumps(numbers()))
        return 0
    check = "--check" in sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        commands = plots(Path(folder))
        if not check:
            for name, command in commands.items():
                _drawn(command, FOLDER / name)
    code = 1 if check and check_plots(commands) else 0
    for name, draw in PICTURES.items():
        path = FOLDER / f"{name}.svg"
        if not check:
            path.write_text(draw(), encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != draw():
            print(f"docs/pictures/{path.name} is out of date: run python docs/site/pictures.py", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
