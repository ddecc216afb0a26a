"""The ``python`` and ``pycon`` blocks of the documentation, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Every page.
TEXTS = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in sorted(
        [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("kernels/*.md"), *ROOT.glob("examples/*.md")]
    )
}
#: Pages with ``python`` blocks.
PAGES = [page for page, text in TEXTS.items() if "```python\n" in text]
#: Pages with ``pycon`` blocks, which hold prompts and what is printed.
SESSIONS = [page for page, text in TEXTS.items() if "```pycon\n" in text]


def python_blocks(page: str, language: str = "python") -> str:
    """The blocks of a page in this language as one text, line by line where they stand in the page."""
    lines: list[str] = []
    opened = None
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        fence = re.fullmatch(r"```(.*)", line)
        lines.append("" if fence or opened != language else line)
        if fence:
            opened = fence[1] if opened is None else None
    return "\n".join(lines)
