"""Draw the page of a comparison, of a port with one mistake, as a PNG; needs Chromium.

    python tools/draw_page.py docs/compare.png

The port is resnet_v2_50 with seeded weights, and another epsilon in one batch norm.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import refnet
from refnet import seeded

CHANGED = "resnet_v2_50/block3/unit_2/bottleneck_v2/conv2/BatchNorm/moving_variance"
#: The epsilon of the port's one batch norm, less the one that is meant.
MORE = np.float32(1e-3 - 1e-5)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def write_page(path: Path) -> None:
    """Compare, and write the page."""
    weights = dict(seeded.lively_weights(refnet.random_weights("resnet_v2_50", num_classes=1001, seed=0), seed=0))
    images = seeded.random_images((96, 112, 3), seed=1)
    port = weights | {CHANGED: weights[CHANGED] + MORE}
    _, theirs = refnet.forward(port, images, end_points=True)
    comparison = refnet.compare(weights, theirs, images)
    comparison.html(path)


def draw(page: Path, width: int, height: int, *, dark: bool = False) -> Image.Image:
    """The page as the browser shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("No Chromium is installed.")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "page.png")
        flags = [*FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"]
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        command = [browser, *flags, f"--screenshot={picture}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--page", type=Path, help="draw this page")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = options.page or Path(folder, "page.html")
        if options.page is None:
            write_page(page)
        image = draw(page, options.width, options.height, dark=options.dark)
    image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(options.picture, optimize=True)


if __name__ == "__main__":
    main()
