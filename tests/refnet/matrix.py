"""One SHA-256 over everything that must not matter.

    python -m tests.refnet.matrix [--definitions] [--full] [--starts fork spawn] [--only-hash]

computes small networks with several options, and the named problems of every kernel; shows that the threads, the batch,
the position in it, the input's layout, and the numbers that are measured on a machine, leave every bit alone; and
prints a row of ``docs/same-bits.md``. What lies outside a process (the processor, the vector width, the cache of
kernels) is varied by ``test_matrix.py``, the architecture by ``tools/same_bits_aarch64.sh``.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import multiprocessing
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import llvmlite.binding as llvm
import numpy as np

import refnet
from refnet_kernels.catalog import select
from refnet_kernels.conv.tuning import forced
from refnet_kernels.jit import cache_directory
from refnet_kernels.target import CPU, LANES
from tests.problems import NAMED
from tests.support.arrays import Arrays, assert_same_bits, digest_results, random_images
from tests.support.nets import lively_weights
from tests.support.tunings import EXTREMES

OPTIONS: list[dict[str, Any]] = [
    {},
    {"output_stride": 8},
    {"is_training": True},
    {"global_pool": False, "output_stride": 4},
    {"num_classes": None, "store_non_strided_activations": True},
    {"dtype": "float64"},
    {"dtype": "float64", "is_training": True},
]
IMAGES = random_images(3, 37, 50, 3)
THREADS = (1, 2, 3, 8)
#: Which images of the batch, in which order.
PARTS = ([0, 1, 2], [0], [1], [2], [2, 0], [1, 1, 0])
COLUMNS = ("architecture", "processor", "lanes", "Python", "NumPy", "Numba", "LLVM", "date", "SHA-256")


def strided(images: np.ndarray) -> np.ndarray:
    """Every other row and channel of a larger array."""
    return images.repeat(2, axis=1).repeat(2, axis=3)[:, ::2, :, ::2]


def readonly_and_unaligned(images: np.ndarray) -> np.ndarray:
    """One byte into the memory of an immutable object."""
    return np.frombuffer(b"\0" + images.tobytes(), np.uint8)[1:].view(np.float32).reshape(images.shape)


#: The same numbers, each time laid out in another way.
LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "reversed": lambda images: np.ascontiguousarray(images[:, ::-1])[:, ::-1],
    "read-only, unaligned": readonly_and_unaligned,
    "big-endian": lambda images: images.astype(">f4"),
    "float64": lambda images: images.astype(np.float64),
    "list": np.ndarray.tolist,
}


def network(weights: Any, images: Any, **options: Any) -> Arrays:
    """All that a network gives: its output from fused kernels, and every end point."""
    net, end_points = refnet.forward(weights, images, end_points=True, **options)
    return {"fused": refnet.forward(weights, images, **options), "net": net, **end_points}


def check_variations(options: dict[str, Any], full: bool) -> None:
    """Any threads, part of the batch and layout give the bits of one thread, all images and C order.

    ``full``: each with each; otherwise each number of threads with each part, and with them the layouts in turn.
    """
    weights = refnet.Weights(lively_weights())
    expected = network(weights, IMAGES, threads=1, **options)
    # Batch statistics are those of all the images, in their order.
    parts = PARTS[:1] if options.get("is_training") else PARTS
    turn = itertools.cycle(LAYOUTS)
    for threads, part in itertools.product(THREADS, parts):
        for layout in LAYOUTS if full else [next(turn)]:
            found = network(weights, LAYOUTS[layout](IMAGES[part]), threads=threads, **options)
            try:
                assert_same_bits(found, {name: value[part] for name, value in expected.items()})
            except AssertionError as error:
                raise AssertionError(f"{options}, {threads} threads, images {part}, {layout}: {error}") from error


def results(device: str) -> dict[str, Arrays]:
    """What a device gives for each network and each named problem."""
    weights = lively_weights()
    found = {str(options): network(weights, IMAGES, device=device, **options) for options in OPTIONS}
    for problem in NAMED:
        kernel = select(problem.op, device)
        values = problem.defined() if device == "reference" else problem.call(kernel)
        found[f"{problem.op}: {problem.name}"] = values
    return found


def check_definitions(found: dict[str, Arrays]) -> None:
    """Each result has the bits of the NumPy definitions."""
    defined = results("reference")
    assert list(found) == list(defined)
    for name, values in found.items():
        try:
            assert_same_bits(values, defined[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def check_tunings(found: dict[str, Arrays]) -> None:
    """Neither the numbers of a machine nor leaving out no zeros changes a result."""
    for name, numbers in EXTREMES.items():
        with forced(numbers):
            assert digest_results(results("cpu").values()) == digest_results(found.values()), name
    weights = lively_weights()
    for options in OPTIONS:
        assert_same_bits(network(weights, IMAGES, zeros=False, **options), found[str(options)])


def sha256(device: str = "cpu") -> str:
    """One hash over the results of a device."""
    return digest_results(results(device).values())


def row(sha: str) -> str:
    """A row of the table in ``docs/same-bits.md``, whose columns are `COLUMNS`."""
    versions = (platform.python_version(), np.__version__, version("numba"), ".".join(map(str, llvm.llvm_version_info)))
    return " | ".join(("", platform.machine(), CPU, str(LANES), *versions, str(datetime.date.today()), sha, "")).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--definitions", action="store_true", help="compare with the NumPy definitions, bit by bit")
    parser.add_argument("--full", action="store_true", help="vary threads, batch and layout each with each")
    parser.add_argument("--starts", nargs="*", default=[], help="compute again in processes started by fork, spawn")
    parser.add_argument("--only-hash", action="store_true", help="vary nothing")
    arguments = parser.parse_args()
    if arguments.only_hash:
        print(row(sha256()))
        return
    for options in OPTIONS:
        check_variations(options, arguments.full)
    found = results("cpu")
    check_tunings(found)
    if arguments.definitions:
        check_definitions(found)
    sha = digest_results(found.values())
    # Two at once, unless they have nothing to do with each other.
    count = 1 if cache_directory() is None else 2
    for start in arguments.starts:
        with multiprocessing.get_context(start).Pool(count) as pool:
            children = pool.map(sha256, ["cpu"] * count, chunksize=1)
        if set(children) != {sha}:
            raise AssertionError(f"{start}: {children}, not {sha}")
    print(row(sha))


if __name__ == "__main__":
    main()
