"""A comparison as a page of HTML that needs nothing else: no network, no other file."""

from __future__ import annotations

import html
import math
import os
import re
from collections.abc import Iterator, Sequence

from refnet.checks import path_of
from refnet.comparison.result import Result, Row
from refnet.comparison.statistics import FACTOR, Patch
from refnet.errors import ConfigError
from refnet.files import check_target, written_whole

#: Characters of a name that are shown.
_LONGEST = 160
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 320, 56, 12, 18, 26
#: What a difference of 0 is drawn as, in powers of ten.
_FLOOR = -9.5
_CELL = 16
_CLASSES = {"equal bits": "same", "agrees": "agrees", "differs": "differs", "not compared": "left"}

_STYLE = """
.refnet{--ink:#1b1f24;--soft:#6a737d;--line:#d8dee4;--ground:#fff;--card:#f6f8fa;--same:#1a7f37;--agrees:#2f6fbf;
--differs:#c62828;font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);
overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){.refnet{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--ground:#0d1117;--card:#161b22;
--same:#3fb950;--agrees:#6cb2ff;--differs:#ff7b72}}
.refnet h1{font-size:22px;margin:0 0 4px}.refnet h2{font-size:17px;margin:28px 0 8px}
.refnet h3{font-size:14px;margin:14px 0 6px}
.refnet .soft{color:var(--soft)}.refnet .verdict{font-size:17px;margin:10px 0}
.refnet .same{color:var(--same)}.refnet .agrees{color:var(--agrees)}.refnet .differs{color:var(--differs)}
.refnet .left{color:var(--soft)}.refnet .card{background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:10px 14px;margin:8px 0;white-space:pre-wrap}
.refnet svg{max-width:100%;height:auto}.refnet svg.chart{min-width:640px}
.refnet svg text{fill:var(--soft);font:11px system-ui,sans-serif}
.refnet .axis{stroke:var(--line);stroke-width:1}.refnet .scale{stroke:var(--soft);fill:none;stroke-width:1.5}
.refnet .rule{stroke:var(--soft);fill:none;stroke-width:1;stroke-dasharray:4 3}
.refnet circle{stroke:none}.refnet circle.same{fill:none;stroke:var(--same)}.refnet circle.agrees{fill:var(--agrees)}
.refnet circle.differs{fill:var(--differs)}.refnet .first{stroke:var(--differs);stroke-width:1;stroke-dasharray:2 3}
.refnet .scroll{overflow-x:auto}.refnet table{border-collapse:collapse;font-size:12.5px;overflow-wrap:normal}
.refnet th{position:sticky;top:0;background:var(--card);text-align:left;cursor:pointer;white-space:nowrap}
.refnet th,.refnet td{border-bottom:1px solid var(--line);padding:3px 9px;vertical-align:top}
.refnet td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.refnet td.status{white-space:nowrap}.refnet td.name{overflow-wrap:anywhere;min-width:19em}
.refnet .maps{display:flex;flex-wrap:wrap;gap:22px}.refnet .plus{fill:#d1495b}.refnet .minus{fill:#3568c0}
.refnet .odd{fill:var(--ink)}.refnet .frame{fill:none;stroke:var(--line)}
.refnet .worst{fill:none;stroke:var(--ink);stroke-width:2}
"""

_SCRIPT = """
document.querySelectorAll('.refnet table.sortable').forEach(function(table){
  var body=table.tBodies[0];
  table.querySelectorAll('th').forEach(function(head,column){
    var up=true;
    head.addEventListener('click',function(){
      var key=function(row){
        var cell=row.cells[column];
        return cell.dataset.value===undefined?cell.textContent:+cell.dataset.value;
      };
      Array.from(body.rows).sort(function(a,b){
        var x=key(a),y=key(b),order=x<y?-1:x>y?1:0;return up?order:-order;
      }).forEach(function(row){body.appendChild(row)});
      up=!up;
    });
  });
});
"""


def save_page(comparison: Result, path: str | os.PathLike[str], diagnosis: str = "") -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    comparison : Result
    path : path
    diagnosis : str
        What is known about the cause, as plain text.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    name = path_of(path)
    check_target(name, "page")
    content = page(comparison, diagnosis).encode()
    try:
        with written_whole(name) as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"The page cannot be written to {name}: {error}.", found=name) from error


def page(comparison: Result, diagnosis: str = "") -> str:
    """The page.

    Parameters
    ----------
    comparison : Result
    diagnosis : str

    Returns
    -------
    str
    """
    first = comparison.first_divergence
    title = "refnet compare: " + ("agrees" if first is None else f"first divergence {_shown(first.name)}")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">",
        f"<title>{_escaped(title)}</title>",
        "<style>body{margin:0}.refnet{min-height:100vh;box-sizing:border-box;padding:26px 32px}</style></head><body>",
        _body(comparison, diagnosis, details=True),
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def fragment(comparison: Result) -> str:
    """The page's content for a notebook, without script.

    Parameters
    ----------
    comparison : Result

    Returns
    -------
    str
    """
    return _body(comparison, "", details=False)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _escaped(text: object) -> str:
    """Text for HTML, in which nothing is markup, and control characters and lone surrogates are written out."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return html.escape(plain, quote=True)


def _name(text: str) -> str:
    return _escaped(_shown(text))


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)


def _body(comparison: Result, diagnosis: str, *, details: bool) -> str:
    first = comparison.first_divergence
    parts = [f'<div class="refnet"><style>{_STYLE}</style>']
    parts.append("<h1>refnet compare</h1>")
    parts.append(
        f'<div class="soft">reference: {_name(comparison.reference)}<br>observed: {_name(comparison.observed)}</div>'
    )
    kind = "agrees" if first is None else "differs"
    sentences = comparison.sentences()
    parts.append(f'<div class="verdict {kind}">{_escaped(sentences[0])}</div>')
    parts += [f"<div>{_escaped(sentence)}</div>" for sentence in sentences[1:]]
    if diagnosis:
        parts.append('<h2>Diagnosis</h2><div class="card diagnosis">')
        parts.append("<br>".join(_escaped(line) for line in diagnosis.splitlines()))
        parts.append("</div>")
    parts.append("<h2>Error along the network</h2>")
    parts.append(_chart(comparison))
    parts.append(
        '<div class="soft">Largest error of each value, relative to its largest element. Line: the rounding scale, '
        f"{'measured' if comparison.measured else 'estimated'}. Dashed: {FACTOR} times that, up to which values agree. "
        "Hollow: equal bits.</div>"
    )
    if comparison.notes:
        parts.append("<h2>Notes</h2><ul>")
        parts += [f"<li>{_escaped(note)}</li>" for note in comparison.notes]
        parts.append("</ul>")
    if details:
        parts += _neighbourhoods(comparison.rows)
    parts.append("<h2>Values in network order</h2>")
    parts.append(_table(comparison.rows, sortable=details))
    if comparison.not_observed:
        more = len(comparison.not_observed) - 40
        names = ", ".join(map(_name, comparison.not_observed[:40])) + (f" and {more} more" if more > 0 else "")
        parts.append(f'<h2>Not observed</h2><div class="soft">{names}</div>')
    parts.append("</div>")
    return "\n".join(parts)


def _chart(comparison: Result) -> str:
    rows = [row for row in comparison.rows if row.largest is not None]
    highest = max([0.0, *(_power(row.largest) for row in rows)])
    top = min(math.ceil(highest), 6)

    def x(i: float) -> float:
        return _LEFT + (i + 0.5) * (_WIDTH - _LEFT - _RIGHT) / max(len(rows), 1)

    def y(power: float) -> float:
        share = (min(max(power, _FLOOR), top) - _FLOOR) / (top - _FLOOR)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    label = "error along the network, on a logarithmic scale"
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    parts = [f'<div class="scroll"><svg class="chart" {box} role="img" aria-label="{label}">']
    for power in range(-9, top + 1):
        at = y(power)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power}</text>')
    parts += _blocks(rows, x)
    for name, factor in (("scale", 1), ("rule", FACTOR)):
        points = " ".join(f"{x(i):.1f},{y(_power(factor * (row.scale or 0))):.1f}" for i, row in enumerate(rows))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    first = comparison.first_divergence
    for i, row in enumerate(rows):
        if row is first:
            parts.append(f'<line class="first" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        told = _escaped(f"{_shown(row.name)}: {row.status}, {_number(row.largest)}")
        parts.append(
            f'<circle class="{_CLASSES[row.status]}" cx="{x(i):.1f}" cy="{y(_power(row.largest)):.1f}" r="3.2">'
            f"<title>{told}</title></circle>"
        )
    parts.append("</svg></div>")
    return "\n".join(parts)


def _blocks(rows: Sequence[Row], x: object) -> Iterator[str]:
    """The blocks' names, where they begin."""
    place = x if callable(x) else float
    last = ""
    for i, row in enumerate(rows):
        match = re.search(r"(?:\A|/)(block[0-9]{1,3})(?:/|\Z)", row.reference)
        block = match[1] if match else last
        if block != last:
            at = place(i - 0.5)
            yield f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            yield f'<text x="{at + 4:.1f}" y="{_HEIGHT - 8}">{_escaped(block)}</text>'
        last = block


def _power(value: float | None) -> float:
    """The power of ten of an error; large where it is not finite."""
    if value is None or value == 0:
        return _FLOOR
    return math.log10(value) if math.isfinite(value) else 99.0


def _neighbourhoods(rows: Sequence[Row]) -> list[str]:
    with_patch = [row for row in rows if row.patch is not None]
    if not with_patch:
        return []
    parts = ["<h2>Round the worst element</h2>"]
    for row in with_patch:
        assert row.patch is not None
        parts.append(f"<h3>{_name(row.name)} <span class=soft>at {_escaped(list(row.where or ()))}: expected ")
        parts.append(f"{_escaped(repr(row.expected))}, found {_escaped(repr(row.found))}</span></h3>")
        parts.append(f'<div class="maps">{_maps(row.patch, row.where or ())}</div>')
    return parts


def _maps(patch: Patch, where: Sequence[int]) -> str:
    difference = [
        [b - a for a, b in zip(mine, theirs, strict=True)]
        for mine, theirs in zip(patch.expected, patch.found, strict=True)
    ]
    largest = _largest(patch.expected)
    # Rows and columns of the patch: those of the image; or the channels alone.
    offsets = [place - corner for place, corner in zip(where, patch.corner, strict=True)]
    at = (offsets[1], offsets[2]) if len(offsets) == 4 and len(patch.expected) > 1 else (0, max(offsets, default=0))
    named = (("reference", patch.expected, largest), ("observed", patch.found, largest))
    maps = [_map(title, values, size, at) for title, values, size in named]
    return "".join([*maps, _map("difference", difference, _largest(difference), at)])


def _largest(values: Sequence[Sequence[float]]) -> float:
    return max((abs(v) for line in values for v in line if math.isfinite(v)), default=0.0)


def _map(title: str, values: Sequence[Sequence[float]], largest: float, at: tuple[int, int]) -> str:
    width, height = _CELL * max(map(len, values), default=0), _CELL * len(values)
    parts = [f"<div><div class=soft>{title}, up to {_number(largest)}</div>"]
    parts.append(f'<svg width="{width + 2}" height="{height + 2}" viewBox="-1 -1 {width + 2} {height + 2}">')
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            kind, strength = "odd", 1.0
            if math.isfinite(value):
                kind, strength = ("plus" if value > 0 else "minus"), min(abs(value) / largest, 1.0) if largest else 0.0
            if strength > 0.004:
                parts.append(
                    f'<rect class="{kind}" x="{j * _CELL}" y="{i * _CELL}" width="{_CELL}" height="{_CELL}" '
                    f'fill-opacity="{strength:.2f}"><title>{_number(value, 6)}</title></rect>'
                )
    parts.append(f'<rect class="frame" width="{width}" height="{height}"/>')
    parts.append(f'<rect class="worst" x="{at[1] * _CELL}" y="{at[0] * _CELL}" width="{_CELL}" height="{_CELL}"/>')
    parts.append("</svg></div>")
    return "".join(parts)


_COLUMNS = (
    "#", "observed", "reference", "status", "largest", "median", "rounding", "ULPs 50 / 99 / 100 %", "correlation",
    "share off", "worst at", "expected", "found", "origin", "layout and notes",
)  # fmt: skip


def _table(rows: Sequence[Row], *, sortable: bool) -> str:
    parts = [f'<div class="scroll"><table{" class=sortable" if sortable else ""}><thead><tr>']
    parts += [f"<th>{column}</th>" for column in _COLUMNS]
    parts.append("</tr></thead><tbody>")
    for i, row in enumerate(rows, 1):
        ulps = "" if row.ulps is None else " / ".join(_number(row.ulps[k]) for k in (0, 2, 3))
        remarks = ", ".join(filter(None, (row.layout, row.note, "" if row.how.startswith("the") else row.how)))
        parts.append("<tr>")
        parts.append(_cell(i, i))
        parts.append(f'<td class="name">{_name(row.name)}</td><td class="name">{_name(row.reference)}</td>')
        parts.append(f'<td class="status {_CLASSES[row.status]}">{row.status}</td>')
        parts += [_cell(_number(value), value) for value in (row.largest, row.median, row.scale)]
        parts.append(_cell(ulps, row.ulps[3] if row.ulps else None))
        parts.append(_cell("" if row.correlation is None else f"{row.correlation:.6f}", row.correlation))
        parts.append(_cell("" if row.share is None else f"{row.share:.2%}", row.share))
        parts.append(f"<td>{'' if row.where is None else _escaped(list(row.where))}</td>")
        parts += [_cell(_number(value, 7), value) for value in (row.expected, row.found)]
        parts.append(f"<td>{_escaped(row.origin)}</td><td>{_escaped(_shown(remarks))}</td></tr>")
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _cell(text: object, value: float | None) -> str:
    """A cell of a number, which is sorted by the number itself."""
    key = "-1" if value is None or math.isnan(value) else f"{min(max(value, -1e300), 1e300):.6g}"
    return f'<td class="number" data-value="{key}">{text}</td>'
