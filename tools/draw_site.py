"""Build the site, and draw the pages of it that `docs/this-site.md` shows, as PNGs.

It needs Chromium, a font with Chinese, and the group docs:

    python tools/draw_site.py [--site FOLDER]

The pictures are small: few colours, and what the window shows first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools.draw_page import draw

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures" / "site"
#: The pages, by the names of their pictures.
PAGES = {
    "start": "docs/index.html",
    "reading": "docs/read-resnet-v2.html",
    "kernel": "docs/kernels/residual.html",
    "functions": "docs/api.html",
    "chinese": "docs/zh/index.html",
}
WIDTH, HEIGHT = 1400, 900
#: What fits the width of a page, and is sharp enough to read.
SHOWN = (1050, 675)


def build(folder: Path) -> None:
    """Build the site."""
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-c", "docs", ".", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=Path, help="a site that is built")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        site = options.site or Path(folder)
        if options.site is None:
            build(site)
        for name, page in PAGES.items():
            image = draw(site / page, WIDTH, HEIGHT).resize(SHOWN, Image.Resampling.LANCZOS)
            image = image.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            image.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
