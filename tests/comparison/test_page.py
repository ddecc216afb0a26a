"""The page and the picture: whole, small, and without anything that a name could smuggle in."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.comparison.comparison import Comparison
from refnet.comparison.page import page
from refnet.errors import ConfigError
from tools.draw_page import BROWSERS, FLAGS

HOSTILE = "<script>alert(\"x\")</script><img src=//evil.example/a onerror='x'>&amp;\u202e\ud800\x1b[2J" + "x" * 5000
VOID = {"meta", "br"}
GENERATOR = np.random.default_rng(0)


class Page(HTMLParser):
    """Collects what a page consists of, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def comparison_of(names: list[str], side: int = 6, off_from: int = 1) -> Comparison:
    ours = {name: GENERATOR.standard_normal((1, side, side, 8)).astype(np.float32) for name in names}
    theirs = {
        name: value if i < off_from else value + np.float32(0.1) * GENERATOR.standard_normal(value.shape).astype("f4")
        for i, (name, value) in enumerate(ours.items())
    }
    return refnet.compare(ours, theirs)


def test_a_page_of_hostile_names(tmp_path: Path) -> None:
    comparison = comparison_of(["resnet_v2/conv1", HOSTILE, f"b{HOSTILE}"])
    comparison.html(tmp_path / "r.html", diagnosis=f"The kernel is mirrored.\n{HOSTILE}")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in found.attributes)
    assert "The kernel is mirrored." in "".join(found.text)
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert '<script>alert("x")</script>' in "".join(found.text)
    assert len(text) < 200_000


def test_the_page_needs_nothing_else() -> None:
    text = page(comparison_of(["resnet_v2/conv1", "resnet_v2/pool1"]))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text
    assert "default-src 'none'" in text


def test_a_deep_network_is_a_small_page() -> None:
    names = [f"resnet_v2_200/block3/unit_{i}/bottleneck_v2/conv1" for i in range(1, 301)]
    comparison = comparison_of(names, side=12, off_from=100)
    text = page(comparison)
    found = Page(text)
    assert len(text.encode()) < 1_000_000
    assert found.tags.count("tr") == 301
    assert found.tags.count("circle") == 300
    assert found.tags.count("h3") == 8


def test_not_a_number_can_be_drawn(tmp_path: Path) -> None:
    ours = {"resnet_v2/conv1": np.ones((1, 4, 4, 2), np.float32)}
    theirs = {"resnet_v2/conv1": np.full((1, 4, 4, 2), np.nan, np.float32)}
    theirs["resnet_v2/conv1"][0, 0, 0] = np.inf, -np.inf
    comparison = refnet.compare(ours, theirs)
    assert not comparison.agrees
    Page(page(comparison))
    Page(comparison._repr_html_())
    comparison.plot(tmp_path / "p.png")


def test_the_notebook_has_no_script() -> None:
    assert "script" not in Page(comparison_of(["resnet_v2/conv1", HOSTILE])._repr_html_()).tags


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    comparison = comparison_of(["resnet_v2/conv1", "$\\frac{1$" + HOSTILE.replace("\ud800", "")])
    comparison.plot(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["no/r.html", "folder"])
def test_a_page_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        comparison_of(["resnet_v2/conv1"]).html(tmp_path / name)


@pytest.mark.parametrize("name", ["no/r.png", "r.xyz"])
def test_a_picture_that_cannot_be_drawn(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="cannot"):
        comparison_of(["resnet_v2/conv1"]).plot(tmp_path / name)


def drawn_by_browser(page: Path, *flags: str) -> str:
    """The page as Chromium understands it, as HTML."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    command = [browser, *FLAGS, f"--user-data-dir={page.parent / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    comparison_of(["resnet_v2/conv1", HOSTILE]).html(page)
    # The page says how wide it is: in a narrow window too, only the chart and the table scroll, each by itself.
    told = "document.title='width '+document.documentElement.scrollWidth+' of '+innerWidth"
    page.write_text(page.read_text().replace("</script></body>", f"{told}</script></body>"))
    drawn = drawn_by_browser(page, "--window-size=500,900")
    assert drawn.count("<circle") == 2
    width, window = map(int, re.findall(r"<title>width (\d+) of (\d+)<", drawn)[0])
    assert width <= window
