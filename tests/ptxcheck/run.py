"""Run a translated kernel: device memory that is NumPy's, launches in several orders, and errors that say where."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import math
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .parse import Entry, parse
from .translate import (
    ARRAY_BITS,
    SHARED_BITS,
    Translator,
    module_variables,
    parameter_offsets,
    shared_start,
    shared_variables,
)

AnyArray = npt.NDArray[Any]

RUNTIME = Path(__file__).with_name("runtime.h")
FLAGS = ("-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", "-march=native", "-fPIC", "-shared", "-w")
#: Room for the addresses of a module's own variables, which come first.
FIRST_ARRAY = 64
MOST_THREADS = 1024

# In the order of the runtime's enum.
KINDS = (
    "bounds",
    "read only",
    "alignment",
    "race",
    "in flight",
    "uninitialised",
    "barrier",
    "trap",
    "division by zero",
    "endless loop",
    "too many copies in flight",
)


class PtxError(Exception):
    """What the checker found; ``kind`` is one of KINDS, or ``order``."""

    def __init__(self, kind: str, text: str):
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(eq=False)
class DeviceArray:
    """An array and its made-up address in device memory."""

    name: str
    array: AnyArray
    address: int
    writable: bool

    def words(self) -> list[int]:
        """What Numba passes for an array: two pointers of its own, sizes, the address, the shape and the strides."""
        a = self.array
        return [0, 0, a.size, a.itemsize, self.address, *a.shape, *a.strides]


class Memory:
    """Device memory: arrays far from each other, so that no index can lead from one into the next."""

    def __init__(self) -> None:
        self.arrays: list[DeviceArray] = []
        self._numbers = itertools.count(FIRST_ARRAY)

    def put(self, name: str, array: AnyArray, *, writable: bool = False) -> DeviceArray:
        """Lend an array, which a kernel's launch then reads and (where writable) changes."""
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        self.arrays.append(DeviceArray(name, array, next(self._numbers) << ARRAY_BITS, writable))
        return self.arrays[-1]

    def drop(self, array: DeviceArray) -> None:
        """Take an array back."""
        self.arrays.remove(array)


class _Array(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("writable", ctypes.c_uint32))


class _Shared(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("start", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("shadow", ctypes.c_void_p),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("kind", "space", "line", "bytes", "thread", "other", "other_line")),
        ("block", ctypes.c_uint32 * 3),
        ("address", ctypes.c_uint64),
    )


class _Context(ctypes.Structure):
    _fields_ = (
        ("arrays", ctypes.POINTER(_Array)),
        ("array_count", ctypes.c_uint64),
        ("shared", ctypes.POINTER(_Shared)),
        ("shared_count", ctypes.c_uint64),
        ("parameters", ctypes.c_char_p),
        ("ntid", ctypes.c_uint32 * 3),
        ("nctaid", ctypes.c_uint32 * 3),
        ("ctaid", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("interval", ctypes.c_uint32),
        ("problem", _Problem),
        ("doubt", _Problem),
        ("stop", ctypes.c_char * 1024),
    )


def build(source: str, folder: Path) -> ctypes.CDLL:
    """Compile C, or load what was compiled from the same text by the same compiler for the same CPU."""
    target = subprocess.run(["gcc", *FLAGS, "-Q", "--help=target"], capture_output=True, check=True).stdout
    version = subprocess.run(["gcc", "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join([source.encode(), RUNTIME.read_bytes(), target, version])).hexdigest()
    library = folder / f"{key}.so"
    if not library.exists():
        text = folder / f"{key}.c"
        text.write_text(source)
        part = folder / f"{key}.part"
        subprocess.run(["gcc", *FLAGS, f"-I{RUNTIME.parent}", str(text), "-o", str(part), "-lm"], check=True)
        part.replace(library)
    return ctypes.CDLL(str(library))


class PtxKernel:
    """A kernel as the text of its PTX, compiled for this CPU.

    Parameters
    ----------
    ptx
        What ``numba.cuda.compile(..., device=False, abi="numba")`` gives.
    folder
        Where the compiled code is kept.
    name
        What errors call it.

    Raises
    ------
    RefusedError
        The PTX holds something that the checker does not know exactly; the error names the line.
    """

    def __init__(self, ptx: str, folder: Path, name: str = ""):
        self.lines = ptx.split("\n")
        self.entry: Entry = parse(ptx)
        self.name = name or self.entry.name
        self.library = build(Translator(self.entry).c(), folder)
        self.library.thread_bytes.restype = ctypes.c_uint64

    def launch(
        self,
        memory: Memory,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        orders: int = 3,
    ) -> None:
        """Run the grid over the memory, in several orders of its threads and blocks, which must give the same bits.

        Raises
        ------
        PtxError
            With the kind of what was found, the PTX line, the thread and the block.
        """
        grid, block = ((*sizes, 1, 1)[:3] for sizes in (grid, block))
        if math.prod(block) > MOST_THREADS:
            raise ValueError(f"{self.name}: a block of {block}; CUDA knows no more than {MOST_THREADS} threads")
        outputs = [a for a in memory.arrays if a.writable]
        before = [a.array.copy() for a in outputs]
        first: list[AnyArray] = []
        for number in range(orders):
            for output, old in zip(outputs, before, strict=True):
                output.array[...] = old
            self._run(memory, grid, block, self._parameters(arguments), shared_bytes, number)
            found = [a.array.copy() for a in outputs]
            first = first or found
            for output, value, expected in zip(outputs, found, first, strict=True):
                if value.tobytes() != expected.tobytes():
                    text = f"{self.name}: {output.name} has other bits when threads and blocks run in another order"
                    raise PtxError("order", text)

    def _parameters(self, arguments: Sequence[Any]) -> bytes:
        values = list(_flat(arguments))
        if len(values) != len(self.entry.parameters):
            raise ValueError(
                f"{self.name}: {len(self.entry.parameters)} parameters, but {len(values)} values are given"
            )
        packed = bytearray()
        for value, (parameter, at) in zip(values, parameter_offsets(self.entry), strict=True):
            packed += bytes(at - len(packed))
            packed += _bytes(value, parameter.type)
        return bytes(packed)

    def _run(
        self,
        memory: Memory,
        grid: Sequence[int],
        block: Sequence[int],
        parameters: bytes,
        shared_bytes: int,
        order: int,
    ) -> None:
        keep: list[AnyArray] = []

        def zeros(count: int) -> AnyArray:
            keep.append(np.zeros(max(count, 1), np.uint8))
            return keep[-1]

        module = [np.frombuffer(v.data.ljust(v.bytes, b"\0") or b"\0", np.uint8) for v in module_variables(self.entry)]
        arrays = (_Array * max((a.address >> ARRAY_BITS for a in memory.arrays), default=FIRST_ARRAY))()
        for n, data in enumerate(module):
            arrays[n] = _Array(data.ctypes.data, data.nbytes, 0)
        for a in memory.arrays:
            arrays[(a.address >> ARRAY_BITS) - 1] = _Array(a.array.ctypes.data, a.array.nbytes, a.writable)
        variables = shared_variables(self.entry)
        shared = (_Shared * max(len(variables), 1))()
        for n, v in enumerate(variables):
            size = v.bytes or shared_bytes
            pieces = zeros(size), zeros(16 * (size // 4 + 1))
            shared[n] = _Shared(pieces[0].ctypes.data, shared_start(n + 1, v), size, pieces[1].ctypes.data)
        c = _Context(arrays, len(arrays), shared, len(variables), parameters)
        c.ntid[:], c.nctaid[:], c.shared_bytes = tuple(block), tuple(grid), shared_bytes
        count = math.prod(block)
        blocks, threads = _order(math.prod(grid), order), _order(count, order)
        state = zeros(count * self.library.thread_bytes())
        failed = self.library.run(
            ctypes.byref(c),
            ctypes.c_void_p(state.ctypes.data),
            ctypes.c_void_p(blocks.ctypes.data),
            ctypes.c_uint64(len(blocks)),
            ctypes.c_void_p(threads.ctypes.data),
        )
        if failed:
            raise self._error(c.problem, memory, block, shared_bytes)

    def _error(self, problem: _Problem, memory: Memory, block: Sequence[int], shared_bytes: int) -> PtxError:
        def thread(index: int) -> str:
            x, y = index % block[0], index // block[0] % block[1]
            return f"({x}, {y}, {index // block[0] // block[1]})"

        def line(number: int) -> str:
            return f"PTX line {number}: {self.lines[number - 1].strip()}" if number else "the kernel's end"

        kind = KINDS[problem.kind - 1]
        text = f"{self.name}: thread {thread(problem.thread)} of block {tuple(problem.block)} at {line(problem.line)}"
        if problem.space in (1, 2, 3) and kind != "barrier":
            text += f"\n{problem.bytes} bytes {self._place(problem, memory, shared_bytes)}"
        if kind == "race":
            which = "several threads" if problem.other == 2047 else f"thread {thread(problem.other)}"
            text += f"\nsince the last barrier {which} touched it at {line(problem.other_line)}"
        if kind == "in flight":
            text += f"\na copy to it was begun at {line(problem.other_line)} and is not waited for"
        if kind == "barrier":
            text += f"\nwhile thread {thread(problem.other)} is at {line(problem.other_line)}"
        return PtxError(kind, text)

    def _place(self, problem: _Problem, memory: Memory, shared_bytes: int) -> str:
        if problem.space == 3:
            return f"at byte {problem.address} of local memory"
        if problem.space == 2:
            variables = shared_variables(self.entry)
            starts = {v.name: (shared_start(n, v), v.bytes or shared_bytes) for n, v in enumerate(variables, 1)}
            bits = SHARED_BITS
        else:
            starts = {a.name: (a.address, a.array.nbytes) for a in memory.arrays}
            starts |= {v.name: (n << ARRAY_BITS, v.bytes) for n, v in enumerate(module_variables(self.entry), 1)}
            bits = ARRAY_BITS
        name = min(starts, key=lambda n: abs(problem.address - starts[n][0]), default="")
        if not name or abs(problem.address - starts[name][0]) >= 1 << bits:
            return f"at address {problem.address:#x}, which is no array's"
        start, size = starts[name]
        return f"at byte {problem.address - start} of {name}, which has {size}"


def _order(count: int, number: int) -> AnyArray:
    """Ascending, descending, then shuffled."""
    ascending = np.arange(count, dtype=np.uint32)
    if number < 2:
        return np.ascontiguousarray(ascending[:: 1 - 2 * number])
    return np.random.default_rng(number).permutation(ascending)


def _flat(arguments: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for argument in arguments:
        if isinstance(argument, DeviceArray):
            values += argument.words()
        elif isinstance(argument, tuple):
            values += _flat(argument)
        else:
            values.append(argument)
    return values


def _bytes(value: Any, kind: str) -> bytes:
    size = int(kind[1:]) // 8
    if kind[0] == "f":
        return struct.pack({4: "<f", 8: "<d"}[size], value)
    return (int(value) % 256**size).to_bytes(size, "little")
