"""Tables in HTML, as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

#: The most rows that a table shows.
MOST_ROWS = 400


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a line above it.

    Parameters
    ----------
    title : str
    header : sequence of str
        The names of the columns.
    rows : iterable of sequence
        Integers stand at the right, with separators of thousands. After `MOST_ROWS` rows a last one counts the rest.

    Returns
    -------
    str
        Every text in it is escaped.

    Examples
    --------
    >>> from refnet.tables import html_table
    >>> html_table("one layer", ["name", "parameters"], [["conv1", 9472]]).count("<tr>")
    2
    """
    listed = list(rows)
    lines = [f"<p>{escape(title)}</p>", "<table>", _row("th", header)]
    lines += [_row("td", row) for row in listed[:MOST_ROWS]]
    if len(listed) > MOST_ROWS:
        lines.append(f'<tr><td colspan="{len(header)}">and {len(listed) - MOST_ROWS:,} more</td></tr>')
    return "\n".join([*lines, "</table>"])


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(_cell(tag, cell) for cell in cells) + "</tr>"


def _cell(tag: str, cell: object) -> str:
    if isinstance(cell, int):
        return f'<{tag} style="text-align: right">{cell:,}</{tag}>'
    return f'<{tag} style="text-align: left">{escape(str(cell))}</{tag}>'
