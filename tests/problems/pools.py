"""The windows of both pools."""

from __future__ import annotations

from collections.abc import Mapping

from refnet_kernels.contract import PoolGeometry, same_padding


def pool_same(batch: int, height: int, width: int, channels: int, window: int, stride: int) -> PoolGeometry:
    """TensorFlow's "SAME" padding."""
    (out_height, top), (out_width, left) = (same_padding(size, window, stride) for size in (height, width))
    return PoolGeometry(batch, height, width, channels, out_height, out_width, window, stride, top, left)


def pool_keras(batch: int, height: int, width: int, channels: int) -> PoolGeometry:
    """Keras' pool1: a border of one zero all round, then windows of 3 x 3 by 2."""
    out_height, out_width = ((size - 1) // 2 + 1 for size in (height, width))
    return PoolGeometry(batch, height, width, channels, out_height, out_width, 3, 2, 1, 1, 1)


def pool_cut_off(batch: int, height: int, width: int, channels: int) -> PoolGeometry:
    """PyTorch's ``AvgPool2d(2, 2, ceil_mode=True)``: the last windows of an odd size are cut off."""
    return PoolGeometry(batch, height, width, channels, -(-height // 2), -(-width // 2), 2, 2, 0, 0)


def vector_pool(integers: Mapping[str, int]) -> PoolGeometry:
    """The windows of a contract vector."""
    return PoolGeometry(*(integers[field] for field in PoolGeometry._fields))
