"""Numbers by which the CPU's convolution might divide its work, on no machine that there is."""

from __future__ import annotations

from refnet_kernels.conv.tuning import GROUPS, ITEM_TILES_MOST, Tuning

EXTREMES = {
    "zeros are always left out, in small groups": Tuning(most_nonzero=1000, group_panels=2, fewest_pixels=1),
    "zeros are always left out, in large groups": Tuning(most_nonzero=1000, group_panels=GROUPS[1], fewest_pixels=1),
    "zeros are hardly ever left out": Tuning(most_nonzero=1),
    "the smallest items": Tuning(most_nonzero=500, fewest_pixels=1, item_tiles=1, tile_cost=0.0),
    "the largest items": Tuning(item_tiles=ITEM_TILES_MOST, tile_cost=100.0, group_cost=100.0, item_cost=100.0),
}
