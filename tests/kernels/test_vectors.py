"""The contract vectors are what the tool writes, and every kernel of the catalog gives their outputs."""

from __future__ import annotations

import numpy as np
import pytest

from refnet_kernels.catalog import rows
from refnet_kernels.contract import norm_scale
from refnet_kernels.conv.tuning import Tuning, forced
from tests.kernels.truth import solve
from tests.kernels.vectors import DTYPES, FILE, problem, read, write
from tests.problems import HOST_ROWS
from tests.support.arrays import assert_same_bits
from tests.support.tunings import EXTREMES
from tools.make_contract_vectors import vectors

VECTORS = read(FILE.read_text())


def test_the_tool_writes_the_file_again() -> None:
    assert FILE.read_text() == write(vectors())


def test_what_is_written_is_read() -> None:
    assert write(read(FILE.read_text())) == FILE.read_text()


def test_every_op_has_vectors() -> None:
    assert {v.op for v in VECTORS if v.format == "binary32"} == {op for op, _ in rows()} | {"norm_scale"}


@pytest.mark.parametrize(("op", "backend"), HOST_ROWS)
def test_vectors(op: str, backend: str) -> None:
    for v in VECTORS:
        if v.op == op:
            case = f"{op} on {backend}, {v.name!r} in {v.format}: "
            found = {case + name: value for name, value in solve(problem(v), backend).items()}
            assert_same_bits(found, {case + name: value for name, value in v.outputs.items()})


@pytest.mark.parametrize("numbers", EXTREMES.values(), ids=EXTREMES)
def test_vectors_by_any_numbers_of_a_machine(numbers: Tuning) -> None:
    with forced(numbers):
        test_vectors("conv", "cpu")


def test_vectors_of_the_scale() -> None:
    for v in VECTORS:
        if v.op == "norm_scale":
            scale = norm_scale(
                v.inputs["variance"], v.inputs.get("gamma"), v.inputs["epsilon"].item(), np.dtype(DTYPES[v.format])
            )
            assert_same_bits({v.name: scale}, {v.name: v.outputs["scale"]})


def test_the_guide_names_all_that_a_vector_holds() -> None:
    guide = (FILE.parent / "contract.md").read_text()
    lines = {line.split("`")[1]: line for line in guide.splitlines() if line.startswith("| `")}
    for v in read(FILE.read_text()):
        for name in (*v.integers, *v.inputs, *v.outputs):
            assert f"`{name}`" in lines[v.op]
