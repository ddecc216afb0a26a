"""What only a device shows: streams, graphs, callers at once, other libraries' arrays."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import refnet
from refnet_kernels.gpu.device import missing, open_device, simulated
from tests.cuda.on_device import on_device
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(simulated() or missing() is not None, reason=f"no CUDA device: {missing()}"),
]

BLOCKS = small_blocks(units=1)
WEIGHTS = lively_weights(blocks=BLOCKS)


def test_two_callers_at_once_get_the_bits_of_one() -> None:
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    images = [random_images(1, 4, 3, 3) * scale for scale in (1, 0.5)]
    expected = [digest(refnet.forward(WEIGHTS, image, blocks=BLOCKS)) for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(engine, images * 50))
    assert [digest(logits) for logits in found] == expected * (len(found) // 2)


def executor_of(engine: refnet.Engine) -> Any:
    return next(iter(engine._compiled.values())).executor


def test_a_graph_gives_the_bits_of_single_launches() -> None:
    images = random_images(2, 33, 20, 3)
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    by_graph = digest(engine(images))
    executor = executor_of(engine)
    assert executor.graph
    executor._program._graph = None
    assert digest(engine(images)) == by_graph == digest(refnet.forward(WEIGHTS, images, blocks=BLOCKS))


def test_what_lay_in_the_devices_memory_leaves_no_trace() -> None:
    images = random_images(2, 33, 20, 3)
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    expected = digest(engine(images))
    executor = executor_of(engine)
    for poison in (0x00, 0x7F, 0xFF):
        executor._arena.upload(np.full(executor._total, poison, np.uint8))
        assert digest(engine(images)) == expected


def test_runs_on_many_streams_do_not_meet() -> None:
    from numba import cuda

    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    images = [random_images(3, 33, 20, 3) * scale for scale in (1, 0.5, 0.25)]
    expected = [digest(refnet.forward(WEIGHTS, batch, blocks=BLOCKS)) for batch in images]
    streams = [cuda.stream() for _ in images]
    given = [on_device(batch) for batch in images]
    found = [
        engine(batch, stream=stream if turn % 2 else int(stream.handle))
        for turn in range(20)
        for batch, stream in zip(given, streams, strict=True)
    ]
    assert [digest(logits.copy_to_host()) for logits in found] == expected * 20
    assert [digest(engine(batch, stream=stream)) for batch, stream in zip(images, streams, strict=True)] == expected


def test_images_that_are_let_go_of_at_once_are_read_all_the_same() -> None:
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    images = random_images(2, 33, 20, 3)
    found = [engine(on_device(images)) for _ in range(50)]
    assert {digest(logits.copy_to_host()) for logits in found} == {digest(engine(images))}


def test_runs_leave_no_memory_behind() -> None:
    engine, images = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda"), on_device(random_images(2, 33, 20, 3))
    engine(images).copy_to_host()
    gc.collect()
    free = open_device(0).free_bytes()
    for _ in range(500):
        engine(images)
    engine(images).copy_to_host()
    gc.collect()
    assert open_device(0).free_bytes() == free


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_other_libraries_arrays_pass_in_and_out(library: str) -> None:
    module = pytest.importorskip(library)
    if library == "torch" and not module.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    images = random_images(2, 33, 20, 3)
    there = module.from_numpy(images).cuda() if library == "torch" else module.asarray(images)
    found = module.from_dlpack(refnet.forward(WEIGHTS, there, blocks=BLOCKS, device="cuda"))
    host = found.cpu().numpy() if library == "torch" else found.get()
    assert digest(host) == digest(refnet.forward(WEIGHTS, images, blocks=BLOCKS))
