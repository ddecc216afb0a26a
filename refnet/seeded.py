"""Seeded images, and weights in which every variable does something: the same bits on every machine."""

from refnet.evidence.seeded import lively_weights, random_images

__all__ = ["lively_weights", "random_images"]
