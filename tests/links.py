"""The links of the documentation, without a network: where they lead, and whether that is there.

``python -m tests.links`` lists the links to other sites, and ``python -m tests.links build/site`` checks a built site.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]

_FOLDERS = (".github", "benchmarks", "docs", "examples", "kernels", "pytest_refnet", "refnet", "tests", "tools")
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
#: [text](target), ![text](target "title"), [label]: target, <https://...>, and HTML's attributes.
_LINKS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"),
    re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE),
    re.compile(r"<(\w+://[^>\s]+)>"),
    re.compile(r"\b(?:href|src)=\"([^\"]+)\""),
)
_HEADING = re.compile(r"^ {0,3}(#{1,6}) +(.+?)(?: +#+)? *$", re.MULTILINE)
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", re.IGNORECASE)


class Link(NamedTuple):
    """A link: the file in which it stands, from the root, and where it leads."""

    file: str
    target: str


def files() -> list[Path]:
    """Every page and notebook."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name in _FOLDERS]
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*"))]
    return sorted(path for path in found if path.suffix in (".md", ".ipynb"))


@cache
def text_of(path: Path) -> str:
    """The Markdown of a page, or of the cells of a notebook that hold some."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def links_in(text: str) -> Iterator[str]:
    """The targets of the links in Markdown, code left out."""
    prose = _CODE.sub("", _FENCED.sub("", text))
    for pattern in _LINKS:
        yield from pattern.findall(prose)


def all_links() -> list[Link]:
    """The links of all files."""
    return [Link(str(path.relative_to(ROOT)), target) for path in files() for target in links_in(text_of(path))]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to headings: in lower case, without punctuation, repeated ones numbered."""
    found: set[str] = set()
    for _, heading in _HEADING.findall(_FENCED.sub("", text)):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = base = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return found


def problem_with(link: Link, root: Path = ROOT) -> str | None:
    """Why a link leads nowhere, or None."""
    if "://" in link.target or link.target.startswith("mailto:"):
        return _problem_outside(link.target)
    name, _, anchor = link.target.partition("#")
    path = ((root / link.file).parent / unquote(name)).resolve() if name else root / link.file
    if not path.is_relative_to(root.resolve()):
        return "it leads out of the repository"
    if not path.exists():
        return "there is no such file"
    if anchor and path.suffix == ".md" and unquote(anchor) not in anchors_of(text_of(path)):
        return "there is no such heading"
    return None


def _problem_outside(target: str) -> str | None:
    try:
        parts = urlsplit(target)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme != "https":
        return "it is not https"
    if not _HOST.fullmatch(parts.hostname or "") or parts.username is not None:
        return "it has no host, or not only one"
    if re.search(r"[^\x21-\x7e]|[<>\"{}|\\^`]", target):
        return "it has characters that an address cannot have"
    return None


class _Page(HTMLParser):
    """The links and the anchors of a page of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


def problems_of_site(site: Path) -> list[str]:
    """The links of a built site that lead nowhere within it."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.exists() or (to in pages and unquote(parts.fragment) not in pages[to].anchors):
                found.append(f"{path.relative_to(site.resolve())}: {target}")
    return found


def main(arguments: list[str]) -> int:
    """List the links to other sites, or check a built site; 1 if a link of it leads nowhere."""
    if not arguments:
        print("\n".join(sorted({link.target for link in all_links() if "://" in link.target})))
        return 0
    problems = problems_of_site(Path(arguments[0]))
    print("\n".join(problems) or "Every link leads somewhere.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
