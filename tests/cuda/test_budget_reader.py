"""Costs are read right, and a kernel over its budget is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda import budget
from tests.cuda.budget import Budget, cost
from tests.ptxcheck import samples
from tests.ptxcheck.compiling import mutant, ptx

ARCHITECTURES = [(8, 0), (9, 0)]
TIGHT = Budget(wide=("LDS", "LDG"), ffma_share=0.3)


def gemm(cc: tuple[int, int], **options: object) -> budget.Cost:
    return cost(ptx(samples.gemm, samples.SIGNATURES["gemm"], cc, **options), cc)


@pytest.mark.parametrize("cc", ARCHITECTURES, ids=str)
def test_a_sample_within_its_budget(cc: tuple[int, int]) -> None:
    found = gemm(cc, launch_bounds=(256, 2))
    assert TIGHT.broken(found) == []
    # Two tiles of 64 x 16 floats, and sixteen outputs a thread, each with a sum; the multiplications are fused.
    assert found.shared_bytes == 2 * 64 * 16 * 4
    assert found.registers > 16
    assert found.hot["FFMA"] % 16 == 0
    assert not found.has("FMUL")


@pytest.mark.parametrize("cc", ARCHITECTURES, ids=str)
def test_copies_that_bypass_the_registers_are_seen(cc: tuple[int, int]) -> None:
    found = cost(ptx(samples.weighted_sum, samples.SIGNATURES["weighted_sum"], cc), cc)
    assert found.has("LDGSTS", "128")
    assert not found.has("LDGSTS", "64")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("gemm", "array((4, 4), float32)", "array((4, 4), float64)", "binary64: "),
        ("gemm", "align=16)", "align=4)", "no LDG of 128 bits"),
        ("gemm", "TILE_FLOATS = DEPTH * TILE", "TILE_FLOATS = 5000", "40000 bytes of static shared memory, more than"),
        ("copy", "out[i] = x[i]\n\n", "out[i] = x[i] * x[i] + x[i]\n\n", "fused in PTX: fma.rn.f32; in"),
        ("copy", "out[i] = x[i]\n\n", "kept = cuda.local.array(400, float32)\n        for n in range(size):\n"
         "            kept[n] = x[n]\n        out[i] = kept[i]\n\n", "1600 bytes of stack"),
    ],
    ids=["float64", "scalar loads", "shared memory", "fused", "stack"],
)  # fmt: skip
def test_mutants_are_over_budget(name: str, old: str, new: str, words: str) -> None:
    module = mutant(samples, old, new)
    allowed = TIGHT if name == "gemm" else Budget(fused=())
    broken = allowed._replace(shared_bytes=32768).broken(
        cost(ptx(getattr(module, name), samples.SIGNATURES[name]), (8, 0))
    )
    assert any(words in text for text in broken), broken


def test_spills_and_registers_are_seen() -> None:
    found = gemm((9, 0), launch_bounds=(1024, 2))
    assert found.registers <= 32
    assert any("bytes spilled" in text for text in Budget().broken(found))
    assert Budget(registers=20).broken(gemm((9, 0))) != []


def test_too_few_fused_products_in_the_hot_loop() -> None:
    found = gemm((8, 0))
    (text,) = Budget(ffma_share=found.ffma_share() + 1e-6).broken(found)
    assert "of the hot loop, less than" in text


def test_in_ci_a_missing_tool_is_a_failure_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="ptxas is missing: python -m pip install nvidia-cuda-nvcc"):
        budget.tool("ptxas")
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception, match="ptxas is missing"):
        budget.tool("ptxas")
