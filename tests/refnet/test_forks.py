"""A fork at any moment: the child computes the same, and waits for nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import refnet
import refnet.engine
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def fork(check: Callable[[], bool]) -> int:
    """A child that exits with 0 if the check holds; one that hangs is ended."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return child


def status(child: int) -> int:
    return os.waitpid(child, 0)[1]


def test_while_another_thread_runs() -> None:
    engine = refnet.Engine(lively_weights(), threads=2)
    image = random_images(32, 32, 3)
    expected = digest(engine(image))
    busy = threading.Thread(target=lambda: [engine(random_images(32, 32, 3)) for _ in range(200)])
    busy.start()
    children = [fork(lambda: digest(engine(image)) == expected) for _ in range(4)]
    busy.join()
    assert [status(child) for child in children] == [0] * 4
    assert digest(engine(image)) == expected


def test_while_another_thread_makes_the_engines_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_images(32, 32, 3)
    expected = digest(refnet.forward(lively_weights(), image))
    weights = refnet.Weights(lively_weights())
    planning, forked = threading.Event(), threading.Event()
    parent, make_plan = os.getpid(), refnet.engine.make_plan

    def make_plan_around_a_fork(*arguments: object) -> object:
        if os.getpid() == parent:
            planning.set()
            forked.wait(60)
        return make_plan(*arguments)

    monkeypatch.setattr(refnet.engine, "make_plan", make_plan_around_a_fork)
    results: list[str] = []
    planner = threading.Thread(target=lambda: results.append(digest(refnet.forward(weights, image))))
    planner.start()
    assert planning.wait(60)
    child = fork(lambda: digest(refnet.forward(weights, image)) == expected)
    forked.set()
    planner.join()
    assert status(child) == 0
    assert results == [expected]


COMPILING = """
import threading
import refnet
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights
from refnet_kernels.jit import on_compile
from tests.refnet.test_forks import fork, status

engine, image = refnet.Engine(lively_weights()), random_images(32, 32, 3)
compiling = threading.Event()
on_compile(lambda name: compiling.set())
results = []
compiler = threading.Thread(target=lambda: results.append(digest(engine(image))))
compiler.start()
assert compiling.wait(60)
child = fork(lambda: print(digest(engine(image)), flush=True) is None)
compiler.join()
print(*results, status(child))
"""


def test_while_another_thread_compiles() -> None:
    """Numba and LLVM cannot be cut in two: the fork comes when the kernel is ready."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": "off"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", COMPILING]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    expected = digest(refnet.forward(lively_weights(), random_images(32, 32, 3)))
    assert output.split() == [expected, expected, "0"]
