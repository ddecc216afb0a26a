"""A fault planted in a kernel is found by the tests of exact arithmetic and by the vectors, which name its op.

A fault is a piece of a source file and what stands in its place. Where a kernel is written anew the piece may be gone,
which is an error: choose another that plants the same fault.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import refnet_kernels
from tests.kernels import planted
from tests.problems import HOST_ROWS

PACKAGE = Path(refnet_kernels.__file__).parent
ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """A fault: its name, the row of the catalog that has it, the file below the package, and the change.

    ``in_vectors`` says whether the vectors, too, come to where it is.
    """

    name: str
    op: str
    backend: str
    file: str
    text: str
    fault: str
    in_vectors: bool


def _fault(name: str, row: str, file: str, text: str, fault: str, in_vectors: bool = True) -> Fault:
    op, backend = row.split()
    return Fault(name, op, backend, file, text, fault, in_vectors)


_RUN = "RUN = 64"
_SUM = "total[c] += np.float64(x[c])"
_SUM_BINARY32 = "total[c] = np.float64(np.float32(total[c] + np.float64(x[c])))"

FAULTS = [
    _fault("runs of 32", "conv cpu", "contract.py", _RUN, "RUN = 32"),
    _fault("runs of 128", "conv cpu", "contract.py", _RUN, "RUN = 128"),
    _fault("one chain", "conv cpu", "contract.py", _RUN, "RUN = 4096"),
    _fault(
        "each turn of a run backwards",
        "conv cpu",
        "conv/cpu_kernel.py",
        "s = multiply_add(s, pixels, k, at + k * WIDTH_BYTES)",
        "s = multiply_add(s, pixels, turn - 1 - k, at + (turn - 1 - k) * WIDTH_BYTES)",
    ),
    _fault(
        "the last run is lost",
        "conv cpu",
        "conv/cpu_kernel.py",
        "s = add_tiles(load_tile(scratch, close, element), s)",
        "s = load_tile(scratch, close, element)",
    ),
    _fault(
        "parts of runs left out", "conv cpu", "conv/cpu.py", " and (g.channels if COMPACTS else length) % RUN == 0", ""
    ),
    _fault(
        "zeros left out beside an infinite weight",
        "conv cpu",
        "conv/cpu.py",
        "skips = flags.finite",
        "skips = True",
        in_vectors=False,
    ),
    _fault(
        "NaN left out", "conv cpu", "cpu/tile.py", 'fcmp_unordered("!=", n', 'fcmp_ordered("!=", n', in_vectors=False
    ),
    _fault(
        "not the lowest input that is left",
        "conv cpu",
        "cpu/memory.py",
        "builder.cttz(args[0], ir.IntType(1)(1))",
        "builder.sub(_INT(63), builder.ctlz(args[0], ir.IntType(1)(1)))",
        in_vectors=False,
    ),
    _fault(
        "where zeros are left out, each run is the first",
        "conv cpu",
        "conv/cpu_kernel.py",
        "is_first = False",
        "is_first = True",
        in_vectors=False,
    ),
    _fault(
        "a product rounded on its own",
        "conv cpu",
        "cpu/tile.py",
        "return builder.call(get_or_insert_function(builder.module, function, name), [a, b, c])",
        "return builder.fadd(builder.fmul(a, b), c)",
    ),
    _fault(
        "ReLU before batch norm",
        "conv cpu",
        "conv/cpu_kernel.py",
        "t = normalize(t, step[MEAN]",
        "t = normalize(relu_tile(t), step[MEAN]",
    ),
    _fault(
        "ReLU after the residual",
        "conv cpu",
        "conv/cpu_kernel.py",
        "    if step[OUT] != 0:\n        store_tile(",
        "    if step[RELU] != 0:\n        t = relu_tile(t)\n    if step[OUT] != 0:\n        store_tile(",
    ),
    _fault(
        "ReLU eats NaN",
        "conv cpu",
        "cpu/tile.py",
        'fcmp_ordered("<", v, zero), zero, v)',
        'fcmp_ordered(">", v, zero), v, zero)',
    ),
    _fault(
        "no ReLU after the sum",
        "conv cpu",
        "conv/cpu_kernel.py",
        "        if step[SUM_RELU] != 0:\n            t = relu_tile(t)\n",
        "",
    ),
    _fault("runs of 32", "conv reference", "contract.py", _RUN, "RUN = 32"),
    _fault(
        "channels before taps",
        "conv reference",
        "conv/reference.py",
        "(kh, kw, c) in enumerate(np.ndindex(g.kernel_height, g.kernel_width, g.channels))",
        "(c, kh, kw) in enumerate(np.ndindex(g.channels, g.kernel_height, g.kernel_width))",
    ),
    _fault("a product rounded twice", "conv reference", "exact.py", "np.where(even", "np.where(False & even"),
    _fault(
        "a product rounded on its own",
        "batch_norm cpu",
        "batch_norm/cpu_kernel.py",
        "fma(x[c] - mean[c], scale[c], beta[c])",
        "(x[c] - mean[c]) * scale[c] + beta[c]",
    ),
    _fault(
        "ReLU eats NaN",
        "batch_norm cpu",
        "batch_norm/cpu_kernel.py",
        "element(0) if v < 0 else v",
        "v if v > 0 else element(0)",
    ),
    _fault(
        "ReLU of -0 is +0",
        "batch_norm cpu",
        "batch_norm/cpu_kernel.py",
        "element(0) if v < 0 else v",
        "element(0) if v <= 0 else v",
    ),
    _fault(
        "ReLU of -0 is +0",
        "conv cpu",
        "cpu/tile.py",
        'fcmp_ordered("<", v, zero), zero',
        'fcmp_ordered("<=", v, zero), zero',
    ),
    _fault(
        "ReLU eats NaN",
        "batch_norm reference",
        "batch_norm/reference.py",
        "np.where(t < 0, t.dtype.type(0), t)",
        "np.where(t > 0, t, t.dtype.type(0))",
    ),
    _fault("sum in binary32", "batch_statistics cpu", "batch_norm/cpu_kernel.py", _SUM, _SUM_BINARY32),
    _fault(
        "unbiased variance",
        "batch_statistics cpu",
        "batch_norm/cpu_kernel.py",
        "total[c] / np.float64(pixels) + epsilon",
        "total[c] / np.float64(pixels - 1) + epsilon",
    ),
    _fault(
        "unbiased variance",
        "batch_statistics reference",
        "batch_norm/reference.py",
        "squares / len(pixels)",
        "squares / (len(pixels) - 1)",
    ),
    _fault(
        "the mean rounded before the squares",
        "group_norm cpu",
        "group_norm/cpu_kernel.py",
        "doubles(mean)[i] = average",
        "doubles(mean)[i] = np.float64(np.float32(average))",
    ),
    _fault(
        "the channels backwards",
        "group_norm cpu",
        "group_norm/cpu_kernel.py",
        "+= total[channel",
        "+= total[(2 * group + 1) * group_channels - 1 - channel",
    ),
    _fault(
        "rows of a channel in one sum",
        "group_norm cpu",
        "group_norm/cpu_kernel.py",
        "        row = zero_tile(rows, np.float64)\n",
        "        row, sums = sums, zero_tile(rows, np.float64)\n",
    ),
    _fault(
        "unbiased variance",
        "group_norm cpu",
        "group_norm/cpu_kernel.py",
        "[group] / count + epsilon",
        "[group] / (count - 1) + epsilon",
    ),
    _fault(
        "channels before rows",
        "group_norm reference",
        "group_norm/reference.py",
        "for axis in (2, 1, -1)",
        "for axis in (-1, 1, 1)",
    ),
    _fault(
        "the mean rounded before the squares",
        "group_norm reference",
        "group_norm/reference.py",
        "mean = _sums(grouped) / count",
        "mean = (_sums(grouped) / count).astype(x.dtype)",
    ),
    _fault(
        "columns are not skipped",
        "subsample cpu",
        "subsample/cpu_kernel.py",
        "column * step[FACTOR] * channels",
        "column * channels",
    ),
    _fault(
        "from the last row",
        "subsample reference",
        "subsample/reference.py",
        "x[:, ::factor, ::factor]",
        "x[:, ::-1][:, ::factor, ::factor]",
    ),
    _fault(
        "ReLU before the sum",
        "residual cpu",
        "residual/cpu_kernel.py",
        "out[i] = shortcut[i] + x[i]",
        "out[i] = shortcut[i] + max(x[i], element(0))",
    ),
    _fault("ReLU eats NaN", "residual cpu", "residual/cpu_kernel.py", "0) if v < 0 else v", "0) if not v > 0 else v"),
    _fault("a difference", "residual reference", "residual/reference.py", "t = shortcut + x", "t = shortcut - x"),
    _fault("padding takes part", "max_pool cpu", "max_pool/cpu.py", "else -np.inf", "else 0"),
    _fault("NaN is skipped", "max_pool cpu", "cpu/tile.py", "builder.or_(ordered, nan)", "ordered"),
    _fault("the last of equals stays", "max_pool cpu", "cpu/tile.py", '_choose(left, ">")', '_choose(left, ">=")'),
    _fault("zeros do not take part", "max_pool cpu", "max_pool/cpu.py", "0 if g.zero_padding else ", ""),
    _fault("zeros do not take part", "max_pool reference", "max_pool/reference.py", "or g.zero_padding", ""),
    _fault("padding takes part", "max_pool reference", "max_pool/reference.py", "-np.inf", "0"),
    _fault(
        "windows cut off divide by all",
        "avg_pool cpu",
        "avg_pool/cpu_kernel.py",
        "if step[ZERO_PADDING] != 0 else (bottom - top) * (right - left)",
        "",
    ),
    _fault(
        "sum in binary32",
        "avg_pool cpu",
        "avg_pool/cpu_kernel.py",
        "total[c] += np.float64(pixel[c])",
        "total[c] = np.float64(np.float32(total[c] + np.float64(pixel[c])))",
    ),
    _fault("zeros do not count", "avg_pool reference", "avg_pool/reference.py", " or g.zero_padding", ""),
    _fault("sum in binary32", "mean cpu", "mean/cpu_kernel.py", _SUM, _SUM_BINARY32),
    _fault(
        "sum in binary32",
        "mean reference",
        "mean/reference.py",
        "total + x[:, y, x_].astype(np.float64)",
        "(total + x[:, y, x_]).astype(np.float32)",
    ),
    _fault(
        "exp of the C library",
        "softmax cpu",
        "softmax/cpu_kernel.py",
        "    if x < UNDERFLOW:\n        return 0.0",
        "    if x <= 0:\n        return math.exp(x)",
    ),
    _fault("one coefficient fewer", "softmax cpu", "softmax/__init__.py", "range(13, ", "range(12, "),
    _fault("sum in binary32", "softmax cpu", "softmax/cpu_kernel.py", "+= powers[i]", "+= np.float32(powers[i])"),
    _fault("exp of the C library", "softmax reference", "softmax/reference.py", "0.0, power)", "0.0, np.exp(x))"),
]


def plant(fault: Fault, directory: Path) -> None:
    """A copy of the kernels with the fault."""
    package = directory / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (package / fault.file).read_text()
    assert fault.text in source, f"{fault.file} no longer holds {fault.text!r}"
    (package / fault.file).write_text(source.replace(fault.text, fault.fault))


#: Writes outside the memory, which the guards of ``test_kernels.py`` find in compiled code: what they say.
OUTSIDE = {
    _fault(
        "a column too many", "conv cpu", "cpu/tile.py", "in range(columns):", "in range(columns + 1):"
    ): "out: written past its end",
    _fault(
        "a number before the first",
        "residual cpu",
        "residual/cpu_kernel.py",
        "in range(count):",
        "in range(-1, count):",
    ): "out: written before its beginning",
    _fault(
        "too little scratch memory", "mean cpu", "mean/cpu.py", "BLOCK * 8)", "BLOCK * 8 - 8)"
    ): "scratch: written past its end",
}


class Planted:
    """Runs of pytest with a fault each, by `planted.py`; what each has printed."""

    def __init__(self, runs: dict[Fault, list[list[str]]], directory: Path) -> None:
        self._folders = {fault: directory / str(number) for number, fault in enumerate(runs)}
        for fault, folder in self._folders.items():
            plant(fault, folder)
        self._jobs = json.dumps([(str(self._folders[fault]), each) for fault, each in runs.items()])
        self._done: list[Fault] = []

    def __enter__(self) -> Planted:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "REFNET_CACHE": "off",
            "HYPOTHESIS_PROFILE": "first failure",
        }
        command = [sys.executable, "-m", planted.__name__]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._jobs)
        self._process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.__exit__(None, None, None)

    def output(self, fault: Fault) -> str:
        """What the runs with the fault printed; waits for them."""
        assert self._process.stdout is not None
        while fault not in self._done:
            line = self._process.stdout.readline()
            assert line, "planted.py has ended too early"
            self._done.append(list(self._folders)[int(line)])
        return (self._folders[fault] / planted.OUTPUT).read_text()


def runs_of(fault: Fault) -> list[list[str]]:
    """The tests that must find a fault: those of exact arithmetic, up to the first that does, then the vectors."""
    # Of modules that are there before pytest starts.
    ignore = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options = ["-q", "--tb=line", "-o", "pythonpath=", "-p", "no:cacheprovider", *ignore]
    if fault in OUTSIDE:
        these = f"test_named_problems and [{fault.op}- and not binary64"
        return [[*options, "-x", "-k", these, "tests/kernels/test_kernels.py"]]
    options += ["-k", f"{fault.op} and {fault.backend}"]
    return [[*options, "-x", "tests/kernels/test_exact.py"], [*options, "tests/kernels/test_vectors.py"]]


@pytest.fixture(scope="module")
def planted_faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """The runs of every fault that was asked for."""
    items = [item for item in request.session.items if "planted_faults" in item.fixturenames]
    faults = [item.callspec.params["fault"] for item in items]
    with Planted({fault: runs_of(fault) for fault in faults}, tmp_path_factory.mktemp("faults")) as runs:
        yield runs


def test_every_row_has_a_fault() -> None:
    assert {(fault.op, fault.backend) for fault in FAULTS} == set(HOST_ROWS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.op}-{fault.backend}-{fault.name}")
def test_a_fault_is_found_and_its_op_named(fault: Fault, planted_faults: Planted) -> None:
    output = planted_faults.output(fault)
    row = f"{fault.op} on {fault.backend}, "
    # Wrong bits, not a kernel that no longer compiles.
    assert re.search(rf"{row}.*\] is \S+, exactly ", output), output
    assert re.search(rf"FAILED tests/kernels/test_exact.py::test_\w+\[{fault.op}-.*{fault.backend}\]", output), output
    found = f"FAILED tests/kernels/test_vectors.py::test_vectors[{fault.op}-{fault.backend}]" in output
    assert found == fault.in_vectors, output


@pytest.mark.parametrize("fault", OUTSIDE, ids=lambda fault: f"{fault.op}-{fault.name}")
def test_a_write_outside_is_found_by_the_guards(fault: Fault, planted_faults: Planted) -> None:
    output = planted_faults.output(fault)
    assert OUTSIDE[fault] in output, output
