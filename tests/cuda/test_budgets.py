"""Every CUDA kernel keeps to its budget, on an A100 (sm_80) and an H100 (sm_90).

``python -m tests.cuda.test_budgets`` prints what each costs, for whoever changes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import refnet_kernels
from refnet_kernels.conv.cuda_kernel import conv_kernel
from refnet_kernels.conv.cuda_tile import TILES
from refnet_kernels.gpu.launch import SHARED_BYTES, CudaKernel
from tests.cuda.budget import Budget, cost
from tests.cuda.checked_device import text
from tests.ptxcheck.compiling import mutant

ARCHITECTURES = [(8, 0), (9, 0)]
#: Of a multiprocessor; shared memory is that of an H100, of which a block takes 1 KB more than its own.
REGISTERS, SHARED = 65_536, 228 * 1024

#: Four numbers of memory, of shared memory, and of both ways are one instruction.
VECTORS = ("LDG", "STG")
TILE = (*VECTORS, "LDS", "STS", "LDGSTS")
#: Sums in binary64, in which the contract fuses nothing.
SUMS = Budget(float64=True, fused=())
#: Its shared memory is the launch's.
CONV = Budget(wide=TILE, shared_bytes=0)

#: What each kernel may cost. Its registers are left to its launch, which says how many blocks must fit. The share of
#: FFMA is what the hot loop has, rounded down: less would mean that each product got dearer.
BUDGETS = {
    "avg_pool": SUMS._replace(wide=VECTORS, shared_bytes=0),
    "batch_norm": Budget(wide=VECTORS, shared_bytes=0),
    "batch_statistics": SUMS._replace(shared_bytes=0),
    "group_norm": SUMS._replace(shared_bytes=256 * 8, fused=("fma.rn.f32",)),
    "max_pool": Budget(wide=VECTORS, shared_bytes=0),
    "mean": SUMS._replace(shared_bytes=0),
    "residual": Budget(wide=VECTORS, shared_bytes=0, fused=()),
    # A binary64 number per thread.
    "softmax": SUMS._replace(shared_bytes=128 * 8),
    "subsample": Budget(wide=VECTORS, shared_bytes=0, fused=()),
    "conv 32 x 128, vectors": CONV._replace(ffma_share=0.84),
    "conv 16 x 64, vectors": CONV._replace(ffma_share=0.77),
    "conv 32 x 64, vectors": CONV._replace(ffma_share=0.81),
    "conv 16 x 32, vectors": CONV._replace(ffma_share=0.75),
    "conv 64 x 64, numbers": CONV._replace(ffma_share=0.81),
}


def kernels() -> Iterator[tuple[str, CudaKernel]]:
    """Every kernel that there is, with the name of its budget."""
    for path in sorted(Path(str(refnet_kernels.__file__)).parent.glob("*/cuda_kernel.py")):
        module = import_module(f"refnet_kernels.{path.parent.name}.cuda_kernel")
        for value in vars(module).values():
            if isinstance(value, CudaKernel):
                yield value.function.__name__.removesuffix("_kernel"), value
    for tile in TILES:
        yield f"conv {tile.name}", conv_kernel(tile)


KERNELS = dict(kernels())


def broken(name: str, kernel: CudaKernel, cc: tuple[int, int]) -> list[str]:
    # A thread can name 255 registers.
    registers = min(255, REGISTERS // (kernel.threads * kernel.blocks))
    return BUDGETS[name]._replace(registers=registers).broken(cost(text(kernel, cc), cc))


def test_shared_memory_is_enough_for_the_blocks_of_a_multiprocessor() -> None:
    for name, kernel in KERNELS.items():
        assert kernel.shared_bytes <= SHARED_BYTES, name
        assert kernel.blocks * (kernel.shared_bytes + 1024) <= SHARED, name


def test_every_kernel_has_a_budget() -> None:
    assert set(KERNELS) == set(BUDGETS)


@pytest.mark.parametrize("cc", ARCHITECTURES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_keep_to_their_budgets(name: str, cc: tuple[int, int]) -> None:
    assert broken(name, KERNELS[name], cc) == []


@pytest.mark.parametrize(
    ("op", "name", "old", "new", "words"),
    [
        # Of these two the bits of the result need not show anything.
        ("softmax", "softmax", "multiply(p, r) + coefficient", "p * r + coefficient", "fused in PTX: fma.rn.f64"),
        ("batch_norm", "batch_statistics", "squares += multiply(deviation, deviation)",
         "squares += deviation * deviation", "fused in PTX: fma.rn.f64"),
        ("group_norm", "group_norm", "row += multiply(value - mean, value - mean)",
         "row += (value - mean) * (value - mean)", "fused in PTX: fma.rn.f32, fma.rn.f64"),
        ("max_pool", "max_pool", "lowest = np.float32(-np.inf)", "lowest = -np.inf", "binary64: "),
    ],
    ids=["softmax fused", "squares fused", "squares of groups fused", "float64"],
)  # fmt: skip
def test_mutants_are_over_budget(op: str, name: str, old: str, new: str, words: str) -> None:
    changed = mutant(import_module(f"refnet_kernels.{op}.cuda_kernel"), old, new)
    found = broken(name, getattr(changed, name.upper()), (8, 0))
    assert any(words in text for text in found), found


if __name__ == "__main__":
    for name, kernel in KERNELS.items():
        for cc in ARCHITECTURES:
            found = cost(text(kernel, cc), cc)
            shared = found.shared_bytes + kernel.shared_bytes
            line = f"{name:24} sm_{cc[0]}{cc[1]} {found.registers:4} registers, {shared:6} bytes shared"
            print(f"{line}, {found.spilled_bytes} spilled, {found.stack_bytes} stack, FFMA {found.ffma_share():.1%}")
