"""Which mistake is planted where, in words that all ports share."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """One porting mistake.

    Attributes
    ----------
    id : str
        As in the catalogue.
    site : str or None
        A layer, unit or block by its path below the network's scope, "block1/unit_2/bottleneck_v2/conv1"; stars stand
        for anything, "*/preact". None: everywhere. For "layers-swapped" two layers, "x <-> y".
    value : Any
        Which of the mistake's variants; None where it has but one.
    """

    id: str
    site: str | None = None
    value: Any = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part is not None)

    def is_at(self, path: str) -> bool:
        """Whether the mistake is made in this layer or unit; without a path, wherever it can be."""
        site = self.site
        return not path or site is None or path == site or path.startswith(f"{site}/") or fnmatchcase(path, site)


class Planted:
    """The mistakes of one port, to be asked for at each place where one can be made."""

    def __init__(self, mistakes: Iterable[Mistake | tuple[Any, ...]]) -> None:
        self.mistakes = [Mistake(*mistake) for mistake in mistakes]

    def has(self, name: str, path: str = "") -> bool:
        """Whether this mistake is made at this path."""
        return any(mistake.id == name and mistake.is_at(path) for mistake in self.mistakes)

    def value(self, name: str, path: str = "", otherwise: Any = None) -> Any:
        """The variant of the mistake at this path, or ``otherwise``."""
        found = [mistake.value for mistake in self.mistakes if mistake.id == name and mistake.is_at(path)]
        return found[-1] if found else otherwise
