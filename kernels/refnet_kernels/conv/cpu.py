"""Convolution on the CPU: an indirect GEMM over register tiles, or each pixel's products with inputs that are not 0.

Every output is a chain of its own (rule A1), so tiles, panels and threads may divide the outputs in any way.

The image is read through a table of addresses, one per pixel and tap, made with the step; a tap outside the image
points to a row of zeros. So one kernel serves every size, stride, rate and pad. The weights are packed by panels
of `WIDTH_BYTES` of output channels, k by k. An item is some tiles by some panels.

*By tiles*, of `ROWS` pixels by a panel: each weight that is loaded is used for all the pixels. Some tiles have one
pixel less if that leaves no row empty: with 6 `ROWS`, 49 pixels make 4 tiles of 6 and 5 of 5. Pixels that have the same
taps outside the image share tiles, and a tile leaves out the taps that are outside for all of them: at 7 x 7 pixels 9%
of a 3 x 3 kernel's products, and 12% at 41 x 41 with a rate of 4.

*Without zeros*: about half of a ReLU's outputs are 0, and a product with 0 changes no sum if the weight is finite (the
contract gives the reason). An item first notes which inputs are not 0, one bit per input. If they are few enough, each
pixel goes through its own, run by run, for one group of panels at a time. Its sums are in registers; the run's weights,
the same for all of the item's pixels, are in the first-level cache. Each product then costs a load of weights: on a
Zen 4 it takes 0.64 of the time of tiles if half of the inputs are 0, and as long if a sixth are. What is few enough,
and how many panels a group has, depends on the processor: `conv/tuning.py`.

The epilogue (rule A2) is applied to the sums while they are in registers: bias, batch norm, ReLU, residual, ReLU; and,
from the stored value, a second output that the next unit starts with: its ``preact``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.contract import RUN, ConvGeometry, Flags, FloatArray, Frame, Norm, Packed, Target
from refnet_kernels.conv.tuning import ITEM_TILES_MOST, LARGE_GROUP, Tuning, of_table, tuning
from refnet_kernels.cpu.layout import TILE_BYTES, pack_channels, tiles_of
from refnet_kernels.cpu.team import Launch, aligned_zeros, run_once
from refnet_kernels.jit import function_address, is_compiled_here
from refnet_kernels.system.forks import once
from refnet_kernels.system.threads import Helpers
from refnet_kernels.target import CAN_COMPACT, CPU, LINE_BYTES, ROWS, WIDTH_BYTES

#: The module and the name of the compiled function.
KERNEL = "refnet_kernels.conv.cpu_kernel", "conv_kernel"


class Row(NamedTuple):
    """The fields of a step's row: addresses (0 stands for "none"), then integers."""

    weights: int
    bias: int
    mean: int
    scale: int
    beta: int
    shortcut: int
    out: int
    next_mean: int
    next_scale: int
    next_beta: int
    preact: int
    table: int
    offsets: int
    parts: int
    taps: int
    relu: int
    sum_relu: int
    channels: int
    products: int
    tap_count: int
    length: int
    panels: int
    tiles: int
    item_panels: int
    item_tiles: int
    most_nonzero: int
    group_panels: int
    one: int
    outside: int
    pixel_bytes: int
    lowest: int
    span: int
    slots: int


#: The index of each field in the row.
AT = Row(*range(len(Row._fields)))
#: The fields that a caller gives.
OPERANDS = Row._fields[: AT.table]

#: Bytes per tile in the table of `_parts`.
PART_BYTES = 3 * 8

#: Whether an item copies its inputs that are not 0 (`conv/cpu_compact_kernel.py`). A Zen 5 multiplies two vectors of 64
#: bytes per cycle and loads two, so each load beside the weights costs time: in a trial of the loop alone, with half of
#: the inputs 0, it took 0.73 of the time with such a copy. A Zen 4 multiplies and loads one, and all in all takes 1.02.
COMPACTS = CAN_COMPACT and CPU == "znver5"
#: What an item's panels can be.
ITEM_PANELS = 32, 16, 8, 4, 2, 1
#: Products per turn of the innermost loop; one, if this does not divide a tap's. Each pair, or one, prefetches a line.
TURN = 4
#: The time for trials where the kernel is compiled, which itself takes some seconds.
TRIAL_SECONDS = 0.04
# Offsets in a thread's scratch memory, which begins with two tiles: for sums of runs, and for ragged edges.
SUMS_AT = 2 * TILE_BYTES
#: Bytes from a panel's sums to the next one's.
SUMS_BYTES = ITEM_TILES_MOST * TILE_BYTES
NOTES_AT = SUMS_AT + LARGE_GROUP * SUMS_BYTES


def packed_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """The shape of packed HWIO weights: panels, products, output channels per panel."""
    *window, out_channels = shape
    panel_width = WIDTH_BYTES // dtype.itemsize
    return -(-out_channels // panel_width), int(np.prod(window)), panel_width


def pack(weights: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """HWIO weights in `packed_shape`, the last panel padded with zeros.

    Parameters
    ----------
    weights : float array [kernel_height, kernel_width, channels, out_channels]
    out : float array, optional
        Zeros to write to, in `packed_shape` for their dtype.

    Returns
    -------
    float array [panels, products, channels of a panel]
    """
    if out is None:
        out = np.zeros(packed_shape(weights.shape, weights.dtype), weights.dtype)
    _, products, width = out.shape
    flat = weights.reshape(products, weights.shape[3])
    for panel, packed in enumerate(out):
        part = flat[:, panel * width : (panel + 1) * width]
        packed[:, : part.shape[1]] = part
    return out


def packs_in_place(weights: FloatArray, dtype: np.dtype[Any]) -> bool:
    """Whether weights need the same memory when packed in a dtype, and are aligned as packed weights are."""
    fills_panels = weights.shape[3] * dtype.itemsize % WIDTH_BYTES == 0
    return (
        fills_panels and weights.dtype == dtype and weights.flags.c_contiguous and weights.ctypes.data % LINE_BYTES == 0
    )


def pack_in_place(weights: FloatArray, spare: FloatArray) -> FloatArray:
    """The packed weights, in the memory of ``weights``; ``spare`` has room for as many numbers.

    After an exception the weights are as they were.
    """
    copy = spare[: weights.size].reshape(weights.shape)
    out = weights.reshape(packed_shape(weights.shape, weights.dtype))
    np.copyto(copy, weights)
    try:
        return pack(copy, out)
    except BaseException:
        weights[...] = copy
        raise


def _taps(g: ConvGeometry) -> tuple[np.ndarray, int]:
    """The row and column of each tap in a window [taps, 2], and the contiguous products per tap."""
    if g.rate == 1 and _never_outside(g):
        # A row of the kernel is one stretch of memory.
        taps = [(kh, 0) for kh in range(g.kernel_height)]
        return np.array(taps, np.int64), g.kernel_width * g.channels
    taps = [(kh * g.rate, kw * g.rate) for kh in range(g.kernel_height) for kw in range(g.kernel_width)]
    return np.array(taps, np.int64), g.channels


def _never_outside(g: ConvGeometry) -> bool:
    bottom = (g.out_height - 1) * g.stride - g.pad_top + g.kernel_height
    right = (g.out_width - 1) * g.stride - g.pad_left + g.kernel_width
    return g.pad_top == 0 and g.pad_left == 0 and bottom <= g.height and right <= g.width


def _parts(wanted: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The taps that each tile computes.

    Parameters
    ----------
    wanted : bool array [tiles, taps]
        Whether a tile computes a tap.
    heights : int64 array [tiles]
        Pixels per tile.

    Returns
    -------
    parts : int64 array [tiles, 3]
        Index in ``taps`` of a tile's first tap, and of its last plus 1; then the tile's number of pixels.
    taps : int64 array
        Numbers of taps. Tiles with the same taps share a stretch.
    """
    bits = np.packbits(wanted, axis=1)
    _, firsts, which = np.unique(bits.view(f"S{bits.shape[1]}").ravel(), return_index=True, return_inverse=True)
    lists = [np.flatnonzero(pattern) for pattern in wanted[firsts]]
    count = wanted.sum(axis=1)
    stops = np.cumsum(count[firsts])[which]
    parts = np.stack([stops - count, stops, heights], axis=1)
    return parts, np.concatenate([np.zeros(0, np.int64), *lists])


def _item_of(tiles: int, panels: int, threads: int, numbers: Tuning) -> tuple[int, int]:
    """The tiles and panels per item with which this many threads should finish first.

    The more tiles and panels an item has, the less work each product takes: a run's weights are fetched, and a pixel's
    inputs are examined, for more products. On a Zen 4 with two threads, items of 8 tiles by 2 panels took 1.02 of the
    time of 8 by 4 for resnet_v2_50; 4 by 4 took 1.07, 4 by 2 took 1.09, and 2 by 2 took 1.14. The estimate below is
    near that: 1.06, 1.05, 1.11 and 1.22. With up to 32 panels in place of 8, and half of the inputs 0, layers of 512 to
    2048 channels took 0.96 to 0.99: inputs are noted less often, and fewer groups are small.
    """

    def time(item: tuple[int, int]) -> float:
        item_tiles, item_panels = item
        items = -(-tiles // item_tiles) * -(-panels // item_panels)
        panel = 1 + numbers.tile_cost / item_tiles + numbers.group_cost / min(item_panels, LARGE_GROUP)
        return -(-items // threads) * item_tiles * (item_panels * panel + numbers.item_cost)

    most = max(1, min(tiles, numbers.item_tiles))
    some_panels = (min(max(1, panels), count) for count in ITEM_PANELS)
    return min(product(range(most, 0, -1), some_panels), key=time)


class Notes(NamedTuple):
    """What is noted of the inputs of a step's items.

    Attributes
    ----------
    lowest : int64 array
        If inputs are copied: the lowest address of the inputs of each block of tiles, inside the image.
    span : int
        The most bytes from there to the highest address.
    slots : int
        The most different taps of an item, and one for zeros outside the image.
    size : int
        Bytes of an item's notes.
    """

    lowest: np.ndarray
    span: int
    slots: int
    size: int


def _notes(table: np.ndarray, zeros: FloatArray, item_tiles: int, g: ConvGeometry) -> Notes:
    """The notes of items, from the addresses of the inputs; ``zeros`` replace a tap outside the image."""
    runs, run_bytes = zeros.size // RUN, RUN * zeros.itemsize
    taps, pixels = table.shape[1], item_tiles * ROWS
    if not COMPACTS:
        return Notes(np.zeros(0, np.int64), 0, 0, ITEM_TILES_MOST * ROWS * taps * runs * 8)
    is_inside, firsts = table != zeros.ctypes.data, np.arange(0, len(table), item_tiles)
    lowest = np.minimum.reduceat(np.where(is_inside, table, np.iinfo(np.int64).max).min(axis=(1, 2)), firsts)
    highest = np.maximum.reduceat(np.where(is_inside, table, 0).max(axis=(1, 2)), firsts)
    # Of a block without inputs the difference is negative.
    span = int((highest - lowest).max(initial=0))
    slots = 1 + min(span // (g.channels * zeros.itemsize) + 1, pixels * taps)
    lists = (pixels + 1) * (taps + 1) + span // run_bytes + 1
    return Notes(lowest, span, slots, slots * runs * (run_bytes + 8) + lists * 8)


def prepare(weights: Mapping[str, FloatArray], packed: dict[str, Packed], owned: bool, target: Target) -> None:
    """Pack kernels by name into ``packed``, each as soon as it is ready.

    Kernels that are ``owned`` may be overwritten, and are packed in place if `packs_in_place`. All others go into one
    block of memory, which helps the TLB.
    """
    dtype = target.dtype
    stay = [name for name, array in weights.items() if owned and packs_in_place(array, dtype)]

    def pack_where_they_lie(names: list[str]) -> None:
        spare = None
        for name in names:
            array = weights[name]
            try:
                spare = np.empty(max(weights[name].size for name in names), dtype) if spare is None else spare
                is_finite = _all_finite(array)
            except MemoryError:
                return  # while other threads' stacks take the room that there is
            array.flags.writeable = True
            # Nothing can fail between the packing and the entry: the entry is there before.
            packed[name] = Packed(array.reshape(packed_shape(array.shape, dtype)), is_finite)
            try:
                pack_in_place(array, spare)
            except BaseException:
                del packed[name]
                raise

    # Only in threads, where Ctrl-C cannot stop it half-way. What they leave, for want of threads or of memory, is
    # packed elsewhere.
    shares = [stay[i :: target.workers] for i in range(min(target.workers, len(stay)))]
    with Helpers(pack_where_they_lie, shares, target.workers):
        pass
    shapes = {name: packed_shape(array.shape, dtype) for name, array in weights.items() if name not in packed}
    block = aligned_zeros(sum(int(np.prod(shape)) for shape in shapes.values()), dtype)
    start = 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        packed[name] = Packed(pack(weights[name], block[start:stop].reshape(shape)), _all_finite(block[start:stop]))
        start = stop


def _all_finite(weights: FloatArray) -> bool:
    return bool(np.isfinite(weights).all())


def frame(g: ConvGeometry) -> Frame | None:
    """Images with zeros around them; None if that gains nothing.

    Each row of the kernel is then one contiguous stretch, which matters for images of three channels.
    """
    if g.rate != 1 or g.kernel_width == 1:
        return None
    height = max((g.out_height - 1) * g.stride + g.kernel_height, g.pad_top + g.height)
    width = max((g.out_width - 1) * g.stride + g.kernel_width, g.pad_left + g.width)
    return Frame(g._replace(height=height, width=width, pad_top=0, pad_left=0), g.pad_top, g.pad_left)


@once
def _trials() -> ModuleType:
    from refnet_kernels.conv import trials

    return trials


def measured(dtype: np.dtype[Any], seconds: float) -> Any:
    """The `refnet_kernels.conv.trials.Trial` of the kernel on this machine, in about this time."""
    return _trials().trial(_launch, dtype, of_table(), seconds)


def fitted(trial: Any) -> Tuning | None:
    """The numbers that follow from a trial; None if it cannot be believed."""
    numbers: Tuning | None = _trials().fitted(trial, of_table())
    return numbers


def _numbers(dtype: np.dtype[Any]) -> Tuning:
    """How this machine divides the work. It is asked once the kernel is there."""
    return tuning(is_compiled_here(*KERNEL, dtype.name), lambda: fitted(measured(dtype, TRIAL_SECONDS)))


def launch(geometry: ConvGeometry, addresses: Mapping[str, int], flags: Flags, target: Target) -> Launch:
    """The step that convolves, with the addresses of its operands.

    Parameters
    ----------
    geometry : ConvGeometry
    addresses : mapping of str to int
        ``x``, ``weights`` (from `pack`); optionally ``bias``; ``mean``, ``scale``, ``beta``; ``shortcut``; ``out``;
        ``next_mean``, ``next_scale``, ``next_beta``, ``preact``. The values per channel come from `pack_channels`. At
        least one of ``out`` and ``preact`` is written.
    flags : Flags
        If the weights are finite, products with zeros, outside the image or inside, may be left out.
    target : Target
        Products with zeros inside the image are left out only if its ``zeros`` says so.
    """
    # Where the kernel has to be compiled, that comes before its trials.
    function_address(*KERNEL, target.dtype.name)
    return _launch(geometry, addresses, flags, target, _numbers(target.dtype))


def _launch(
    geometry: ConvGeometry, addresses: Mapping[str, int], flags: Flags, target: Target, numbers: Tuning
) -> Launch:
    g, dtype = geometry, target.dtype
    taps, length = _taps(g)
    zeros = np.zeros(length, dtype)
    # If taps are whole runs of finite weights, products with zeros may be left out.
    skips = flags.finite and (g.channels if COMPACTS else length) % RUN == 0
    at = tiles_of(g, taps, addresses["x"], zeros.ctypes.data, dtype.itemsize, length % TURN == 0, skips)
    parts, wanted_taps = _parts(at.inside if skips else np.ones_like(at.inside), at.heights)
    # A look at the inputs gains time by itself: they are in the first-level cache when the tiles read them.
    looks = skips and g.pixels >= numbers.fewest_pixels
    most_nonzero = numbers.most_nonzero if target.zeros else -1
    width = WIDTH_BYTES // dtype.itemsize
    panels, tiles = -(-g.out_channels // width), len(at.table)
    item_tiles, item_panels = _item_of(tiles, panels, target.workers, numbers)
    notes = _notes(at.table, zeros, item_tiles, g) if looks else Notes(np.zeros(0, np.int64), 0, 0, 0)
    row = Row(
        **{name: addresses.get(name, 0) for name in OPERANDS},
        table=at.table.ctypes.data,
        offsets=at.offsets.ctypes.data,
        parts=parts.ctypes.data,
        taps=wanted_taps.ctypes.data,
        relu=int(flags.relu),
        sum_relu=int(flags.sum_relu),
        channels=g.out_channels,
        products=g.products,
        tap_count=len(taps),
        length=length,
        panels=panels,
        tiles=tiles,
        item_panels=item_panels,
        item_tiles=item_tiles,
        most_nonzero=most_nonzero if looks else 0,
        group_panels=numbers.group_panels,
        one=1,
        outside=zeros.ctypes.data,
        pixel_bytes=g.channels * dtype.itemsize,
        lowest=notes.lowest.ctypes.data,
        span=notes.span,
        slots=notes.slots,
    )
    items = -(-tiles // item_tiles) * -(-panels // item_panels)
    kernel = function_address(*KERNEL, dtype.name)
    kept = at.table, at.offsets, parts, wanted_taps, zeros, notes.lowest
    return Launch(kernel, items, row, NOTES_AT + notes.size, kept)


def call(
    x: FloatArray,
    weights: FloatArray,
    geometry: ConvGeometry,
    bias: FloatArray | None = None,
    norm: Norm | None = None,
    relu: bool = False,
    shortcut: FloatArray | None = None,
    sum_relu: bool = False,
    next_norm: Norm | None = None,
    keep_out: bool = True,
) -> tuple[FloatArray | None, FloatArray | None]:
    """`refnet_kernels.conv` with its epilogue, on arrays.

    Returns
    -------
    out, preact : float arrays [batch, out_height, out_width, out_channels], or None
        ``out`` unless ``keep_out`` is False; ``preact`` if there is a ``next_norm``.
    """
    g = geometry
    shape = (g.batch, g.out_height, g.out_width, g.out_channels)
    arrays = {"x": np.ascontiguousarray(x), "weights": pack(weights)}
    if bias is not None:
        arrays["bias"] = pack_channels(bias)
    for prefix, statistics in (("", norm), ("next_", next_norm)):
        if statistics is not None:
            arrays |= {f"{prefix}{role}": pack_channels(values) for role, values in statistics._asdict().items()}
    if shortcut is not None:
        arrays["shortcut"] = np.ascontiguousarray(shortcut)
    outputs = {"out": np.empty(shape, x.dtype)} if keep_out else {}
    if next_norm is not None:
        outputs["preact"] = np.empty(shape, x.dtype)
    addresses = {name: array.ctypes.data for name, array in (arrays | outputs).items()}
    run_once(launch(g, addresses, Flags(relu, sum_relu, _all_finite(weights)), Target(x.dtype)))
    return outputs.get("out"), outputs.get("preact")
