"""Arrays in other layouts are read as the values that they are."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.comparison.layouts import distance, layouts_of

VALUE = np.random.default_rng(0).standard_normal((1, 3, 5, 4)).astype(np.float32)
BATCH = np.random.default_rng(1).standard_normal((2, 3, 5, 4)).astype(np.float32)
FLAT = np.random.default_rng(2).standard_normal((2, 1, 1, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("value", "array", "text"),
    [
        (VALUE, VALUE, ""),
        (VALUE, VALUE.transpose(0, 3, 1, 2), "NCHW"),
        (VALUE, VALUE.transpose(0, 2, 1, 3), "NWHC, height and width swapped"),
        (VALUE, VALUE.transpose(0, 3, 2, 1), "NCWH, height and width swapped"),
        (VALUE, VALUE[0], "without its batch axis"),
        (VALUE, VALUE[0].transpose(2, 0, 1), "NCHW, without its batch axis"),
        (BATCH, BATCH.reshape(2, -1), "flattened"),
        (BATCH, BATCH.transpose(0, 3, 1, 2).reshape(2, -1), "NCHW, flattened"),
        (BATCH, BATCH.transpose(0, 3, 1, 2).reshape(2, 4, 15), "NCHW, flattened"),
        (BATCH, BATCH.reshape(2, 15, 4), "flattened"),
        (BATCH, BATCH.transpose(3, 1, 2, 0), "CHWN"),
        (FLAT, FLAT[:, 0, 0], "without its axes of 1"),
        (FLAT, FLAT.transpose(0, 3, 1, 2), ""),
        (FLAT[:, 0, 0], FLAT, "with further axes of 1"),
        (VALUE[:, ::2, ::2], VALUE, "of which every second row and column is compared"),
        (VALUE[:, ::2, ::2], VALUE.transpose(0, 3, 1, 2), "NCHW, of which every second row and column is compared"),
        (VALUE, VALUE[:, ::2, ::2], "every second row and column of the reference"),
    ],
)
def test_one_layout_reads_the_array_as_the_value(value: np.ndarray, array: np.ndarray, text: str) -> None:
    array = np.ascontiguousarray(array)
    fitting = [layout for layout in layouts_of(array.shape, value.shape) if distance(value, array, layout) == 0]
    assert [layout.text for layout in fitting] == [text]
    assert np.array_equal(fitting[0].arranged(array), fitting[0].own(value))


def test_square_images_can_lie_in_two_ways() -> None:
    value = BATCH[:, :, :3]
    swapped = value.transpose(0, 2, 1, 3)
    layouts = layouts_of(swapped.shape, value.shape)
    assert [layout.text for layout in layouts] == ["", "NWHC, height and width swapped"]
    assert [distance(value, swapped, layout) == 0 for layout in layouts] == [False, True]


@pytest.mark.parametrize("found", [(2, 3, 5, 5), (120,), (3, 3, 5, 4), (2, 3, 5, 4, 2), (0, 3, 5, 4), (1, 9, 9, 4)])
def test_other_shapes_are_no_layout(found: tuple[int, ...]) -> None:
    layouts = [layout for layout in layouts_of(found, (2, 3, 5, 4)) if "flattened" not in layout.text]
    assert not layouts
