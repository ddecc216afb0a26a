"""Operations that ports have and no kernel has, in NumPy.

What they give is compared with a port's values, never bit by bit with anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from refnet_kernels.contract import FloatArray


def rounded(
    values: FloatArray, significand: int, least_exponent: int | None = None, largest: float = np.inf
) -> FloatArray:
    """Round to fewer bits, to nearest even.

    Parameters
    ----------
    values : float array
    significand : int
        Bits of the significand, the leading one included.
    least_exponent : int, optional
        The exponent of the smallest normal number; those below it have the spacing of that one.
    largest : float
        What is beyond it becomes infinite.

    Returns
    -------
    float array
    """
    wide = values.astype(np.float64)
    _, exponent = np.frexp(wide)
    if least_exponent is not None:
        exponent = np.maximum(exponent, least_exponent + 1)
    near = np.ldexp(np.rint(np.ldexp(wide, significand - exponent)), exponent - significand)
    near = np.where(np.abs(near) > largest, np.copysign(np.inf, near), near)
    result: FloatArray = near.astype(values.dtype)
    return result


#: Formats of fewer bits, by name.
ROUNDED: dict[str, Callable[[FloatArray], FloatArray]] = {
    "tf32": partial(rounded, significand=11),
    "bfloat16": partial(rounded, significand=8),
    "float16": partial(rounded, significand=11, least_exponent=-14, largest=65504.0),
}


def _counting_pool(values: FloatArray, window: int, stride: int, pad: int) -> FloatArray:
    """The mean of windows in a frame of zeros, which count."""
    batch, height, width, channels = values.shape
    rows, columns = -(-height // stride), -(-width // stride)
    framed = np.zeros((batch, (rows - 1) * stride + window + pad, (columns - 1) * stride + window + pad, channels))
    framed[:, pad : pad + height, pad : pad + width] = values
    total = np.zeros((batch, rows, columns, channels))
    for y in range(window):
        for x in range(window):
            total += framed[:, y : y + (rows - 1) * stride + 1 : stride, x : x + (columns - 1) * stride + 1 : stride]
    return (total / window**2).astype(values.dtype)


def _max(values: FloatArray) -> FloatArray:
    result: FloatArray = values.max(axis=(1, 2), keepdims=True)
    return result


def _sum(values: FloatArray) -> FloatArray:
    total: FloatArray = values.astype(np.float64).sum(axis=(1, 2), keepdims=True).astype(values.dtype)
    return total


def _channels_first(values: FloatArray) -> FloatArray:
    """The mean over what would be the pixels if channels came first."""
    batch, height, width, channels = values.shape
    result: FloatArray = values.reshape(batch, 1, channels, height * width).mean(3, dtype=np.float64)[:, None]
    return result.astype(values.dtype)


def _channels_last(values: FloatArray) -> FloatArray:
    """The mean over what would be the pixels if channels, which come first, came last."""
    batch, height, width, channels = values.shape
    moved = np.ascontiguousarray(values.transpose(0, 3, 1, 2)).reshape(batch, height * width, 1, channels)
    result: FloatArray = moved.mean(1, keepdims=True, dtype=np.float64)
    return result.astype(values.dtype)


#: Relative to the largest value of an array: how far engines' sums are from each other, each in binary32.
SUMS_DIFFER = 2.0**-23


def operation(name: str) -> Callable[[FloatArray], FloatArray]:
    """An operation by its name; after a ~ stands the number of a draw of what other engines' sums are off by."""
    name, _, draw = name.partition("~")
    function = OPERATIONS[name]
    return partial(_shaken, function, int(draw)) if draw else function


def _shaken(function: Callable[[FloatArray], FloatArray], draw: int, values: FloatArray) -> FloatArray:
    noise = np.random.default_rng(draw).uniform(-SUMS_DIFFER, SUMS_DIFFER, values.shape)
    return function((values + noise * np.abs(values).max(initial=0)).astype(values.dtype))


#: By name.
OPERATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    **{f"round:{name}": function for name, function in ROUNDED.items()},
    "NHWC as NCHW": _channels_first,
    "NCHW as NHWC": _channels_last,
    "max": _max,
    "sum": _sum,
    "counting_pool:2": partial(_counting_pool, window=2, stride=2, pad=0),
    "counting_pool:3": partial(_counting_pool, window=3, stride=2, pad=1),
}
