"""Every link of the documentation leads somewhere; what is elsewhere is an address of https."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.links import ROOT, Link, all_links, anchors_of, links_in, problem_with, problems_of_site, text_of


def test_every_link_leads_somewhere() -> None:
    links = all_links()
    assert len(links) > 200
    assert any("#" in link.target for link in links)
    assert any("://" in link.target for link in links)
    assert [f"{link.file}: {link.target}: {why}" for link in links if (why := problem_with(link))] == []


def test_the_first_page_links_every_page_of_the_site() -> None:
    # A page in a list of its own, as errors and kernels have one, is linked by the page that has the list.
    for index in ("docs/index.md", "docs/errors.md", "docs/kernels/index.md", "docs/zh/index.md"):
        path = ROOT / index
        lists = "\n".join(re.findall(r"^```{toctree}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL))
        names = [line for line in lists.splitlines() if line and not line.startswith(":")]
        assert names
        listed = {
            page
            for name in names
            for page in (ROOT if name.startswith("/") else path.parent).glob(name.removeprefix("/") + ".md")
        }
        assert len(listed) >= len(names), index
        linked = {(path.parent / link.partition("#")[0]).resolve() for link in links_in(text_of(path))}
        assert listed <= linked, index


def test_links_are_found() -> None:
    text = (
        'a [b](c.md#d) ![e](f.png "g") `[h](i.md)` <https://j.org/> <img src="k.svg">\n[l]: m.md\n```\n[n](o.md)\n```\n'
    )
    assert sorted(links_in(text)) == ["c.md#d", "f.png", "https://j.org/", "k.svg", "m.md"]


def test_anchors_are_githubs() -> None:
    headings = {  # as GitHub shows them
        "# A `code`, and [a link](x.md)": "a-code-and-a-link",
        "## What's new?": "whats-new",
        "## What's new? ##": "whats-new-1",
        "### snake_case - 1x1": "snake_case---1x1",
        "## 中文 标题": "中文-标题",
    }
    text = "\n\n".join(headings) + "\n```\n# no heading\n```\n"
    assert anchors_of(text) == set(headings.values())


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("b.md", None), ("b.md#head", None), ("#own", None), ("folder", None), ("https://example.org/a?b=c#d", None),
        ("none.md", "no such file"), ("b.md#none", "no such heading"), ("#head", "no such heading"),
        ("../x.md", "out of the repository"), ("http://example.org", "not https"), ("https:///a", "no host"),
        ("https://localhost/", "no host"), ("https://me@example.org/", "no host"), ("ftp://example.org", "not https"),
        ("https://example.org/a|b", "characters"), ("https://example.org:x/", "Port"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_link(target: str, why: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Own\n")
    (tmp_path / "b.md").write_text("# Head\n")
    (tmp_path / "folder").mkdir()
    found = problem_with(Link("a.md", target), tmp_path)
    assert (found is None) if why is None else (found is not None and why in found)


def test_a_built_site(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a> <a href="#here">a</a> <p id="here">')
    (tmp_path / "b.html").write_text('<p id="x"><a href="a.html">a</a> <a href="https://example.org">e</a>')
    assert problems_of_site(tmp_path) == []
    (tmp_path / "b.html").write_text('<p id="y"><a href="c.html">c</a> <img src="d.png">')
    assert sorted(problems_of_site(tmp_path)) == ["a.html: b.html#x", "b.html: c.html", "b.html: d.png"]
