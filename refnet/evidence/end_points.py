"""End points: their order, the roundings behind them, and the distance between two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.graph.graph import Tensor
from refnet_kernels.catalog import OPS


def in_network_order(end_points: Mapping[str, Any], net: Any) -> dict[str, Any]:
    """The end points with the net before the predictions, which are computed from it."""
    ordered = dict(end_points)
    last = {"predictions": ordered.pop("predictions")} if "predictions" in ordered else {}
    return {**ordered, "net": net, **last}


def roundings(net: Tensor) -> list[int]:
    """The roundings on the longest way from the images to each tensor of a graph.

    A product of a convolution goes through the ``fma`` of its run and the additions of the runs after it: at most
    ``min(products, 64) + ceil(products / 64)``. The count is a scale for judging distances, not a bound: a
    rounding moves its result by at most half a unit in the last place, and most roundings cancel, but a layer may
    amplify those before it.

    Returns
    -------
    list of int
        One number per tensor, by its index.
    """
    counts: list[int] = []
    for tensor in net.graph.tensors:
        own = OPS[tensor.op].roundings(tensor.geometry)
        counts.append(own + max((counts[source.index] for source in tensor.inputs), default=0))
    return counts


class Difference(NamedTuple):
    """How far an end point is from the expected one.

    Attributes
    ----------
    name : str
    shape : tuple of int
        The expected one.
    roundings : int
        See `roundings`.
    same : bool
        Whether every bit is equal; NaN equals NaN.
    found_shape : tuple of int or None
        The found shape, if it is another one: then nothing else can be compared.
    elements : int or None
        How many differ. None where only a hash is known or the shapes differ; so are the following.
    ulps : float or None
        The largest distance, in units in the last place *of the largest expected value*, so that values that cancel to
        almost 0 are not exaggerated. Infinite where one side is NaN or infinite.
    where : tuple of int or None
        The place of the largest distance.
    expected, found : float or None
        The values there.
    """

    name: str
    shape: tuple[int, ...]
    roundings: int
    same: bool
    found_shape: tuple[int, ...] | None = None
    elements: int | None = None
    ulps: float | None = None
    where: tuple[int, ...] | None = None
    expected: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        """The difference in one line."""
        what = f"{self.name} {list(self.shape)}"
        if self.same:
            return f"{what}: the same bits"
        if self.found_shape is not None:
            return f"{what}: found the shape {list(self.found_shape)}"
        if self.where is None:
            return f"{what}: the hash differs; the golden holds no values to say how far"
        return (
            f"{what}: {self.elements:,} of {int(np.prod(self.shape)):,} elements differ, most at {list(self.where)}: "
            f"expected {self.expected!r}, found {self.found!r}, {self.ulps:,.3g} ULPs of the largest value "
            f"(roundings on the way: {self.roundings:,})"
        )


def compare(name: str, expected: np.ndarray, found: np.ndarray, roundings: int = 0) -> Difference:
    """Two end points, bit by bit and by distance.

    Parameters
    ----------
    name : str
    expected : float array
    found : float array
        Converted to the dtype of the expected one.
    roundings : int
        The roundings behind the expected one.
    """
    if found.shape != expected.shape:
        return Difference(name, expected.shape, roundings, same=False, found_shape=found.shape)
    with np.errstate(over="ignore"):
        found = found.astype(expected.dtype)
    unequal = _bits(expected) != _bits(found)
    unequal &= ~(np.isnan(expected) & np.isnan(found))
    if not unequal.any():
        return Difference(name, expected.shape, roundings, same=True, elements=0, ulps=0.0)
    distance = np.where(unequal, _ulps(expected, found), -1.0)
    index = np.unravel_index(int(distance.argmax()), distance.shape)
    return Difference(
        name, expected.shape, roundings, same=False, elements=int(unequal.sum()), ulps=float(distance[index]),
        where=tuple(int(i) for i in index), expected=float(expected[index]), found=float(found[index]),
    )  # fmt: skip


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _ulps(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The distance of each element, in units in the last place of the largest finite expected value."""
    info = np.finfo(expected.dtype)
    # Subnormal numbers share the last place of the smallest normal number.
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=info.smallest_normal)
    ulp = math.ldexp(1.0, math.frexp(largest)[1] - info.nmant - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(found.astype(np.float64) - expected.astype(np.float64)) / ulp
    return np.where(np.isnan(distance), np.inf, distance)
