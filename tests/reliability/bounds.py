"""Bounds: every value of a network between guards, in memory that was never written, gives the same bits.

``tests/kernels`` guards the arrays of single kernels, and runs kernels as plain Python, where every access is checked.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

import refnet
from refnet.graph.memory import WHOLE, Parts
from refnet.graph.plan import Plan
from refnet.run import cpu
from refnet.run.cpu import CpuExecutor
from tests.refnet.matrix import OPTIONS
from tests.reliability.figures import Row
from tests.support.arrays import assert_same_bits, random_images
from tests.support.nets import lively_weights, small_blocks

#: Bytes between two values; not as many as the rows of any image take.
GUARD = 64 * 37
#: NaN, in any dtype: who reads it without writing first gives other bits.
POISON = 0xFF

Sizes = dict[int, int]


def apart(shorter_by: int, guards: list[slice]) -> Callable[..., tuple[Sizes, int]]:
    """A stand-in for `assign_slots`: no two values share memory, and guards are between them."""

    def assign(plan: Plan, sizes: Sizes, parts: Parts = WHOLE) -> tuple[Sizes, int]:
        offsets, at = {}, GUARD
        guards[:] = [slice(0, GUARD)]
        longest = max(map(len, parts.images), default=0)
        for value, size in sizes.items():
            offsets[value] = at
            at += max(0, (longest if value in parts.between else plan.batch) * size - shorter_by)
            end = -(-at // 64) * 64 + GUARD
            guards.append(slice(at, end))
            at = end
        return offsets, at

    return assign


@contextmanager
def guarded(shorter_by: int = 0) -> Iterator[None]:
    """Engines that are made and run in this block have guards; ``shorter_by`` plants a fault in the size of values."""
    guards: list[slice] = []
    run = CpuExecutor.run

    def guarded_run(executor: CpuExecutor, images: Any, stream: None = None) -> Any:
        executor._arena[:] = POISON
        found = run(executor, images, stream)
        for guard in guards:
            assert (executor._arena[guard] == POISON).all(), f"written to the guard at bytes {guard.start}"
        return found

    with (
        mock.patch.object(cpu, "assign_slots", apart(shorter_by, guards)),
        mock.patch.object(CpuExecutor, "run", guarded_run),
    ):
        yield


@contextmanager
def never_written() -> Iterator[None]:
    """As a rule values share memory; nothing is read of what another value left."""
    run = CpuExecutor.run

    def poisoned_run(executor: CpuExecutor, images: Any, stream: None = None) -> Any:
        executor._arena[:] = POISON
        return run(executor, images, stream)

    with mock.patch.object(CpuExecutor, "run", poisoned_run):
        yield


def outputs(weights: dict[str, np.ndarray], images: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    engine = refnet.Engine(weights, **options)
    net = engine(images)
    return {"fused": net, **engine(images, end_points=True)[1]}


def check(weights: dict[str, np.ndarray], images: np.ndarray, **options: Any) -> None:
    expected = outputs(weights, images, **options)
    for surroundings in (guarded, never_written):
        with surroundings():
            assert_same_bits(outputs(weights, images, **options), expected)


def drawn(draw: random.Random) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
    blocks = small_blocks(units=draw.randint(1, 2), base_depth=draw.randint(1, 40))
    shape = draw.choice((1, 2, 3, 7)), draw.randint(8, 70), draw.randint(8, 70), 3
    options = {**draw.choice(OPTIONS), "threads": draw.choice((1, 2, 3))}
    return lively_weights(draw.randrange(100), blocks), random_images(*shape, seed=draw.randrange(100)), options


def a_fault_is_found() -> Row:
    """Of values that take some bytes more than their place."""
    found = ""
    try:
        with guarded(shorter_by=4):
            outputs(lively_weights(), random_images(1, 37, 50, 3))
    except AssertionError as error:
        found = str(error)
    assert "written to the guard" in found
    return Row("values that are 4 bytes longer than their place", 1, "found")


def short() -> list[Row]:
    images = random_images(2, 37, 50, 3)
    chosen = [options for options in OPTIONS if "dtype" not in options] + [{"dtype": "float64"}]
    for options in chosen:
        check(lively_weights(), images, threads=2, **options)
    return [Row("small networks", len(chosen), "no guard written to; the same bits"), a_fault_is_found()]


def long(minutes: float) -> list[Row]:
    draw, end, count = random.Random(0), time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        weights, images, options = drawn(draw)
        try:
            check(weights, images, **options)
        except AssertionError as error:
            raise AssertionError(f"network {count} of the generator 0, {images.shape}, {options}: {error}") from error
        count += 1
    return [Row("random networks, images and options", count, "no guard written to; the same bits"), a_fault_is_found()]
