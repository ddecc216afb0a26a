"""Interrupts: Ctrl-C in each phase is answered soon, and the next call gives the right bits."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

import refnet
from refnet_kernels import jit
from tests.reliability.figures import ROOT, Row, child_environment
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

#: No process of these tests takes as long, unless it hangs.
HANG_SECONDS = 300
#: Children of which one must answer while it compiles. Python drops an interrupt in a function that LLVM calls, where
#: one arrives that was sent during LLVM's own work; and Numba goes on without SciPy if that import is interrupted.
COMPILING = 8

Phase = Callable[[Path], object]


def blocks() -> list[refnet.Block]:
    return small_blocks(units=4, base_depth=60)


def plan(folder: Path) -> None:
    """Plans of sizes that this process has not seen."""
    engine = refnet.Engine(lively_weights())
    for side in range(16, 200):
        engine.prepared((1, side, side, 3))


def compile_kernels(folder: Path) -> None:
    for element in ("float32", "float64"):
        jit._compile("refnet_kernels.conv.cpu_kernel", "conv_kernel", element)


def run_forwards(threads: int) -> Phase:
    def phase(folder: Path) -> None:
        engine, images = refnet.Engine(lively_weights(), threads=threads), random_images(2, 512, 512, 3)
        for _ in range(100):
            engine(images)

    return phase


def again(times: int, act: Callable[[Path], object]) -> Phase:
    return lambda folder: [act(folder) for _ in range(times)]


#: What is interrupted, long enough to be so.
PHASES: dict[str, Phase] = {
    "load .npz": again(300, lambda folder: refnet.load_weights(folder / "w.npz")),
    "load .safetensors": again(300, lambda folder: refnet.load_weights(folder / "w.safetensors")),
    "load .ckpt": again(300, lambda folder: refnet.load_weights(folder / "w.ckpt")),
    "plan": plan,
    "compilation": compile_kernels,
    "forward, 1 thread": run_forwards(1),
    "forward, 2 threads": run_forwards(2),
    "save": again(300, lambda folder: refnet.save_weights(folder / "again.npz", lively_weights())),
    "load_image": again(300, lambda folder: refnet.load_image(folder / "a.png")),
    "preprocess": again(
        300, lambda folder: refnet.preprocess(refnet.load_image(folder / "a.png"), refnet.Recipe(224, 224))
    ),
    "random_weights": again(100, lambda folder: refnet.random_weights(blocks(), num_classes=7)),
}


@contextmanager
def no_callbacks() -> Iterator[None]:
    """Without callbacks of the garbage collector, in which Python swallows an interrupt: Hypothesis has one."""
    kept = gc.callbacks[:]
    gc.callbacks.clear()
    try:
        yield
    finally:
        gc.callbacks[:] = kept


def interrupted_child(act: Callable[[], object], check: Callable[[], bool], delay: float) -> float | None:
    """Milliseconds from SIGINT to its exception in a child that does something until then; None if it was swallowed.

    The child must then pass the check.
    """
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        status, answered = 1, 0
        sent = threading.Event()

        def interrupt(*_: object) -> None:
            sent.set()
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            with no_callbacks():
                try:
                    os.write(write, b"r")
                    while not sent.is_set():
                        act()
                except KeyboardInterrupt:
                    answered = time.monotonic_ns()
            os.write(write, answered.to_bytes(8, "little"))
            status = 0 if check() else 2
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        pipe.read(1)
        time.sleep(delay)
        start = time.monotonic_ns()
        os.kill(child, signal.SIGINT)
        answered = int.from_bytes(pipe.read(8), "little")
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"after {1e3 * delay:.1f} ms the child's status is {status}"
    return (answered - start) / 1e6 if answered else None


def answers(name: str, times: list[float | None], most_ms: float) -> Row:
    found = [time for time in times if time is not None]
    missed = len(times) - len(found)
    assert found, f"{name}: Ctrl-C was swallowed each time"
    assert max(found) < most_ms, f"{name}: Ctrl-C was answered after {max(found):.0f} ms"
    words = f"median {statistics.median(found):.1f} ms, slowest {max(found):.0f} ms"
    return Row(name, len(times), f"{words}{f'; {missed} not answered' if missed else ''}; right bits after")


def phases(count: int, most_ms: float) -> list[Row]:
    draw = random.Random(0)
    image = random_images(40, 40, 3)
    expected = digest(refnet.forward(lively_weights(), image))
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name in ("w.npz", "w.safetensors", "w.ckpt"):
            refnet.save_weights(folder / name, lively_weights(0, blocks()))
        Image.fromarray(np.zeros((900, 1200, 3), np.uint8)).save(folder / "a.png")
        for name, phase in PHASES.items():
            times: list[float | None] = []
            most = max(count, COMPILING) if phase is compile_kernels else count
            while len(times) < count or (times.count(None) == len(times) < most):
                times.append(
                    interrupted_child(
                        lambda phase=phase: phase(folder),
                        lambda: digest(refnet.forward(lively_weights(), image)) == expected,
                        draw.uniform(0.002, 0.15),
                    )
                )
            rows.append(answers(name, times, most_ms))
        rows.append(Row("temporary files after interrupted saves", count, str(len(left_over(folder)))))
        assert left_over(folder) == []
    return rows


def left_over(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith((".tmp", ".old"))]


def imports(count: int, most_ms: float) -> Row:
    """A process that is interrupted while it imports refnet, and a kernel's module with Numba, ends."""
    draw, times, swallowed = random.Random(1), [], 0
    code = "print(flush=True); import refnet, numba, refnet_kernels.conv.cpu_kernel; input()"
    for _ in range(count):
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=child_environment(), cwd=ROOT
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.6))
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=HANG_SECONDS)
            times.append(1e3 * (time.monotonic() - sent))
        # NumPy makes another exception of one in its own imports; in a destructor Python passes over it.
        swallowed += b"EOFError" in errors
        assert process.returncode in (-signal.SIGINT, 1), errors
    row = answers("imports, to the end of the process", list(times), most_ms)
    return row._replace(result=f"{row.result.removesuffix('; right bits after')}; {swallowed} swallowed")


def storm(callers: int, seconds: float) -> Row:
    """One thread is interrupted every few milliseconds in a forward, while others use the same engine."""
    engine = refnet.Engine(lively_weights(), threads=2)
    images = [random_images(96, 64 + 8 * i, 3, seed=i) for i in range(5)]
    expected = [digest(engine(image)) for image in images]
    done, wrong, interrupts = [0] * callers, [0], 0
    stop = threading.Event()

    def ask(caller: int) -> None:
        which = done[caller] % len(images)
        wrong[0] += digest(engine(images[which])) != expected[which]
        done[caller] += 1

    def ask_until_stopped(caller: int) -> None:
        while not stop.is_set():
            ask(caller)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    draw = random.Random(0)
    others = [threading.Thread(target=ask_until_stopped, args=[caller]) for caller in range(1, callers)]
    for thread in others:
        thread.start()
    before = signal.signal(signal.SIGALRM, interrupt)
    end = time.monotonic() + seconds
    try:
        with no_callbacks():
            while time.monotonic() < end:
                try:
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0005, 0.01))
                    while time.monotonic() < end:
                        ask(0)
                except KeyboardInterrupt:
                    interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
        for thread in others:
            thread.join(HANG_SECONDS)
    hung = sum(thread.is_alive() for thread in others)
    assert (wrong[0], hung) == (0, 0), f"{wrong[0]} forwards with other bits, {hung} callers that hang"
    assert [digest(engine(image)) for image in images] == expected
    return Row(f"storm on one engine, {callers} threads", interrupts, f"{sum(done)} forwards, 0 wrong, 0 hangs")


def short() -> list[Row]:
    # Generous: the machine may be busy. The long form is for the figures.
    rows = phases(2, most_ms=5000)
    return [*rows, imports(2, most_ms=60_000), *(storm(callers, 0.5) for callers in (1, 2, 5))]


def long(minutes: float) -> list[Row]:
    rows = phases(25, most_ms=5000)
    return [*rows, imports(25, most_ms=60_000), *(storm(callers, 20 * minutes) for callers in (1, 2, 5))]
