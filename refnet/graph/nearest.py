"""Which left-over tensor may be a missing one: by its shape and its name, in little time whatever the names are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from refnet_kernels.system.forks import making

# Names are compared in full with so many on each side, of those sorted by their starts and of those by their ends.
_AROUND = 4
# A comparison takes time that grows with the product of two lengths; no network's names come near.
_MAX_LENGTH = 300
# For so many missing tensors one is looked for.
_MAX_MISSING = 1000


def nearest(missing: Iterable[tuple[str, tuple[int, ...]]], left: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """For each missing variable, the left-over tensor of its shape with the most similar name, if there is one.

    Parameters
    ----------
    missing : iterable of (str, tuple of int)
        Names and shapes; those after the first thousand are not looked for.
    left : mapping of str to tuple of int
        The shapes of the left-over tensors.

    Returns
    -------
    dict of str to str
        Each left-over tensor is there once.
    """
    with making:
        import difflib  # only if something is wrong

    by_shape: dict[tuple[int, ...], _Names] = {}
    for name in sorted(left):
        if len(name) <= _MAX_LENGTH:
            by_shape.setdefault(left[name], _Names()).starts.append(name)
    matcher, found = difflib.SequenceMatcher(), {}
    for _, (name, shape) in zip(range(_MAX_MISSING), missing, strict=False):
        if shape not in by_shape or len(name) > _MAX_LENGTH:
            continue
        matcher.set_seq2(name)
        best = (-1.0, "")
        for other in by_shape[shape].around(name):
            matcher.set_seq1(other)
            if (matcher.quick_ratio(), other) > best:  # which is never less than the ratio
                best = max(best, (matcher.ratio(), other))
        if best[1]:
            found[name] = best[1]
            by_shape[shape].remove(best[1])
    return found


class _Names:
    """Names in order, and reversed in order."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self._ends: list[str] | None = None

    @property
    def ends(self) -> list[str]:
        """The names from their ends."""
        if self._ends is None:
            self._ends = sorted(name[::-1] for name in self.starts)
        return self._ends

    def around(self, name: str) -> set[str]:
        """The names that begin or end most as this one does."""
        return {*_around(self.starts, name), *(other[::-1] for other in _around(self.ends, name[::-1]))}

    def remove(self, name: str) -> None:
        """Take a name out."""
        del self.starts[bisect_left(self.starts, name)]
        del self.ends[bisect_left(self.ends, name[::-1])]


def _around(names: list[str], name: str) -> list[str]:
    place = bisect_left(names, name)
    return names[max(place - _AROUND, 0) : place + _AROUND]
