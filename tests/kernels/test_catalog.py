"""The one list of kernels."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from refnet_kernels.catalog import BACKENDS, rows, select


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
