"""The contract vectors, ``docs/contract-vectors-1.txt``: their text, and each of them as a problem for a kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.contract import CONTRACT_VERSION
from tests.exact.arithmetic import BINARY32, BINARY64, Format
from tests.problems import PROBLEMS, Problem
from tests.support.arrays import Arrays

FORMAT_VERSION = 1
FILE = Path(__file__).parents[2] / "docs" / f"contract-vectors-{FORMAT_VERSION}.txt"
HEAD = f"""\
# Inputs and outputs of every op of refnet's arithmetic contract; docs/contract.md says how to read them.
# Made in exact arithmetic by: python tools/make_contract_vectors.py
vectors {FORMAT_VERSION}
contract {CONTRACT_VERSION}
"""
FORMATS = {"binary32": BINARY32, "binary64": BINARY64}
DTYPES: dict[str, Any] = {"binary32": np.float32, "binary64": np.float64}
#: Of the bits, big-endian and as a number.
_CODES = {"binary32": ("f", "I"), "binary64": ("d", "Q")}


class Vector(NamedTuple):
    """One case: an op's integers, its inputs, and what comes out. ``format`` is the name of the numbers' format."""

    op: str
    name: str
    format: str
    integers: dict[str, int]
    inputs: Arrays
    outputs: Arrays

    @property
    def numbers(self) -> Format:
        return FORMATS[self.format]


def _lines(kind: str, name: str, array: np.ndarray) -> Iterator[str]:
    """A head line, then lines of at most 12 numbers, each as the digits of its bits."""
    yield " ".join(map(str, [kind, array.dtype.name.replace("float", "binary"), name, array.ndim, *array.shape]))
    digits = 2 * array.itemsize
    # One NaN for all.
    bits = np.where(np.isnan(array), array.dtype.type(np.nan), array).ravel().view(f"u{array.itemsize}")
    words = [f"{word:0{digits}x}" for word in bits.tolist()]
    for first in range(0, len(words), 12):
        yield " ".join(words[first : first + 12])


def write(vectors: list[Vector]) -> str:
    """The text of the file."""
    lines = []
    for v in vectors:
        lines += ["", f"case {v.op} {v.name} {v.format}"]
        integers = [f"{name} {value}" for name, value in v.integers.items()]
        lines.append(" ".join(["integers", str(len(integers)), *integers]))
        for kind, arrays in (("input", v.inputs), ("output", v.outputs)):
            for name, array in arrays.items():
                lines += _lines(kind, name, array)
        lines.append("end")
    return HEAD + "\n".join(lines) + "\n"


def _read_array(words: Iterator[str]) -> tuple[str, np.ndarray]:
    kind, name, rank = next(words), next(words), int(next(words))
    shape = tuple(int(next(words)) for _ in range(rank))
    number, bits = _CODES[kind]
    values = [struct.unpack(number, struct.pack(bits, int(next(words), 16)))[0] for _ in range(int(np.prod(shape)))]
    return name, np.array(values, DTYPES[kind]).reshape(shape)


def read(text: str) -> list[Vector]:
    """The cases of the file."""
    words = iter(" ".join(line for line in text.splitlines() if not line.startswith("#")).split())
    versions = [next(words) for _ in range(4)]
    assert versions == ["vectors", str(FORMAT_VERSION), "contract", str(CONTRACT_VERSION)], versions
    vectors = []
    for word in words:
        if word == "case":
            vectors.append(Vector(next(words), next(words), next(words), {}, {}, {}))
        elif word == "integers":
            for _ in range(int(next(words))):
                name = next(words)
                vectors[-1].integers[name] = int(next(words))
        elif word != "end":
            name, array = _read_array(words)
            (vectors[-1].inputs if word == "input" else vectors[-1].outputs)[name] = array
    return vectors


def problem(v: Vector) -> Problem:
    """A case as its op's problem."""
    return PROBLEMS[v.op].from_vector(v.name, v.integers, v.inputs)
