"""The porting mistakes that are known, in the order in which an image meets them."""

from __future__ import annotations

from refnet.diagnosis import ends, groups, images, kernels, norms, padding, units
from refnet.diagnosis.mistake import Mistake

MISTAKES: tuple[Mistake, ...] = (
    *images.MISTAKES,
    *padding.MISTAKES,
    *norms.MISTAKES,
    *groups.MISTAKES,
    *units.MISTAKES,
    *kernels.MISTAKES,
    *ends.MISTAKES,
)

#: By id.
BY_ID = {mistake.id: mistake for mistake in MISTAKES}
