"""How pixels are put together in tiles: none is lost, and few are in a tile with more taps inside than they have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refnet_kernels.contract import ConvGeometry
from refnet_kernels.cpu.layout import Tiles, taps_inside, tiles_of
from refnet_kernels.target import ROWS
from tests.problems.conv import conv_same

#: Bytes of a pixel in the output.
PIXEL = 4
X, OUTSIDE = 1 << 20, -1


def taps_of(g: ConvGeometry) -> np.ndarray:
    return g.rate * np.array(list(np.ndindex(g.kernel_height, g.kernel_width)))


def tiles(g: ConvGeometry, short: bool, alike: bool) -> Tiles:
    return tiles_of(g, taps_of(g), X, OUTSIDE, itemsize=4, short=short, alike=alike)


def taps_done(at: Tiles) -> int:
    """Pixels by taps, those of places that are left empty among them."""
    return int((at.inside.sum(axis=1) * at.heights).sum())


@st.composite
def windows(draw: st.DrawFn) -> ConvGeometry:
    batch, height, width, kernel, stride, rate = draw(st.tuples(*[st.integers(1, most) for most in (3, 9, 9, 4, 2, 5)]))
    pads = st.integers(0, (kernel - 1) * rate)
    sizes = -(-height // stride), -(-width // stride)
    return ConvGeometry(batch, height, width, 1, *sizes, 1, kernel, kernel, stride, rate, draw(pads), draw(pads))


@given(g=windows(), short=st.booleans(), alike=st.booleans())
def test_each_pixel_has_one_place_and_its_own_taps(g: ConvGeometry, short: bool, alike: bool) -> None:
    at = tiles(g, short, alike)
    assert set(at.heights) <= ({ROWS, ROWS - 1} if short else {ROWS})
    places = [np.unique(offsets) for offsets in at.offsets]
    assert sorted(np.concatenate(places)) == [PIXEL * pixel for pixel in range(g.pixels)]
    taps = taps_of(g)
    down = taps_inside(g.out_height, g.stride, g.pad_top, g.height, taps[:, 0])
    right = taps_inside(g.out_width, g.stride, g.pad_left, g.width, taps[:, 1])
    for tile in range(len(at.heights)):
        for place in range(ROWS):
            rest, column = divmod(at.offsets[tile, place] // PIXEL, g.out_width)
            image, row = divmod(rest, g.out_height)
            for tap, (below, beside) in enumerate(taps):
                y, x = row * g.stride - g.pad_top + below, column * g.stride - g.pad_left + beside
                inside = down[row, tap] and right[column, tap]
                address = X + 4 * ((image * g.height + y) * g.width + x) if inside else OUTSIDE
                assert at.table[tile, tap, place] == address
                assert at.inside[tile, tap] or not inside
            # What comes after a tile's pixels is its last one again.
            assert place < at.heights[tile] or at.offsets[tile, place] == at.offsets[tile, place - 1]


@given(g=windows())
def test_there_are_as_few_tiles_as_can_be_and_short_ones_where_that_leaves_less_empty(g: ConvGeometry) -> None:
    tall, mixed = (tiles(g, short, alike=False).heights for short in (False, True))
    assert len(tall) == len(mixed) == -(-g.pixels // ROWS)
    assert mixed.sum() == max(g.pixels, len(mixed) * (ROWS - 1))


@given(g=windows())
def test_that_pixels_share_tiles_with_their_like_adds_no_products(g: ConvGeometry) -> None:
    own = int(tiles(g, short=True, alike=False).inside.any(axis=0).sum())
    mixed = tiles(g, short=True, alike=False).heights.sum()
    assert taps_done(tiles(g, short=True, alike=True)) <= own * mixed


@pytest.mark.skipif(ROWS not in (6, 7), reason="counted for tiles of 5 and 6 pixels, or of 6 and 7")
def test_at_7x7_each_corner_completes_an_edge() -> None:
    # Four edges of five pixels and a corner, six taps inside; 25 pixels with all nine.
    assert taps_done(tiles(conv_same(1, 7, 7, 1, 1, 3, 1), short=True, alike=True)) == 4 * 6 * 6 + 25 * 9


def test_an_empty_batch_has_no_tiles() -> None:
    at = tiles(conv_same(0, 7, 7, 1, 1, 3, 1), short=True, alike=True)
    assert [len(array) for array in at] == [0] * len(at)
