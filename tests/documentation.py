"""The ``python`` blocks of the documentation, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Pages with ``python`` blocks.
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kernels/*.md"))
    if "```python\n" in page.read_text(encoding="utf-8")
)


def python_blocks(page: str) -> str:
    """The ``python`` blocks of a page as one program, line by line where they stand in the page."""
    lines, inside = [], False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r"```(\w*)", line):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)
