"""Load: callers at once, threads and processes, on one engine and on several."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache

import refnet
from tests.reliability.figures import Row
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights

SIZES = ((20, 20), (33, 47), (32, 64), (57, 24), (96, 80))


@cache
def engine(threads: int) -> refnet.Engine:
    return refnet.Engine(lively_weights(), threads=threads)


def answer(threads: int, seed: int) -> str:
    """The digest of the logits of an image, whose size comes from its seed, too."""
    return digest(engine(threads)(random_images(*SIZES[seed % len(SIZES)], 3, seed=seed)))


def compare(what: str, expected: list[str], run: Callable[[], Sequence[list[str]]]) -> Row:
    """What every caller was given, against what one caller is given, one image after another."""
    start = time.perf_counter()
    answers = list(run())
    seconds = time.perf_counter() - start
    wrong = sum(a != b for found in answers for a, b in zip(found, expected, strict=True))
    assert wrong == 0, f"{what}: {wrong} answers are not those of one caller"
    count = len(answers) * len(expected)
    return Row(what, count, f"0 wrong; {count / seconds:.0f} per second")


def threads_row(callers: int, images: int, engines: Sequence[int]) -> Row:
    """Each caller asks for all the images, beginning at another one, with another number of threads."""
    expected = [answer(1, seed) for seed in range(images)]

    def ask(caller: int) -> list[str]:
        first = caller * images // callers
        found = {seed: answer(engines[caller % len(engines)], seed) for seed in [*range(first, images), *range(first)]}
        return [found[seed] for seed in range(images)]

    def run() -> Sequence[list[str]]:
        with ThreadPoolExecutor(callers) as pool:
            return list(pool.map(ask, range(callers)))

    on = "one engine" if len(engines) == 1 else f"{len(engines)} engines of {', '.join(map(str, engines))} threads"
    return compare(f"{callers} threads, {images} images each, {on}", expected, run)


def serial(images: int) -> list[str]:
    """The answers to one caller; a process of a pool runs this."""
    return [answer(2, seed) for seed in range(images)]


def processes_row(start: str, processes: int, images: int) -> Row:
    expected = serial(images)

    def run() -> Sequence[list[str]]:
        with ProcessPoolExecutor(processes, multiprocessing.get_context(start)) as pool:
            return list(pool.map(serial, [images] * processes))

    return compare(f"{processes} processes by {start}, {images} images each", expected, run)


def run(images: int, processes: int, engines: Sequence[Sequence[int]]) -> list[Row]:
    rows = [threads_row(8, images, chosen) for chosen in engines]
    return rows + [processes_row(start, processes, images) for start in ("fork", "spawn", "forkserver")]


def short() -> list[Row]:
    return run(images=15, processes=2, engines=([2], [1, 2, 3]))


def long(minutes: float) -> list[Row]:
    return run(images=200, processes=4, engines=([2], [1, 2, 3, 4], range(1, 9)))
