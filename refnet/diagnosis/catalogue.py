"""The porting mistakes that are known, in the order in which an image meets them."""

from __future__ import annotations

from refnet.diagnosis import ends, groups, images, kernels, norms, padding, units
from refnet.diagnosis.mistake import Mistake

#: By what they are about; the documentation shows them so.
PARTS: dict[str, tuple[Mistake, ...]] = {
    "pixels": images.MISTAKES,
    "padding, strides, rates": padding.MISTAKES,
    "batch norm": norms.MISTAKES,
    "group norm, BiT": groups.MISTAKES,
    "the unit": units.MISTAKES,
    "weights, arithmetic": kernels.MISTAKES,
    "the end": ends.MISTAKES,
}
MISTAKES = tuple(mistake for part in PARTS.values() for mistake in part)
