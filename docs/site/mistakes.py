"""The directive ``mistakes``: the catalogue of ``refnet diagnose`` as tables, from its records.

``python docs/site/mistakes.py`` prints them in Markdown.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from refnet.diagnosis.catalogue import PARTS
from refnet.diagnosis.mistake import Mistake


def tables() -> str:
    """A table of each part of the catalogue, in Markdown."""
    lines: list[str] = []
    for title, mistakes in PARTS.items():
        heading = f"**{title[0].upper()}{title[1:]}**"
        lines += ["", heading, "", "| id | the port ... | it must ... | met at |", "|---|---|---|---|"]
        lines += map(_row, mistakes)
    return "\n".join(lines)


def _row(mistake: Mistake) -> str:
    cells = [f"`{mistake.id}`", _said(mistake.does), _said(mistake.should), ", ".join(mistake.sources)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _said(text: str) -> str:
    """A sentence with the names of what differs from case to case."""
    return re.sub(r"\{(\w+)\}", r"*\1*", text)


class Mistakes(SphinxDirective):
    """The tables."""

    def run(self) -> list[nodes.Node]:
        """Parse them where they stand."""
        return self.parse_text_to_nodes(tables())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("mistakes", Mistakes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    print(tables())
