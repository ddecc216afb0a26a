"""Draw the diagrams of the pages: ``python docs/site/pictures.py``; ``--check`` only says whether they are up to date.

The diagrams are SVG of plain numbers and words, the same on every machine. What they show is read off the kernels and
their geometry, not repeated here. The other pictures are drawn by ``refnet plot``; they are compared where matplotlib
has the version that drew them.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from refnet.cli import main as main_of_refnet
from refnet_kernels.contract import ConvGeometry
from tests.support.pages import by_this_matplotlib, same_picture

FOLDER = Path(__file__).parents[1] / "pictures"
SIDE = 34
BLUE, ORANGE, GREEN, GREY = "#9ecae1", "#fdae6b", "#a1d99b", "#f0f0f0"


class Drawing:
    """Rectangles, lines and words."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, text: str = "", colour: str = "white", width: int = SIDE, dashed: bool = False
    ) -> None:
        """A box with a word in it."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{SIDE}" fill="{colour}" stroke="#444"{dash}/>'
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


def tiles() -> str:
    """The registers of a tile of the convolution, with 32 of 16 lanes."""
    command = [
        sys.executable,
        "-c",
        "from refnet_kernels.target import LANES, ROWS, VECTORS; print(LANES, ROWS, VECTORS)",
    ]
    done = subprocess.run(command, env={**os.environ, "REFNET_LANES": "16"}, capture_output=True, text=True, check=True)
    lanes, rows, vectors = map(int, done.stdout.split())
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


#: Each picture, by the name of its file.
PICTURES: dict[str, Callable[[], str]] = {"tiles": tiles, "atrous": atrous, "conv2d_same": conv2d_same}


def plots(folder: Path) -> dict[str, list[str]]:
    """The command of each picture that refnet draws, as the page has it, on the files of ``refnet demo --save``."""
    with contextlib.redirect_stdout(io.StringIO()):
        main_of_refnet(["demo", "--save", str(folder / "play")])
    weights, image = str(folder / "play" / "digits.ckpt"), ["--image", str(folder / "play" / "digit5.png")]
    return {
        "network.svg": ["network", "resnet_v2_50"],
        "maps.png": ["features", weights, *image, "--size", "129", "--end-point", "block1"],
        "dense_4.png": ["dense", weights, *image, "--size", "129", "--output-stride", "4"],
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
