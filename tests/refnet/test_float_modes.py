"""The same bits in any floating-point mode of the caller's thread, which gets its mode back."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.evidence.selfcheck import CASES, Case, check, published
from refnet.images.preprocess import MODES as SCALINGS
from refnet.images.preprocess import resize_bilinear
from refnet.weights import initial
from refnet_kernels.contract import norm_scale
from refnet_kernels.system.float_mode import contract_mode, describe_mode
from tests.support.arrays import digest, random_images
from tests.support.float_modes import KNOWN, MODES, float_mode, register
from tests.support.needed import missing
from tests.support.nets import lively_weights

pytestmark = pytest.mark.skipif(not KNOWN, reason="how to set a mode is known for Linux on x86-64 and AArch64")

ROOT = Path(__file__).parents[2]
THREADS = [1, 2, 4, 8]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """No test leaves its mode to the next one."""
    with contract_mode():
        yield


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """The mode of a test; afterwards the thread must still be in it."""
    with float_mode(MODES[request.param]):
        own = register()
        yield request.param
        assert register() == own


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def convolution(threads: int) -> str:
    """The digest of a convolution of numbers so small that nearly all products are subnormal."""
    with contract_mode():
        weights, images = (
            np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(1e-20)
            for seed, shape in ((1, (3, 3, 64, 64)), (0, (1, 64, 64, 64)))
        )
    variables = {"Conv/weights": weights, "Conv/biases": np.zeros(64, np.float32)}
    return digest(refnet.conv2d_same(images, 64, 3, 1, activation_fn=None, variables=variables, threads=threads))


@pytest.fixture(scope="module")
def expected_convolution() -> str:
    with contract_mode():
        return convolution(1)


def test_a_mode_is_another_arithmetic(mode: str) -> None:
    assert describe_mode() == mode
    numbers = np.linspace(1, 2, 100, dtype=np.float32)
    quotient, product = numbers / np.float32(3), numbers * np.float32(2.0**-130)
    with contract_mode():
        assert describe_mode() == "default"
        others = [numbers / np.float32(3), numbers * np.float32(2.0**-130)]
    assert describe_mode() == mode
    assert digest(quotient, product) != digest(*others)


@pytest.mark.parametrize("threads", THREADS)
def test_a_convolution_of_subnormal_numbers(threads: int, mode: str, expected_convolution: str) -> None:
    assert {convolution(threads) for _ in range(4)} == {expected_convolution}


@pytest.mark.parametrize("threads", THREADS)
def test_weights_images_and_end_points_have_the_published_bits(threads: int, mode: str) -> None:
    assert check(case_named("subnormal"), published()["cases"]["subnormal"], threads=threads).differing == []


@pytest.mark.parametrize("name", ["nominal", "training", "binary64", "v1_training", "resnet_d"])
def test_other_networks_have_the_published_bits(name: str, mode: str) -> None:
    initial._quantiles.cache_clear()
    assert check(case_named(name), published()["cases"][name], threads=2).differing == []


@pytest.mark.parametrize("name", ["subnormal", "nominal"])
def test_the_definitions_give_the_published_bits(name: str, mode: str) -> None:
    assert check(case_named(name), published()["cases"][name], "reference").differing == []


def in_contract_mode(function: Callable[[], Any]) -> Any:
    with contract_mode():
        return function()


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("side", [None, 40])
def test_raw_pixels(scaling: str, side: int | None, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 61, 3), np.uint8)
    recipe = refnet.Recipe(33, 37, 0.875 if side is None else 1.0, scaling, side)
    assert digest(refnet.preprocess(pixels, recipe)) == in_contract_mode(
        lambda: digest(refnet.preprocess(pixels, recipe))
    )


def test_conversions_resizing_and_batch_norm(mode: str) -> None:
    with contract_mode():
        weights = {name: value * (1 + 2.0**-40) for name, value in lively_weights().items()}
        wide = np.random.default_rng(0).uniform(-1, 1, (1, 17, 19, 3))
        images, tiny = wide.astype(np.float32), (wide * 2.0**-130).astype(np.float32)
        gamma, variance = wide[0, 0, :, 0], np.abs(wide[0, 1, :, 1])

    def results() -> list[str]:
        return [
            digest(resize_bilinear(images, 23, 29)),
            digest(norm_scale(variance, gamma, 1e-3)),
            digest(*refnet.Weights(weights).values()),
            digest(refnet.forward(weights, wide)),
            digest(refnet.forward(weights, tiny, dtype="float64")),
        ]

    assert results() == in_contract_mode(results)


def test_after_exceptions(mode: str) -> None:
    own = register()
    weights = lively_weights()
    variance = next(name for name in weights if name.endswith("moving_variance"))
    images = random_images(33, 33, 3)
    for device in ("cpu", "reference"):
        with pytest.raises(refnet.errors.WeightsError, match="is 0 or negative"):
            refnet.forward({**weights, variance: -weights[variance]}, images, device=device)
        assert register() == own
    with pytest.raises(refnet.errors.InputError):
        refnet.preprocess(images)
    assert register() == own
    with pytest.raises(refnet.errors.ConfigError):
        refnet.random_weights("resnet_v2_51")
    assert register() == own


@pytest.mark.parametrize("threads", THREADS)
def test_after_ctrl_c(threads: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen = register(), []
    engine = refnet.Engine(lively_weights(), threads=threads)
    images = random_images(4, 256, 256, 3)
    expected = in_contract_mode(lambda: digest(engine(images)))

    def interrupt(*_: object) -> None:
        seen.append(register())
        raise KeyboardInterrupt

    def run_for_ever() -> None:
        while True:
            engine(images)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            run_for_ever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # What a thread does while a network runs, such as to answer a signal, it does in its own mode too.
    assert seen == [own]
    assert register() == own
    assert digest(engine(images)) == expected


def test_a_library_that_was_linked_with_fast_math(tmp_path: Path, expected_convolution: str) -> None:
    if shutil.which("gcc") is None:
        missing("gcc is missing, which links a library with -ffast-math: apt-get install gcc libc6-dev")
    source, library = tmp_path / "empty.c", tmp_path / "empty.so"
    source.write_text("")
    # GCC 13 and later no longer link this with a library by themselves.
    flush = subprocess.run(["gcc", "-print-file-name=crtfastmath.o"], capture_output=True, text=True, check=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", source, flush.stdout.strip(), "-o", library], check=True)

    def load_and_run() -> tuple[str, set[str], str]:
        ctypes.CDLL(str(library))
        before = describe_mode()
        return before, {convolution(threads) for threads in THREADS for _ in range(4)}, describe_mode()

    # It is the mode of this thread alone.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(load_and_run).result()
    assert found == ("flush to zero", {expected_convolution}, "flush to zero")


IMPORTED = """
import sys
from tests.support.float_modes import MODES, float_mode
with float_mode(MODES[sys.argv[1]]):
    from tests.refnet.test_float_modes import convolution
    import numpy as np, refnet
    from tests.support.arrays import digest
    pixels = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
    scalings = refnet.images.preprocess.MODES
    print(convolution(2), *(digest(refnet.preprocess(pixels, refnet.Recipe(20, 20, 1.0, s))) for s in scalings))
"""


def test_a_process_that_imports_refnet_in_another_mode(expected_convolution: str) -> None:
    def run(mode: str) -> str:
        # Without -B, Python would keep constants of source text that it read in this mode.
        command = [sys.executable, "-B", "-c", IMPORTED, mode]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    with contract_mode():
        pixels = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
        scaled = [digest(refnet.preprocess(pixels, refnet.Recipe(20, 20, 1.0, scaling))) for scaling in SCALINGS]
    expected = " ".join([expected_convolution, *scaled]) + "\n"
    assert [run(mode) for mode in ("rounding up", "flush to zero, rounding down")] == [expected] * 2


def test_selfcheck_says_which_mode_it_found(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "nominal"]) == 0
    assert f"Floating point here: {mode}." in capsys.readouterr().out
    assert main(["selfcheck", "nominal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["environment"]["floating point"] == mode


def test_selfcheck_does_not_speak_of_the_usual_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "nominal"]) == 0
    assert "Floating point" not in capsys.readouterr().out
