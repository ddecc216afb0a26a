"""The short form of each kind; ``python -m tests.reliability`` runs the long forms."""

from __future__ import annotations

import pytest

from tests.reliability import figures
from tests.reliability.kinds import KINDS


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_short(kind: str) -> None:
    assert all(row.count > 0 for row in KINDS[kind].short())


def test_the_page_has_the_kept_figures() -> None:
    text = figures.PAGE.read_text()
    assert figures.page(text) == text
    assert all(f"<!-- figures: {kind} -->" in text for kind in KINDS)
