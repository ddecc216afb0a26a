"""Goldens that are recorded again: only where something changed, and with a line that says what."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from refnet.checks import path_of
from refnet.errors import GoldenError
from refnet.evidence.end_points import Difference, compare
from refnet.evidence.golden import changed_tensors, changed_text, recorded
from refnet.evidence.golden_file import Golden, as_document, read_golden, write_golden
from refnet_kernels.system.settings import setting

#: Where this is 1, goldens that are missing or differ are recorded.
UPDATE = "REFNET_UPDATE_GOLDENS"
#: Bytes of a golden that is large for a repository.
LARGE = 2**20


def is_updating() -> bool:
    """Whether goldens that are missing or differ are recorded, by the environment variable."""
    return setting(UPDATE) == "1"


def update_golden(
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: Any,
    *,
    hashes_only: bool = False,
    **options: Any,
) -> list[str]:
    """Record a golden, in the place of an earlier one only if something differs.

    Parameters
    ----------
    path : path
        Its directory is made if it is missing.
    weights, images, hashes_only, **options
        As for `refnet.golden.record`.

    Returns
    -------
    list of str
        What changed, in words, and the file's size; empty if nothing did, and the file is as it was.

    Raises
    ------
    WeightsError, InputError, ConfigError, DeviceError
        As `refnet.golden.record` raises them.
    """
    path = path_of(path)
    golden, names = recorded(weights, images, hashes_only=hashes_only, **options)
    changes = _changes(path, golden, names)
    if not changes:
        return []
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_golden(path, golden)
    return [*changes, size_text(os.path.getsize(path), bool(golden.values))]


def size_text(size: int, has_values: bool, option: str = "hashes_only=True") -> str:
    """The size of a golden, and the way to a smaller one if it is large."""
    if size < LARGE or not has_values:
        return f"{size / 1000:,.0f} kB"
    return f"{size / 1e6:,.1f} MB; {option} keeps some kB, which tell whether bits differ, but not by how much"


def _changes(path: str, found: Golden, names: list[str]) -> list[str]:
    if not os.path.exists(path):
        return [f"recorded, {len(found.end_points)} end points"]
    try:
        before = read_golden(path)
    except GoldenError as error:
        return [f"recorded in the place of a file that could not be used: {error.message}"]
    changes = [
        _changed_weights(before, found, names),
        "" if (before.images, before.shape) == (found.images, found.shape) else "other images",
        "" if before.options == found.options else f"the options {found.options}, which were {before.options}",
        _changed_end_points(before, found),
    ]
    if not any(changes):
        return [] if _essence(before) == _essence(found) else ["the same bits, kept in another form"]
    return [change for change in changes if change]


def _essence(golden: Golden) -> str:
    """All that a golden says, except by which versions it was made, and what earlier versions did not say."""
    return json.dumps(as_document(golden._replace(made_with={}, tensors=())), sort_keys=True)


def _changed_weights(before: Golden, found: Golden, names: list[str]) -> str:
    if before.weights == found.weights:
        return ""
    changed = changed_tensors(before, found.tensors, names)
    return f"other weights, {changed_text(changed, len(names))}" if changed else "other weights"


def _changed_end_points(before: Golden, found: Golden) -> str:
    """How many end points have other bits, which is the first, and how far the furthest is off."""
    both = [name for name in found.end_points if name in before.end_points]
    differing = [name for name in both if before.end_points[name][:2] != found.end_points[name][:2]]
    alone = len(found.end_points) + len(before.end_points) - 2 * len(both)
    text = f"{len(differing)} of {len(found.end_points)} end points differ, first {differing[0]}" if differing else ""
    rows = [_difference(before, found, name) for name in differing]
    distances = [(row.ulps, row.name) for row in rows if row is not None and row.ulps is not None]
    if distances:
        ulps, name = max(distances)
        text += f", most {name} by {ulps:,.3g} ULPs of its largest value"
    return "; ".join(filter(None, [text, f"{alone} end points are only in one of the two" if alone else ""]))


def _difference(before: Golden, found: Golden, name: str) -> Difference | None:
    if name not in before.values or name not in found.values:
        return None
    return compare(name, before.values[name], found.values[name], found.end_points[name].roundings)
