"""What a comparison has found: one row per array, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from refnet.checks import listed, plain_json
from refnet.comparison.statistics import FACTOR, QUANTILES, Patch

#: The version of `Result.to_dict`'s schema.
SCHEMA = 1
SAME, AGREES, DIFFERS, NOT_COMPARED = "equal bits", "agrees", "differs", "not compared"


@dataclass(frozen=True)
class Row:
    """One array beside the value of the reference that it is.

    Attributes
    ----------
    name : str
        The array's own.
    reference : str
        The value's: TF-Slim's name of an end point, or TensorFlow's of an operation.
    status : {"equal bits", "agrees", "differs", "not compared"}
        "agrees": within the rounding scale times 8.
    how : str
        How they found each other.
    layout : str
        How the array is read, "" if it has the value's own shape and order.
    note : str
        What is worth knowing about it, or "".
    shape, found_shape : tuple of int
        The value's, and the array's.
    precision : str
        In which the arrays up to here hold their values.
    scale : float or None
        The rounding scale, relative to the value's largest element; None where nothing is compared, and so for all that
        follow.
    largest, median : float or None
        Of the differences, relative to the value's largest element.
    ulps : tuple of float or None
        The quantiles 50, 90, 99 and 100 % of the differences, in units in the last place of the largest element.
    correlation : float or None
        None also where one side is constant.
    share : float or None
        The share of the elements that are further off than the rule allows.
    where : tuple of int or None
        The place of the largest difference, in the value's layout.
    expected, found : float or None
        The values there.
    nan_both, nan_one : int
        How many elements are NaN on both sides, and on one side only.
    top_1 : tuple of int or None
        For how many images the likeliest class is the same, and how many images there are.
    origin : {"", "born", "inherited", "unknown"}
        Of a difference: whether this layer made it. "born": computed from its own inputs, the value differs too.
    since : tuple of str
        The nearest arrays before it, from which that was computed.
    own_error : float or None
        How far the array is from what its own observed inputs give, relative to the largest element.
    patch : Patch or None
        The neighbourhood of the worst element, for the first rows that differ.
    """

    name: str
    reference: str
    status: str
    how: str = ""
    layout: str = ""
    note: str = ""
    shape: tuple[int, ...] = ()
    found_shape: tuple[int, ...] = ()
    precision: str = ""
    scale: float | None = None
    largest: float | None = None
    median: float | None = None
    ulps: tuple[float, ...] | None = None
    correlation: float | None = None
    share: float | None = None
    where: tuple[int, ...] | None = None
    expected: float | None = None
    found: float | None = None
    nan_both: int = 0
    nan_one: int = 0
    top_1: tuple[int, int] | None = None
    origin: str = ""
    since: tuple[str, ...] = ()
    own_error: float | None = None
    patch: Patch | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The row in one line."""
        what = self.name if self.name == self.reference else f"{self.name} ({self.reference})"
        if self.largest is None:
            return f"{what}: {self.status}{f': {self.note}' if self.note else ''}"
        return (
            f"{what}: {self.status}; off by {self.largest:.3g} of the largest value, where rounding gives "
            f"{self.scale:.3g}; most at {list(self.where or ())}: expected {self.expected!r}, found {self.found!r}"
        )


@dataclass(frozen=True)
class Result:
    """What a comparison has found.

    Attributes
    ----------
    reference, observed : str
        Where the two come from.
    rows : list of Row
        In network order.
    notes : list of str
        What was recognised, in sentences: layouts, and what looks like a divergence but is none.
    not_observed : list of str
        The reference's end points that are not among the arrays.
    measured : bool
        Whether the rounding scale was measured, by the reference in two precisions; else it is an estimate.
    """

    reference: str
    observed: str
    rows: list[Row]
    notes: list[str]
    not_observed: list[str]
    measured: bool

    @property
    def compared(self) -> list[Row]:
        """The rows of which something is known."""
        return [row for row in self.rows if row.status != NOT_COMPARED]

    @property
    def differing(self) -> list[Row]:
        """The rows that differ by more than rounding, in network order."""
        return [row for row in self.rows if row.status == DIFFERS]

    @property
    def first_divergence(self) -> Row | None:
        """The first row that differs, or None."""
        return next(iter(self.differing), None)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs by more than rounding."""
        return not self.differing

    @property
    def top_1(self) -> tuple[int, int] | None:
        """For how many images the likeliest class is the same at the end, and how many images there are."""
        return next((row.top_1 for row in reversed(self.rows) if row.top_1), None)

    def sentences(self) -> list[str]:
        """The result in a few sentences."""
        compared = self.compared
        first = self.first_divergence
        said = []
        if first is None:
            same = sum(row.status == SAME for row in compared)
            equal = f", {same} of them bit by bit" if same else ""
            said.append(f"All {len(compared)} compared values agree within rounding{equal}.")
        else:
            name = first.name if first.name == first.reference else f"{first.name} ({first.reference})"
            said.append(f"The first divergence is {name}: {len(self.differing)} of {len(compared)} values differ.")
            said.append(_origin(first))
        if self.top_1:
            said.append(f"The likeliest class is the same for {self.top_1[0]} of {self.top_1[1]} images.")
        left = [row.name for row in self.rows if row.status == NOT_COMPARED]
        if left:
            said.append(f"{len(left)} arrays are not compared: {listed(left)}.")
        return [sentence for sentence in said if sentence]

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types; NaN and infinities are the strings "nan", "inf" and "-inf".

        Returns
        -------
        dict
            ``schema`` is the version of this structure, 1. ``rows`` have the attributes of `Row`.
        """
        first = self.first_divergence
        rows = []
        for row in self.rows:
            values = {entry.name: getattr(row, entry.name) for entry in fields(row)}
            values["patch"] = None if row.patch is None else row.patch._asdict()
            rows.append(values)
        found: dict[str, Any] = plain_json(
            {
                "schema": SCHEMA,
                "agrees": self.agrees,
                "first_divergence": None if first is None else first.name,
                "reference": self.reference,
                "observed": self.observed,
                "factor": FACTOR,
                "quantiles": list(QUANTILES),
                "scale": "measured" if self.measured else "estimated",
                "compared": len(self.compared),
                "differing": len(self.differing),
                "top_1": self.top_1,
                "summary": self.sentences(),
                "notes": self.notes,
                "not_observed": self.not_observed,
                "rows": rows,
            }
        )
        return found

    def to_json(self) -> str:
        """All of it as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def __str__(self) -> str:
        """The result, the first rows that differ, and the notes."""
        shown_rows = 5
        lines = self.sentences() + [f"  {row}" for row in self.differing[:shown_rows]]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        first = self.first_divergence
        what = "agrees" if first is None else f"first divergence: {first.name!r}"
        return f"<Comparison of {len(self.compared)} values, {what}>"


def _origin(row: Row) -> str:
    since = f" ({listed(row.since)})" if row.since else ""
    if row.origin == "born" and row.own_error is not None:
        return f"It is born there: computed from its own inputs{since}, it is off by {row.own_error:.3g} too."
    if row.origin == "born":
        return f"It is born between {listed(row.since)} and there."
    if row.origin == "inherited":
        return f"It is inherited: computed from its own inputs{since}, it agrees."
    return ""
