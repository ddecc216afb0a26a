"""What a kernel costs on a device, as ptxas and nvdisasm tell it where there is none."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.support.needed import missing

#: A multiprocessor has 65,536 registers: two blocks of 256 threads may have 128 each.
REGISTERS_OF_TWO_BLOCKS = 65_536 // (2 * 256)
#: What ptxas allows to static shared memory.
STATIC_SHARED_BYTES = 48 * 1024

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_FLOAT64 = re.compile(r"D(?:ADD|MUL|FMA|SETP|MNMX)\b|.*\bF64\b|MUFU\.R\w+64H")

# The division of integers holds an F2I.FTZ, which is harmless.
_FLUSHES = re.compile(r"(?:F(?!2I)|MUFU)\w*\..*\bFTZ\b")


class Cost(NamedTuple):
    """One kernel, compiled for one architecture."""

    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int
    opcodes: Counter[str]
    hot: Counter[str]
    flushes: bool
    fused: frozenset[str]

    def ffma_share(self) -> float:
        """Of the instructions of the hot loop."""
        return self.hot["FFMA"] / max(1, self.hot.total())

    def float64(self) -> list[str]:
        """Opcodes that compute in binary64."""
        return [opcode for opcode in self.opcodes if _FLOAT64.match(opcode)]

    def has(self, opcode: str, *modifiers: str) -> bool:
        """Whether there is such an instruction: ``has("LDS", "128")``."""
        return any(o.split(".")[0] == opcode and {*modifiers} <= {*o.split(".")} for o in self.opcodes)


class Budget(NamedTuple):
    """What a kernel may cost; nothing may spill, use a stack, or flush subnormals.

    ``fused`` are the fused operations that the contract has. Numba lets NVVM fuse a product with a sum, which the bits
    of a result in binary32 need not show where the sums are in binary64.
    """

    registers: int = REGISTERS_OF_TWO_BLOCKS
    shared_bytes: int = STATIC_SHARED_BYTES
    ffma_share: float = 0
    wide: tuple[str, ...] = ()
    float64: bool = False
    fused: tuple[str, ...] = ("fma.rn.f32",)

    def broken(self, cost: Cost) -> list[str]:
        """What the kernel does not keep to, in words."""
        most = [
            ("registers", cost.registers, self.registers),
            ("bytes of static shared memory", cost.shared_bytes, self.shared_bytes),
            ("bytes spilled", cost.spilled_bytes, 0),
            ("bytes of stack", cost.stack_bytes, 0),
        ]
        words = [f"{found} {what}, more than {allowed}" for what, found, allowed in most if found > allowed]
        if cost.ffma_share() < self.ffma_share:
            words.append(
                f"FFMA is {cost.ffma_share():.1%} of the hot loop, less than {self.ffma_share:.1%}: {cost.hot}"
            )
        words += [f"no {opcode} of 128 bits" for opcode in self.wide if not cost.has(opcode, "128")]
        if cost.float64() and not self.float64:
            words.append(f"binary64: {', '.join(cost.float64())}")
        if cost.fused != {*self.fused}:
            words.append(f"fused in PTX: {', '.join(sorted(cost.fused)) or 'nothing'}; in the contract: {self.fused}")
        if cost.flushes:
            words.append("subnormals are flushed to zero")
        return words


def tool(name: str) -> Path:
    """Where a program of the CUDA toolkit is. In CI it must be there; elsewhere the test is skipped without it."""
    spec = importlib.util.find_spec("nvidia")
    folders = [f"{folder}/cu13/bin" for folder in (spec.submodule_search_locations if spec else None) or ()]
    found = shutil.which(name, path=os.pathsep.join(folders)) or shutil.which(name)
    if not found:
        missing(f"{name} is missing: python -m pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm")
    return Path(found)


def cost(ptx: str, cc: tuple[int, int]) -> Cost:
    """Assemble PTX for an architecture and read what came out."""
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        text.write_text(ptx)
        said = _run(tool("ptxas"), "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(text), "-o", str(binary))
        sass = _run(tool("nvdisasm"), "-c", str(binary))

    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, said))

    instructions = _instructions(sass)
    return Cost(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes spill"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes smem"),
        Counter(opcode for opcode, _ in instructions.values()),
        _hot(instructions),
        ".ftz" in ptx or any(_FLUSHES.match(opcode) for opcode, _ in instructions.values()),
        frozenset(re.findall(r"\b(?:fma|mad)(?:\.\w+)*\.f\d\d\b", ptx)),
    )


def _run(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program.name} {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _instructions(sass: str) -> dict[int, tuple[str, int | None]]:
    """For each address the opcode, and for a branch its target's address."""
    found: dict[int, tuple[str, str]] = {}
    labels: dict[str, int] = {}
    waiting: list[str] = []
    for line in sass.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            waiting.append(label[1])
        elif match := _INSTRUCTION.search(line):
            address = int(match[1], 16)
            labels |= dict.fromkeys(waiting, address)
            waiting = []
            found[address] = (match[2], match[3])

    def target(opcode: str, operands: str) -> int | None:
        label = re.search(r"\.L_\w+", operands)
        return labels.get(label[0]) if label and opcode.split(".")[0] == "BRA" else None

    return {address: (opcode, target(opcode, operands)) for address, (opcode, operands) in found.items()}


def _hot(instructions: dict[int, tuple[str, int | None]]) -> Counter[str]:
    """The opcodes of the innermost loop with the most FFMA; of the whole kernel where no loop has one."""
    loops = [(to, at) for at, (_, to) in instructions.items() if to is not None and to < at]
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    bodies = [Counter(o for at, (o, _) in instructions.items() if first <= at <= last) for first, last in inner]
    whole = Counter(opcode for opcode, _ in instructions.values())
    return max((body for body in bodies if body["FFMA"]), key=lambda body: body["FFMA"], default=whole)
