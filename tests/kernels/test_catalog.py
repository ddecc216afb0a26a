"""The one list of kernels."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from refnet_kernels.catalog import BACKENDS, OPS, kernels_of, rows, select
from refnet_kernels.contract import (
    ConvGeometry,
    Geometry,
    GroupNormGeometry,
    ImageGeometry,
    NormGeometry,
    PoolGeometry,
    SubsampleGeometry,
)


def test_every_op_has_a_definition() -> None:
    assert {op for op, _ in rows()} == {op for op, backend in rows() if backend == "reference"}


def test_every_row_can_be_selected() -> None:
    for op, backend in rows():
        if backend == "cuda" and find_spec("numba_cuda") is None:
            continue
        kernel = select(op, backend)
        assert (kernel.op, kernel.backend) == (op, backend)
        assert backend in BACKENDS
        assert callable(kernel.call)


def test_the_definitions_are_not_launched() -> None:
    with pytest.raises(NotImplementedError, match="only compiled kernels"):
        select("conv", "reference").launch()


@pytest.mark.parametrize(("op", "backend"), [("convolution", "cpu"), ("conv", "tpu")])
def test_an_unknown_row_is_named_and_the_known_ones_are_listed(op: str, backend: str) -> None:
    with pytest.raises(KeyError) as error:
        select(op, backend)
    for word in (op, backend, "max_pool", "reference"):
        assert word in str(error.value)


def test_the_catalog_and_the_definitions_import_no_numba() -> None:
    script = """
import sys
from refnet_kernels.catalog import rows, select
for op, backend in rows():
    if backend == "reference":
        select(op, backend)
assert "numba" not in sys.modules
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)


def test_every_op_says_what_it_is_launched_as() -> None:
    for name, op in OPS.items():
        assert op.name == name
        assert "batch" in op.geometry._fields
        assert set(op.kernels) <= {kernel for kernel, _ in rows()}


def test_an_op_of_two_launches_hands_over_what_the_second_reads() -> None:
    statistics, norm = kernels_of("batch_norm_training", "cpu")
    assert (statistics.op, norm.op) == ("batch_statistics", "batch_norm")
    assert kernels_of("conv", "cpu") == [select("conv", "cpu")]


def test_an_op_without_kernels_is_not_launched() -> None:
    with pytest.raises(KeyError, match="relu"):
        kernels_of("relu", "cpu")


def test_a_kernel_that_prepares_nothing_says_so() -> None:
    mean = select("mean", "cpu")
    with pytest.raises(NotImplementedError, match="no weights"):
        mean.prepare({}, {}, False, None)
    assert mean.frame(None) is None
    assert mean.tables(None) == {}


@pytest.mark.parametrize(
    ("op", "geometry", "roundings", "word"),
    [
        ("conv", ConvGeometry(1, 9, 9, 3, 5, 5, 8, 7, 7, 2, 1, 3, 3), 64 + 3, "conv 7x7/2"),
        ("conv", ConvGeometry(1, 9, 9, 60, 9, 9, 8, 1, 1, 1, 1, 0, 0), 60 + 1, "conv 1x1"),
        ("max_pool", PoolGeometry(1, 9, 9, 3, 5, 5, 3, 2, 0, 0), 0, "max_pool 3x3/2"),
        ("avg_pool", PoolGeometry(1, 9, 9, 3, 9, 9, 2, 1, 0, 0), 1, "avg_pool 2x2"),
        ("subsample", SubsampleGeometry(1, 9, 9, 3, 2), 0, "subsample/2"),
        ("batch_norm_training", NormGeometry(1, 9, 9, 3, 1e-5), 4, "batch_norm_training"),
        ("group_norm", GroupNormGeometry(1, 9, 9, 6, 3, 1e-5), 4, "group_norm"),
        ("bias_add", ImageGeometry(1, 9, 9, 3), 1, "bias_add"),
    ],
)
def test_roundings_and_words(op: str, geometry: Geometry, roundings: int, word: str) -> None:
    assert OPS[op].roundings(geometry) == roundings
    assert OPS[op].word(geometry) == word


@pytest.mark.parametrize(
    ("shape", "geometry"),
    [((2, 3, 4, 5), (2, 3, 4, 5)), ((2, 5), (2, 1, 1, 5)), ((5,), (1, 1, 1, 5)), ((2, 3, 5), (2, 3, 1, 5))],
)
def test_fewer_axes_are_images_of_fewer_pixels(shape: tuple[int, ...], geometry: tuple[int, ...]) -> None:
    assert ImageGeometry.of(shape) == geometry
    assert ImageGeometry.of(shape).pixels * shape[-1] == np.prod(shape)
