"""Pages and pictures of the documentation that a program writes: how they are filled in, and compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path


def filled(text: str, kind: str, made: Callable[[str], str]) -> str:
    """A page, with what is made between each ``<!-- kind: words -->`` and the ``<!-- end -->`` behind it.

    Parameters
    ----------
    text : str
        The page.
    kind : str
    made : callable
        Gives the text for the words.
    """
    return re.sub(
        rf"(<!-- {kind}: ([^\n]+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{made(found[2]).strip()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def by_this_matplotlib(path: Path) -> bool:
    """Whether a picture was written by the version that is installed: another one may draw otherwise."""
    import matplotlib  # the children of tests that fill in pages do without it

    return re.search(rb"Matplotlib \D*([\d.]+\d)", path.read_bytes())[1].decode() == matplotlib.__version__  # type: ignore[index]


def same_picture(path: Path, other: Path) -> bool:
    """Whether two files show the same: of PNGs the pixels count."""
    import numpy as np
    from PIL import Image

    if path.suffix != ".png":
        return path.read_bytes() == other.read_bytes()
    with Image.open(path) as one, Image.open(other) as two:
        return np.array_equal(np.asarray(one), np.asarray(two))
