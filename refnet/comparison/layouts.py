"""How the elements of a value lie in an array: the order of its axes, and which of them are merged or left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

#: The orders of axes, the likeliest first: a found array lies in one of them.
ORDERS = ("NHWC", "NCHW", "NWHC", "NCWH", "CHWN", "HWCN")
#: Those in which height and width are swapped.
SWAPPED = ("NWHC", "NCWH")
#: Values are this many elements at most when only their distance is asked for.
_SAMPLED = 1 << 16


class Layout(NamedTuple):
    """A way to read an array as a value [N, H, W, C] or [N, C].

    Attributes
    ----------
    order : str
        The order of the array's axes, in which N, H, W and C may be merged or left out.
    sizes : tuple of int
        The sizes of these four axes, in that order.
    text : str
        What is said about it; "" if the array has the value's own shape and order.
    step : int
        Every so manieth row and column of the array is the value's.
    own_step : int
        Every so manieth row and column of the value is the array's.
    """

    order: str
    sizes: tuple[int, ...]
    text: str = ""
    step: int = 1
    own_step: int = 1

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """The array's elements as [N, H, W, C], or [N, C].

        Parameters
        ----------
        array : array

        Returns
        -------
        array
            A view where possible.
        """
        if not self.order:
            return array
        to = "NHWC" if len(self.order) == 4 else "NC"
        view = array.reshape(self.sizes).transpose([self.order.index(axis) for axis in to])
        return view if self.step == 1 else view[:, :: self.step, :: self.step]

    def own(self, value: np.ndarray) -> np.ndarray:
        """The part of the reference's value that the array has, with a batch axis.

        Parameters
        ----------
        value : array

        Returns
        -------
        array
        """
        value = value[np.newaxis] if value.ndim == len(self.order) - 1 else value
        return value if self.own_step == 1 else value[:, :: self.own_step, :: self.own_step]


@cache
def layouts_of(found: tuple[int, ...], expected: tuple[int, ...]) -> tuple[Layout, ...]:
    """The ways in which an array of one shape can be a value of another.

    Parameters
    ----------
    found : tuple of int
        The array's shape.
    expected : tuple of int
        The value's, [N, H, W, C] or [N, C], or these without a batch. Arrays of other ranks are compared as they are.

    Returns
    -------
    tuple of Layout
        The likeliest first; those that read the elements in the same order are there once.
    """
    if len(expected) in (1, 3):
        expected = (1, *expected)
    axes = {4: "NHWC", 2: "NC"}.get(len(expected))
    if axes is None:
        return (Layout("", found),) if found == expected else ()
    if math.prod(found) != math.prod(expected) or 0 in expected:
        return tuple(_subsampled(found, expected)) if axes == "NHWC" and 0 not in found and 0 not in expected else ()
    size_of = dict(zip(axes, expected, strict=True))
    layouts: dict[str, Layout] = {}
    for order in ORDERS if axes == "NHWC" else ("NC",):
        sizes = tuple(size_of[axis] for axis in order)
        # Axes of 1 may stand anywhere: only the order of the others is one of elements.
        effective = "".join(axis for axis in order if size_of[axis] > 1)
        if effective not in layouts and _is_grouping(_strip(found), _strip(sizes)):
            layouts[effective] = Layout(order, sizes, _text(order, sizes, found, expected))
    return tuple(layouts.values())


def _strip(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size > 1)


def _is_grouping(merged: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    """Whether neighbouring sizes multiply to the merged ones."""
    at, product = 0, 1
    for size in sizes:
        product *= size
        if at == len(merged) or product > merged[at]:
            return False
        if product == merged[at]:
            at, product = at + 1, 1
    return at == len(merged) and product == 1


def _text(order: str, sizes: tuple[int, ...], found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if found == expected and order in ("NHWC", "NC"):
        return ""
    words = []
    if order not in ("NHWC", "NC"):
        words.append(f"{order}, height and width swapped" if order in SWAPPED else order)
    if len(_strip(found)) < len(_strip(sizes)):
        words.append("flattened")
    elif len(found) < len(expected):
        lost = expected[0] == 1 and len(found) == len(expected) - 1 and found == sizes[1:]
        words.append("without its batch axis" if lost and order[0] == "N" else "without its axes of 1")
    elif len(found) > len(expected):
        words.append("with further axes of 1")
    return ", ".join(words)


def _subsampled(found: tuple[int, ...], expected: tuple[int, ...]) -> Iterator[Layout]:
    """Layouts of arrays with more or fewer rows and columns, where a stride comes sooner or later."""
    shape = found if len(found) == 4 else (1, *found) if len(found) == 3 and expected[0] == 1 else ()
    if not shape:
        return
    batch, height, width, channels = expected
    for order in ORDERS[:2]:
        size_of = dict(zip(order, shape, strict=True))
        if (size_of["N"], size_of["C"]) != (batch, channels):
            continue
        own = "" if order == "NHWC" else f"{order}, "
        for step in (2, 4):
            if (-(-size_of["H"] // step), -(-size_of["W"] // step)) == (height, width):
                yield Layout(
                    order, shape, f"{own}of which every {_ordinal(step)} row and column is compared", step=step
                )
            elif (-(-height // step), -(-width // step)) == (size_of["H"], size_of["W"]):
                text = f"{own}every {_ordinal(step)} row and column of the reference"
                yield Layout(order, shape, text, own_step=step)


def _ordinal(step: int) -> str:
    return {2: "second", 4: "fourth"}[step]


def distance(value: np.ndarray, array: np.ndarray, layout: Layout) -> float:
    """How far an array is from a value, relative to the size of both (root mean squares), on a sample of the elements.

    Parameters
    ----------
    value : float array
    array : float array
        As it was found.
    layout : Layout

    Returns
    -------
    float
        0 if they are equal, 2 if one of them is zero; infinite if nothing finite can be compared.
    """
    ours, theirs = _sampled(layout.own(value)), _sampled(layout.arranged(array))
    finite = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[finite], theirs[finite]
    if not ours.size:
        return math.inf
    largest = max(float(np.abs(ours).max()), float(np.abs(theirs).max()))
    if largest == 0:
        return 0.0
    # Their squares could overflow.
    ours, theirs = ours / largest, theirs / largest
    sizes = (float(np.sqrt(np.mean(x**2))) for x in (ours, theirs))
    return 2 * float(np.sqrt(np.mean((theirs - ours) ** 2))) / sum(sizes)


def _sampled(array: np.ndarray) -> np.ndarray:
    """Some of its rows and columns, or all, in binary64."""
    if array.ndim == 4 and array.size > _SAMPLED:
        step = math.ceil(math.sqrt(array.size / _SAMPLED))
        array = array[:, ::step, ::step]
    return array.astype(np.float64)
