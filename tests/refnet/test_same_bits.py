"""The same bits in any company. What else must not matter is in ``test_matrix.py`` and ``test_forks.py``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from refnet.graph.memory import parts_of
from refnet_kernels.conv.cpu import Row
from refnet_kernels.conv.tuning import Tuning, forced
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

ROOT = Path(__file__).parents[2]


@given(
    batch=st.integers(2, 5),
    height=st.integers(17, 48),
    width=st.integers(17, 48),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_batch_is_its_images_one_by_one(batch: int, height: int, width: int, seed: int, dtype: str) -> None:
    weights = refnet.Weights(lively_weights())
    images = random_images(batch, height, width, 3, seed=seed)
    together = refnet.forward(weights, images, dtype=dtype)
    for image, logits in zip(images, together, strict=True):
        assert digest(refnet.forward(weights, image, dtype=dtype)) == digest(logits)


@pytest.mark.parametrize("part_bytes", [1, 60_000])
@pytest.mark.parametrize("is_training", [False, True])
def test_a_batch_in_parts_has_the_bits_of_the_definitions(
    part_bytes: int, is_training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refnet.run.cpu.PART_BYTES_PER_THREAD", part_bytes)
    seen = []
    monkeypatch.setattr("refnet.run.cpu.parts_of", lambda *a: seen.append(parts_of(*a)) or seen[-1])
    images, weights = random_images(5, 33, 40, 3), lively_weights()
    by_definition = refnet.Engine(weights, device="reference", is_training=is_training)(images, end_points=True)
    engine = refnet.Engine(weights, threads=2, is_training=is_training)
    assert digest(engine(images)) == digest(by_definition[0])
    # All end points are returned, and those of all images.
    end_points = engine(images, end_points=True)[1]
    assert {name: digest(value) for name, value in end_points.items()} == {
        name: digest(value) for name, value in by_definition[1].items()
    }
    assert min(len(parts.images) for parts in seen) > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_products_are_computed_where_zeros_may_not_be_left_out(dtype: str) -> None:
    images, weights = random_images(2, 64, 72, 3), refnet.Weights(lively_weights())
    forced_at = 777

    def found(zeros: bool) -> tuple[str, set[int]]:
        with forced(Tuning(most_nonzero=forced_at)):
            engine = refnet.Engine(weights, zeros=zeros, dtype=dtype)
            executor = engine.prepared(images.shape)
        rows = [launch.row for launch in executor._program._launches if isinstance(launch.row, Row)]
        return digest(engine(images)), {row.most_nonzero for row in rows}

    (with_zeros, limits), (dense, none) = found(True), found(False)
    assert with_zeros == dense == digest(refnet.Engine(weights, device="reference", dtype=dtype)(images))
    assert forced_at in limits
    assert max(none) == 0
    assert digest(refnet.forward(weights, images, dtype=dtype, zeros=False)) == dense


def test_the_input_is_not_modified_and_the_output_is_the_callers_own() -> None:
    engine = refnet.Engine(lively_weights())
    images = random_images(2, 32, 32, 3)
    before = digest(images)
    first = engine(images)
    kept = digest(first)
    engine(random_images(2, 32, 32, 3, seed=9))
    assert digest(images) == before
    assert digest(first) == kept
    first[:] = 0
    assert digest(engine(images)) == kept


def test_concurrent_callers_of_one_engine() -> None:
    engine = refnet.Engine(lively_weights(), threads=2)
    images = [random_images(1, 32 + i % 3, 40, 3, seed=i) for i in range(8)]
    alone = [digest(engine(image)) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: digest(engine(images[i % 8])), range(400)))
    assert together == [alone[i % 8] for i in range(400)]


def test_more_threads_than_cores_and_a_busy_neighbour_finish() -> None:
    weights, image = lively_weights(), random_images(64, 64, 3)
    expected = digest(refnet.forward(weights, image, threads=1))
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        engine = refnet.Engine(weights, threads=16)
        assert {digest(engine(image)) for _ in range(50)} == {expected}
    finally:
        neighbour.kill()
        neighbour.wait()


INTERRUPTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import refnet
from tests.support.arrays import random_images
engine = refnet.Engine(refnet.random_weights("resnet_v2_50", 10), threads=2)
images = random_images(int(sys.argv[2]), 224, 224, 3)
engine(images[:, :32, :32])
engine(images)
try:
    print("ready", flush=True)
    while True:
        engine(images)
except KeyboardInterrupt:
    print("interrupted", time.time(), engine(images[:1, :32, :32]).shape, flush=True)
"""


@pytest.mark.parametrize("batch", [1, 16], ids=["short", "long"])
def test_ctrl_c_is_answered_during_a_forward(batch: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(ROOT / "kernels"), str(batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out = process.stdout.read()
    assert process.returncode == 0
    assert out.startswith("interrupted")
    assert out.endswith("(1, 10)\n")


def test_nan_and_infinity_stay_in_their_receptive_field() -> None:
    weights = lively_weights(blocks=small_blocks(units=1))
    images = random_images(2, 64, 64, 3)
    images[0, 5, 5, 1] = np.nan
    clean, dirty = images[1], images[0]
    net, end_points = refnet.forward(weights, images, end_points=True, global_pool=False)
    conv1 = end_points["resnet_v2/conv1"]
    rows, columns = np.nonzero(np.isnan(conv1[0]).any(-1))
    # The 7x7 kernel of stride 2 sees pixel 5 from the outputs whose windows [2i - 3, 2i + 3] hold it.
    assert set(rows) == set(columns) == {1, 2, 3, 4}
    assert digest(net[1]) == digest(refnet.forward(weights, clean, global_pool=False))
    assert np.isnan(refnet.forward(weights, dirty)).all()
