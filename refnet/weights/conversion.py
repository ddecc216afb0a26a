"""How the tensors of a weights file became float32 variables with TF-Slim's names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from refnet.checks import listed
from refnet.tables import html_table


class Moments(NamedTuple):
    """What a kernel had before it was standardised.

    Attributes
    ----------
    mean, variance : float64 array [outputs]
    epsilon : float
        What was added to the variance.
    """

    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True, repr=False)
class Conversion:
    """What was changed, for `refnet convert` and for the notes of `Weights`.

    Attributes
    ----------
    converted : dict of str to str
        For each tensor that was converted to float32, its dtype in the file.
    renamed : dict of str to str
        For each tensor that was given TF-Slim's name, its name in the file.
    left_out : dict of str to str
        For each tensor, or other part of the file, that is not among the weights, the reason.
    added : list of str
        Variables that the file's network does not have; they are zeros.
    extra : list of str
        Tensors that are among the weights but not part of the network.
    kinds : dict of str to str
        What each of these is.
    remarks : list of str
        How the file's framework differs from TF-Slim, and what looks wrong, in sentences.
    recipe_from : str
        Where the recipe for images comes from, or "" if nobody said.
    standardized : dict of str to Moments
        For each kernel that was standardised, what it had before.
    """

    converted: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    recipe_from: str = ""
    standardized: dict[str, Moments] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        parts = {
            "converted": self.converted, "renamed": self.renamed, "left out": self.left_out, "added": self.added,
            "extra": self.extra, "remarks": self.remarks,
        }  # fmt: skip
        counts = ", ".join(f"{len(part)} {word}" for word, part in parts.items() if part)
        return f"<Conversion: {counts or 'nothing was changed'}>"

    def _repr_html_(self) -> str:
        return html_table(repr(self)[1:-1], ["note"], [[note] for note in self.notes])

    @property
    def notes(self) -> list[str]:
        """All of this in sentences."""
        notes = [f"{name} was converted from {dtype} to float32" for name, dtype in self.converted.items()]
        if self.renamed:
            first = next(iter(self.renamed))
            notes.append(f"{len(self.renamed)} tensors have TF-Slim's names: {first} was {self.renamed[first]}, ...")
        notes += self._left_out_notes()
        if self.added:
            notes.append(f"{len(self.added)} variables that its network does not have are zeros: {listed(self.added)}")
        return notes + self._extra_notes() + self.remarks

    def _extra_notes(self) -> list[str]:
        """One note per kind."""
        kinds: dict[str, list[str]] = {}
        for name in self.extra:
            kinds.setdefault(self.kinds.get(name, ""), []).append(name)
        return [
            f"not part of the network{f' ({kind})' if kind else ''}: {', '.join(names)}"
            for kind, names in kinds.items()
        ]

    def _left_out_notes(self) -> list[str]:
        """One note per tensor, or one for many tensors with the same reason."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            reasons.setdefault(why, []).append(name)
        notes = []
        for why, names in reasons.items():
            if len(names) > _FEW:
                notes.append(f"{len(names)} tensors were left out ({why}): {listed(names)}")
            else:
                notes += [f"{name} was left out: {why}" for name in names]
        return notes


#: More tensors than these, left out for one reason, are listed together.
_FEW = 8
