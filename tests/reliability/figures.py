"""The figures of the long forms: kept as JSON, and written into the tables of ``docs/reliability.md``."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import refnet_kernels
from refnet.evidence.environment import environment
from tests.support.pages import filled

ROOT = Path(__file__).parents[2]
FIGURES = Path(__file__).with_name("figures.json")
PAGE = ROOT / "docs" / "reliability.md"
KERNELS = Path(refnet_kernels.__file__).parents[1]


class Row(NamedTuple):
    """What was done, how many times, and what came of it. A run that finds a failure raises instead."""

    what: str
    count: int
    result: str


def machine() -> str:
    """The processor, the number of cores that this process may use, and the system."""
    found = environment()
    return f"{found['cpu'].partition(', ')[2]}, {len(os.sched_getaffinity(0))} cores; Python {found['python']}"


def record(kind: str, rows: list[Row], seconds: float, command: str) -> None:
    """Put a kind's rows in the place of its last ones."""
    kept: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept[kind] = {
        "command": command,
        "date": str(datetime.date.today()),
        "machine": machine(),
        "minutes": round(seconds / 60, 1),
        "rows": [row._asdict() for row in rows],
    }
    FIGURES.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def table(kind: str, kept: dict[str, Any]) -> str:
    """A kind's figures as Markdown."""
    if kind not in kept:
        return "The long form has not been recorded.\n"
    run = kept[kind]
    lines = ["| what | how many | result |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['count']:,} | {row['result']} |" for row in run["rows"]]
    lines += ["", f"`{run['command']}`, {run['minutes']} minutes, {run['date']}, {run['machine']}."]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The text of the page with every table as the figures have it now."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return filled(text, "figures", lambda kind: table(kind, kept))


def child_environment(**others: str) -> dict[str, str]:
    """The environment of a process that imports refnet and the tests from here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(KERNELS)]), **others}
