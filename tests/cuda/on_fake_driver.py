"""What the engine asks of the CUDA driver, and in which order.

`test_fake_driver.py` runs this where `fake_driver.c` is the driver. Kernels do nothing there: their bits have tests of
their own.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from cuda.core import ObjectCode
from numba.cuda import types

import refnet
from refnet import errors
from refnet.benchmark.layers import measure_network
from refnet.seeded import random_images
from refnet_kernels import jit
from refnet_kernels.conv.cuda_kernel import conv_kernel
from refnet_kernels.conv.cuda_tile import TILES
from refnet_kernels.gpu import program
from refnet_kernels.gpu.arrays import DeviceArray
from refnet_kernels.gpu.device import missing, open_device
from refnet_kernels.gpu.launch import SHARED_BYTES, CudaKernel, CudaLaunch
from refnet_kernels.gpu.program import make_program
from refnet_kernels.subsample.cuda_kernel import SUBSAMPLE
from tests.cuda.on_device import on_device

LOAD: Any = program._load

BLOCKS = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
WEIGHTS = refnet.random_weights(BLOCKS, num_classes=7, seed=0)
IMAGES = random_images((2, 5, 4, 3), 0)
IMAGE_BYTES, LOGIT_BYTES = IMAGES.nbytes, 2 * 7 * 4


class Driver:
    """The driver that writes down what is asked of it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.driver_record.restype = ctypes.c_char_p

    def forget(self) -> None:
        self._library.driver_forget()

    def asked(self) -> list[str]:
        """What was asked since it was told to forget; the launches of a graph are one line."""
        text = self._library.driver_record().decode()
        return re.sub(r"graph\n(?:.*\n)*?end", "graph", text).splitlines()

    def launches(self) -> int:
        return len(re.findall("^launch", self._library.driver_record().decode(), re.MULTILINE))

    def context(self) -> int | None:
        context = ctypes.c_void_p()
        self._library.cuCtxGetCurrent(ctypes.byref(context))
        return context.value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            kind = ctypes.c_size_t if name == "memory" else ctypes.c_int
            kind.in_dll(self._library, f"driver_{name}").value = value


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    driver = Driver()
    monkeypatch.setattr(program, "_load", quick)
    driver.forget()
    yield driver
    driver.version, driver.refuses_graphs, driver.is_busy, driver.fails, driver.memory = 13000, 0, 0, 0, 2**30


@cache
def quick(kernel: CudaKernel, capability: tuple[int, int]) -> Any:
    """A kernel that need not be compiled: this driver does not look at it."""
    return ObjectCode.from_cubin(b"no machine code").get_kernel("kernel")


def test_a_kernel_is_compiled_once_and_kept(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(jit, "_listeners", [compiled.append])
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path / "cache"))
    load = LOAD.__wrapped__
    with open_device(0).current():
        load(SUBSAMPLE, (9, 0))
        assert compiled == ["subsample_kernel"]
        (file,) = (tmp_path / "cache").glob("*/*.sm_90.*.cubin")
        code = jit._read(file)
        assert code is not None
        assert code.startswith(b"\x7fELF")
        assert b"refnet_kernel" in code
        load(SUBSAMPLE, (9, 0))
        assert len(compiled) == 1
        file.write_bytes(file.read_bytes()[:-1])
        load(SUBSAMPLE, (9, 0))
        assert len(compiled) == 2
        assert jit._read(file) is not None
        monkeypatch.setenv("REFNET_CACHE", "off")
        load(SUBSAMPLE, (9, 0))
        assert len(compiled) == 3


def test_every_kernel_has_a_name_of_its_own() -> None:
    names = [conv_kernel(tile).function.__name__ for tile in TILES]
    assert len({*names}) == len(names)


def engine(device: str = "cuda", **options: Any) -> refnet.Engine:
    return refnet.Engine(WEIGHTS, blocks=BLOCKS, device=device, **options)


class Stream:
    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


def executor_of(engine: refnet.Engine) -> Any:
    return next(iter(engine._compiled.values())).executor


def test_a_plan_is_recorded_once_and_launched_as_one_graph(driver: Driver) -> None:
    network = engine()
    network(IMAGES)
    asked = driver.asked()
    # Each kernel by itself first, which loads it, to the end: the next run is on another stream and in the same memory.
    steps = len(executor_of(network)._program._launches)
    first = next(i for i, line in enumerate(asked) if line.startswith("launch"))
    assert [line.split()[0] for line in asked[first : first + steps]] == ["launch"] * steps
    recorded_on = int(executor_of(network)._program._stream.handle)
    assert asked[first + steps] == f"synchronize on {recorded_on}"
    assert asked[first + steps + 1] == f"record in mode 2 on {recorded_on}"  # CU_STREAM_CAPTURE_MODE_RELAXED
    assert driver.launches() == 2 * steps
    assert executor_of(network).graph
    driver.forget()
    network(IMAGES)
    own = open_device(0).stream().handle
    assert [re.sub(r"event \d+", "event", line) for line in driver.asked()] == [
        f"wait for event on {int(own)}",
        f"upload {IMAGE_BYTES} bytes on {int(own)}",
        f"graph on {int(own)}",
        f"download {LOGIT_BYTES} bytes on {int(own)}",
        f"synchronize on {int(own)}",
        f"event on {int(own)}",
    ]
    assert driver.launches() == steps


def test_device_arrays_pass_without_a_copy_to_the_host_and_without_waiting(driver: Driver) -> None:
    network, images = engine(), on_device(IMAGES)
    network(images)
    driver.forget()
    logits = network(images, stream=77)
    assert isinstance(logits, DeviceArray)
    made, done, copied, ready, after = (int(event) for event in _events(driver))
    assert driver.asked() == [
        f"wait for event {made} on 77",
        f"wait for event {done} on 77",
        f"copy {IMAGE_BYTES} bytes on 77",
        f"event {copied} on 77",
        "graph on 77",
        f"copy {LOGIT_BYTES} bytes on 77",
        f"event {ready} on 77",
        f"event {after} on 77",
    ]
    assert logits.__cuda_array_interface__ == {
        "version": 3, "shape": (2, 7), "typestr": "<f4", "strides": None, "stream": 77,
        "data": (logits.__cuda_array_interface__["data"][0], False),
    }  # fmt: skip


def free_bytes() -> int:
    gc.collect()
    return int(open_device(0).free_bytes())


def _events(driver: Driver) -> list[str]:
    return re.findall(r"event (\d+) ", "\n".join(driver.asked()))


def test_images_reach_the_network_and_its_values_the_outputs(driver: Driver) -> None:
    """Kernels do nothing: what lies in the values' places is what comes out."""
    network, images = engine(), on_device(IMAGES)
    network(images)
    executor = executor_of(network)
    executor._arena.upload(np.arange(executor._total // 4, dtype=np.float32))
    first = network(images)
    arena = np.empty(executor._total // 4, np.float32)
    executor._arena.download(arena)
    at = executor._offsets[executor.plan.input] // 4
    assert arena[at : at + IMAGES.size].tobytes() == IMAGES.tobytes()
    at = (executor._address(executor.plan.outputs[0]) - executor._start) // 4
    expected = arena[at : at + 14].reshape(2, 7).tolist()
    assert first.copy_to_host().tolist() == network(IMAGES).tolist() == expected
    executor._arena.upload(-arena)
    network(on_device(-IMAGES))
    assert first.copy_to_host().tolist() == expected


def test_a_run_waits_for_the_one_before_on_another_stream(driver: Driver) -> None:
    network = engine()
    network(IMAGES, stream=77)
    driver.forget()
    network(IMAGES, stream=Stream(88))
    done = _events(driver)[-1]
    driver.forget()
    network(IMAGES, stream=99)
    assert driver.asked()[0] == f"wait for event {done} on 99"
    assert {line.split()[-1] for line in driver.asked()} == {"99"}


def unordered(asked: list[str]) -> list[tuple[str, str]]:
    """Pairs of operations on memory that may run at the same time, for all that streams, events and the host say."""
    before: dict[str, set[int]] = defaultdict(set)  # of each stream: what its next operation comes after
    at_event: dict[str, set[int]] = {}
    host: set[int] = set()
    touching: set[int] = set()
    pairs = []
    for number, line in enumerate(asked):
        what, _, stream = line.rpartition(" on ")
        known = before[stream] | host
        if match := re.fullmatch(r"(wait for |synchronize )?event (\d+)", what):
            if match[1] is None:
                at_event[match[2]] = known
            else:
                (before[stream] if match[1] == "wait for " else host).update(at_event[match[2]])
        elif what == "synchronize":
            host |= known
        elif not what.startswith("record"):
            pairs += [(asked[other], line) for other in range(number) if other in touching - known]
            touching.add(number)
            before[stream] = known | {number}
    return pairs


@pytest.mark.parametrize("refuses", [0, 1])
@pytest.mark.filterwarnings("ignore:No CUDA graph")
def test_whatever_the_streams_no_two_operations_meet_in_the_arena(refuses: int, driver: Driver) -> None:
    driver.refuses_graphs = refuses
    there = [on_device(IMAGES), on_device(IMAGES)]
    network, random = engine(), Random(0)
    for _ in range(20):
        network(random.choice([IMAGES, *there]), stream=random.choice([None, 77, Stream(88)]))
    asked = driver.asked()
    assert unordered(asked) == []
    # Without what one of them waits for, it would be found.
    waits = [i for i, line in enumerate(asked) if line.startswith("wait") and line.endswith("77")]
    assert any(unordered(asked[:i] + asked[i + 1 :]) for i in waits)


@pytest.mark.parametrize("stream", [0, Stream(0)])
def test_the_default_stream_has_two_names(stream: Any, driver: Driver) -> None:
    network, images = engine(), on_device(IMAGES)
    logits = network(images, stream=stream)
    assert f"copy {IMAGE_BYTES} bytes on 0" in driver.asked()
    # 0 would be ambiguous to those who read the interface.
    assert logits.__cuda_array_interface__["stream"] == 1


@pytest.mark.parametrize("when", [1, 2])
def test_where_graphs_cannot_be_recorded_it_is_said_and_kernels_are_launched_one_by_one(
    when: int, driver: Driver
) -> None:
    driver.refuses_graphs = when
    network = engine()
    with pytest.warns(errors.RefnetWarning, match=r"No CUDA graph could be recorded.*CUDA_ERROR_NOT_SUPPORTED"):
        network(IMAGES)
    assert not executor_of(network).graph
    driver.forget()
    network(IMAGES, stream=77)
    own = int(executor_of(network)._program._stream.handle)
    steps = len(executor_of(network)._program._launches)
    _, before, before_again, after, after_again, _ = _events(driver)
    assert [line for line in driver.asked() if not line.startswith("launch")][2:-2] == [
        f"event {before} on 77",
        f"wait for event {before_again} on {own}",
        f"event {after} on {own}",
        f"wait for event {after_again} on 77",
        f"download {LOGIT_BYTES} bytes on 77",
    ]
    assert driver.launches() == steps
    assert all(line.endswith(f" on {own}") for line in driver.asked() if line.startswith("launch"))
    assert (before, after) == (before_again, after_again)


def test_images_are_kept_until_they_are_copied(driver: Driver) -> None:
    network, images = engine(), on_device(IMAGES)
    network(on_device(IMAGES))
    driver.is_busy = 1
    memory = weakref.ref(images._memory)
    network(images)
    del images
    gc.collect()
    assert memory() is not None
    driver.is_busy = 0
    network(on_device(IMAGES))
    gc.collect()
    assert memory() is None


def test_dlpack_gives_the_memory_away_and_its_reader_waits(driver: Driver) -> None:
    from cuda.core.utils import StridedMemoryView

    network = engine()
    logits = network(on_device(IMAGES))
    assert logits.__dlpack_device__() == (2, 0)
    expected, address = logits.copy_to_host(), logits.__cuda_array_interface__["data"][0]
    driver.forget()
    with open_device(0).current():
        view = StridedMemoryView.from_dlpack(logits, stream_ptr=88)
    assert re.fullmatch(r"wait for event \d+ on 88", driver.asked()[0])
    assert (view.ptr, view.shape, view.dtype, view.device_id) == (address, (2, 7), np.float32, 0)
    memory = weakref.ref(logits._memory)
    del logits
    gc.collect()
    assert memory() is not None
    assert bytes((ctypes.c_char * expected.nbytes).from_address(view.ptr)) == expected.tobytes()
    del view
    gc.collect()
    assert memory() is None


def test_who_asks_for_dlpack_without_a_stream_means_the_default_one(driver: Driver) -> None:
    logits = engine()(on_device(IMAGES))
    for stream, line in ((None, r"wait for event \d+ on 1"), (77, r"wait for event \d+ on 77"), (-1, None)):
        driver.forget()
        logits.__dlpack__(stream=stream, max_version=(1, 0), dl_device=(2, 0))
        assert [bool(re.fullmatch(line or "", asked)) for asked in driver.asked()] == ([True] if line else [])
    for options in ({"dl_device": (1, 0)}, {"copy": True}):
        with pytest.raises(BufferError):
            logits.__dlpack__(**options)


def test_numbas_arrays_pass_in_and_out(driver: Driver) -> None:
    from numba import cuda

    network = engine()
    with cuda.gpus[0]:
        stream = cuda.stream()
        images = cuda.to_device(IMAGES, stream)
        expected = network(IMAGES)
        driver.forget()
        logits = network(images, stream=88)
        # The images' stream has work that the network's waits for.
        asked = driver.asked()
        assert asked[0] == f"event {_events(driver)[0]} on {int(stream.handle)}"
        assert asked[1] == f"wait for event {_events(driver)[0]} on 88"
        assert cuda.as_cuda_array(logits).copy_to_host().tolist() == expected.tolist()


def test_each_kernel_is_timed(driver: Driver) -> None:
    network = engine()
    network(IMAGES)
    executor = executor_of(network)
    done = _events(driver)[-1]
    driver.forget()
    assert executor.profile() == [1.0] * len(executor._program._launches)
    assert driver.asked()[0] == f"synchronize event {done} on 0"


def test_each_step_is_timed(driver: Driver) -> None:
    network = engine()
    network(IMAGES)
    executor = executor_of(network)
    times = executor.timer(IMAGES)()
    assert len(times) == len(executor.plan.steps)
    assert sum(times) == len(executor._program._launches)
    measured = measure_network(network, WEIGHTS, IMAGES, None, range(2))
    assert [sum(row.ms) / 2 for row in measured.rows] == times
    assert measured.peak_gflops is None


def test_images_on_another_device_are_refused(driver: Driver) -> None:
    with pytest.raises(errors.InputError, match=r"on the CUDA device 1, and the network runs on 0.*device='cuda:1'"):
        engine()(on_device(IMAGES, index=1))
    assert engine("cuda:1")(on_device(IMAGES, index=1)).__dlpack_device__() == (2, 1)


def test_images_on_a_device_are_not_for_the_cpu() -> None:
    for run in (engine("cpu"), lambda images: refnet.subsample(images, 2)):
        with pytest.raises(errors.InputError, match=r"DeviceArray\) are on a CUDA device.*Engine with device='cuda'"):
            run(on_device(IMAGES))


def test_a_librarys_refusal_is_said(driver: Driver) -> None:
    class Guarded:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("This tensor requires gradient: use tensor.detach().")

    with pytest.raises(errors.InputError, match=r"\(Guarded\) on a CUDA device cannot be read: .*use tensor.detach"):
        engine()(Guarded())


def test_the_threads_own_context_stays(driver: Driver) -> None:
    network = engine("cuda:1")
    contexts = []

    def run() -> None:
        contexts.append(driver.context())
        network(on_device(IMAGES, index=1), stream=77).copy_to_host()
        contexts.append(driver.context())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert contexts == [None, None]


def test_memory_that_is_not_there_is_counted(driver: Driver) -> None:
    with pytest.raises(MemoryError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        open_device(0).allocate(2**40)
    driver.memory = 2**30 - free_bytes() + 100_000
    with pytest.raises(errors.DeviceError, match=r"need [\d,]+ bytes.* 100,000 are free, enough for a batch of \d+\."):
        engine()(np.zeros((2000, 5, 4, 3), np.float32))


@pytest.mark.parametrize("index", [0, 1])
def test_a_kernel_may_have_as_much_shared_memory_as_it_asks_for(index: int, driver: Driver) -> None:
    kernel = CudaKernel(lambda: None, types.void(), 32, 1, SHARED_BYTES)
    make_program(open_device(index), [CudaLaunch(kernel, 1, ())]).run()
    assert driver.launches() == 1


def test_outputs_for_which_there_is_no_memory(driver: Driver) -> None:
    network, images = engine(), on_device(IMAGES)
    network(images)
    driver.memory = 2**30 - free_bytes() + 40
    with pytest.raises(errors.DeviceError, match=r"output of shape \(2, 7\) needs 56 bytes .* 40 are free: release"):
        network(images)
    assert network(IMAGES).shape == (2, 7)


def test_runs_and_engines_leave_no_memory_behind(driver: Driver) -> None:
    images = on_device(IMAGES)
    without = free_bytes()
    network = engine()
    network(images)
    once = free_bytes()
    for stream in (None, 77) * 20:
        network(images, stream=stream)
    assert free_bytes() == once
    del network
    assert free_bytes() == without


def test_a_kernel_that_fails_is_a_device_error(driver: Driver) -> None:
    network = engine()
    network(IMAGES)
    driver.fails = 1
    with pytest.raises(errors.DeviceError, match=r"The CUDA device failed: .*LAUNCH_FAILED"):
        network(IMAGES)


def test_a_device_or_a_compiler_that_is_not_there_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(1) is None
    assert missing(2) == "there are 2, counted from 0"
    with pytest.raises(errors.DeviceError, match=r"'cuda:2' cannot be used: there are 2, counted from 0\."):
        engine("cuda:2")
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    assert missing() == "the compiler NVVM is not there; the package cuda-toolkit brings it"


def test_a_driver_that_is_too_old_is_named(driver: Driver) -> None:
    driver.version = 12040
    assert missing() == "the driver is for CUDA 12.4, and these packages need one for CUDA 13"
    driver.version = 13020
    assert missing() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_a_fork_is_told(driver: Driver) -> None:
    network = engine()
    network(IMAGES)
    child = os.fork()
    if child == 0:
        try:
            network(IMAGES)
        except errors.DeviceError as error:
            os._exit(0 if "child of a fork" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
