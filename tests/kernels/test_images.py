"""How images enter a program: what lies in their frames, and their extremes, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refnet_kernels.cpu.entry import entry
from refnet_kernels.cpu.team import Program
from refnet_kernels.target import WIDTH
from tests.problems import DTYPES
from tests.problems.base import numbers


def enter(images: np.ndarray, pads: tuple[int, int, int, int], threads: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames, with guards of NaN behind them, and the least and the largest pixels."""
    top, bottom, left, right = pads
    batch, height, width, channels = images.shape
    frame = height + top + bottom, width + left + right
    memory = np.full(batch * frame[0] * frame[1] * channels + 2 * WIDTH, np.nan, images.dtype)
    made = entry(images.shape, frame, top, left, memory.ctypes.data, images.dtype)
    program = Program([made.launch], threads)
    program.set_operand(0, made.operand, images.ctypes.data)
    program.run()
    frames, guards = np.split(memory, [-2 * WIDTH])
    assert np.isnan(guards).all()
    return frames.reshape(batch, *frame, channels), made.extremes


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 40), st.integers(1, 4)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    kind=st.sampled_from(["normal", "rarely special", "special", "tiny"]),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 2),
)
def test_frames_and_extremes(
    shape: tuple[int, ...], pads: tuple[int, int, int, int], kind: str, dtype: np.dtype[Any], threads: int
) -> None:
    images = numbers(kind, 0, *shape, dtype=dtype)
    frames, (low, high) = enter(images, pads, threads)
    top, bottom, left, right = pads
    expected = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    assert frames.tobytes() == expected.tobytes()
    np.testing.assert_equal((low.min(), high.max()), (images.min(), images.max()))


@pytest.mark.parametrize("place", [0, 5, -1])
@pytest.mark.parametrize("width", [1, WIDTH, WIDTH + 1])
def test_a_pixel_that_is_nan_is_not_lost(width: int, place: int) -> None:
    images = np.zeros((1, 6, width, 1), np.float32)
    images.ravel()[place] = np.nan
    _, (low, high) = enter(images, (0, 0, 0, 0), 1)
    assert np.isnan(low.min())
    assert np.isnan(high.max())
