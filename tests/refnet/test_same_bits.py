"""Promise P1: the same bits for any threads, batch, position, layout and company."""

from __future__ import annotations

import os
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
from nets import digest, lively_weights, random_images, small_blocks

import refnet

HERE = Path(__file__).parent

OPTIONS = [
    {},
    {"output_stride": 8},
    {"is_training": True},
    {"global_pool": False, "output_stride": 4},
    {"num_classes": None, "store_non_strided_activations": True},
]


def all_values(weights: object, images: np.ndarray, **options: object) -> list[np.ndarray]:
    net, end_points = refnet.forward(weights, images, end_points=True, **options)
    return [net, *end_points.values()]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_number_of_threads(threads: int, options: dict) -> None:
    weights, images = lively_weights(), random_images(3, 37, 50, 3)
    one = all_values(weights, images, threads=1, **options)
    many = all_values(weights, images, threads=threads, **options)
    assert digest(*one) == digest(*many)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fused_kernels_give_the_bits_of_the_definitions(options: dict) -> None:
    weights, images = lively_weights(), random_images(2, 33, 34, 3)
    defined = refnet.forward(weights, images, device="reference", end_points=True, **options)
    fused = refnet.forward(weights, images, **options)
    unfused = refnet.forward(weights, images, end_points=True, **options)
    assert digest(defined[0]) == digest(fused)
    assert list(defined[1]) == list(unfused[1])
    for name, value in defined[1].items():
        assert digest(value) == digest(unfused[1][name]), name


@given(batch=st.integers(2, 5), height=st.integers(17, 48), width=st.integers(17, 48), seed=st.integers(0, 99))
def test_a_batch_is_its_images_one_by_one(batch: int, height: int, width: int, seed: int) -> None:
    weights = refnet.Weights(lively_weights())
    images = random_images(batch, height, width, 3, seed=seed)
    together = refnet.forward(weights, images)
    for image, logits in zip(images, together, strict=True):
        assert digest(refnet.forward(weights, image)) == digest(logits)


def test_layout_of_the_input_does_not_matter() -> None:
    weights, images = lively_weights(), random_images(2, 40, 41, 3)
    expected = digest(refnet.forward(weights, images))
    unaligned = np.frombuffer(b"\0" + images.tobytes(), np.uint8)[1:].view(np.float32).reshape(images.shape)
    wide = np.zeros((2, 80, 41, 6), np.float32)
    wide[:, ::2, :, ::2] = images
    layouts = {
        "Fortran": np.asfortranarray(images),
        "strided": wide[:, ::2, :, ::2],
        "reversed": np.ascontiguousarray(images[:, ::-1])[:, ::-1],
        "big-endian": images.astype(">f4"),
        "unaligned": unaligned,
        "list": images.tolist(),
        "float64": images.astype(np.float64),
    }
    readonly = images.copy()
    readonly.flags.writeable = False
    layouts["read-only"] = readonly
    for name, layout in layouts.items():
        assert digest(refnet.forward(weights, layout)) == expected, name


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


CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
import refnet
from nets import digest, lively_weights, random_images
net, end_points = refnet.forward(lively_weights(), random_images(2, 33, 34, 3), end_points=True)
print(digest(net, *end_points.values()))
"""


def child_digest(**environment: str) -> str:
    kernels = str(HERE.parent.parent / "kernels")
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(HERE), kernels],
        env={**os.environ, **environment},
        cwd=HERE.parent.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        {"REFNET_LANES": "4"},
        {"REFNET_LANES": "8"},
        {"REFNET_LANES": "16"},
        {"REFNET_CACHE": "off"},
    ],
    ids=str,
)
def test_any_target_of_the_compiler(environment: dict[str, str]) -> None:
    """``generic`` has no FMA instruction and no AVX: 4 lanes, and fma by the C library's exact emulation."""
    net, end_points = refnet.forward(lively_weights(), random_images(2, 33, 34, 3), end_points=True)
    assert child_digest(**environment) == digest(net, *end_points.values())


INTERRUPTED = """
import sys, time
sys.path[:0] = sys.argv[1:3]
import refnet
from nets import random_images
engine = refnet.Engine(refnet.random_weights("resnet_v2_50", 10), threads=2)
images = random_images(16, 224, 224, 3)
engine(images[:, :32, :32])
print("ready", flush=True)
try:
    while True:
        engine(images)
except KeyboardInterrupt:
    print("interrupted", time.time(), engine(images[:1, :32, :32]).shape, flush=True)
"""


def test_ctrl_c_is_answered_during_a_forward() -> None:
    kernels = str(HERE.parent.parent / "kernels")
    command = [sys.executable, "-c", INTERRUPTED, str(HERE), kernels]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent.parent) as process:
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
