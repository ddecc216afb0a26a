"""The implementation in C of ``docs/check_vectors.c`` gives the contract vectors, and they find a fault in each op."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernels.vectors import FILE

SOURCE = FILE.parent / "check_vectors.c"
FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")


def check(directory: Path, source: str, *flags: str) -> tuple[int, str]:
    """Build the program and run it on the vectors: its exit status and what it prints."""
    (directory / "check.c").write_text(source)
    build = ["gcc", *FLAGS, *flags, "check.c", "-o", "check", "-lm"]
    subprocess.run(build, cwd=directory, check=True, timeout=60)
    with FILE.open() as vectors:
        run = subprocess.run(directory / "check", stdin=vectors, stdout=subprocess.PIPE, text=True, timeout=60)
    return run.returncode, run.stdout


@pytest.mark.parametrize("optimisation", ["-O0", "-O3"])
@pytest.mark.parametrize("format_", ["binary32", "binary64"])
def test_c_gives_the_vectors(tmp_path: Path, format_: str, optimisation: str) -> None:
    flags = [optimisation, *(["-DDOUBLE"] if format_ == "binary64" else [])]
    cases = sum(line.startswith("case ") and line.endswith(format_) for line in FILE.read_text().splitlines())
    assert check(tmp_path, SOURCE.read_text(), *flags) == (0, f"{cases} cases in {format_}, 0 wrong\n")


INCLUDE = "#include <tgmath.h>"
#: A fault's name, the op that it is in, the text that it replaces, and its own.
FAULTS = [
    ("runs of 32", "conv", "k % 64", "k % 32"),
    ("runs of 128", "conv", "k % 64", "k % 128"),
    ("the last run is lost", "conv", "if (k % 64 != 0) t = t + s;", ""),
    (
        "taps outside the image are left out",
        "conv",
        "c < channels; c++) {\n                    real v",
        "inside && c < channels; c++) {\n                    real v",
    ),
    ("residual before ReLU", "conv", "(real)shortcut[i] + t", "relu((real)shortcut[i] + t)"),
    (
        "products and sums in binary64",
        "conv",
        INCLUDE,
        f"{INCLUDE}\n#undef fma\n#define fma(a, b, c) ((double)(a) * (b) + (c))",
    ),
    (
        "a product rounded on its own",
        "batch_norm",
        "return fma((real)(t - mean), scale, ",
        "return ((t - mean) * scale + ",
    ),
    ("ReLU eats NaN", "batch_norm", "return t < 0 ? 0 : t", "return t > 0 ? t : 0"),
    ("ReLU of -0 is +0", "batch_norm", "return t < 0 ? 0 : t", "return t <= 0 ? 0 : t"),
    (
        "an absent shortcut added as 0",
        "conv",
        "if (shortcut) t = (real)shortcut[i]",
        "t = (shortcut ? (real)shortcut[i] : 0)",
    ),
    ("scale in the format", "norm_scale", "sqrt(variance + *values", "sqrt((real)variance + (real)*values"),
    ("unbiased variance", "batch_statistics", "squares / count", "squares / (count - 1)"),
    ("unbiased variance", "group_norm", "squares / count, values", "squares / (count - 1), values"),
    ("a channel in one sum", "group_norm", "double row = 0;", "double row = sum;\n        sum = 0;"),
    (
        "rows in one sum",
        "group_norm",
        "sum = sum + channel_sum(x + c, height, width",
        "sum = sum + channel_sum(x + c, 1, height * width",
    ),
    ("sum in the format", "group_norm", "double row = 0;", "real row = 0;"),
    ("padding takes part", "max_pool", "real m = -INFINITY", "real m = 0"),
    ("zeros do not take part", "max_pool", 'if (!inside && !integer("zero_padding"))', "if (!inside)"),
    ("NaN is skipped", "max_pool", "|| v != v", ""),
    ("the last of equals stays", "max_pool", "v > m ||", "v >= m ||"),
    ("starts at the second pixel", "subsample", "% out_width * factor;", "% out_width * factor + 1;"),
    ("no ReLU after the sum", "conv", 'if (flag("sum_relu")) t = relu(t);', ""),
    ("a difference", "residual", "+ (real)values", "- (real)values"),
    ("no ReLU", "residual", 'flag("relu") ? relu(t) : t', "t"),
    ("sum in the format", "mean", "double sum = 0;\n        for (long pixel", "real sum = 0;\n        for (long pixel"),
    ("windows cut off divide by all", "avg_pool", 'if (inside || integer("zero_padding")) count++;', "count++;"),
    ("sum in the format", "avg_pool", "double sum = 0;\n        for (long row", "real sum = 0;\n        for (long row"),
    ("exp of the C library", "softmax", "if (d < -708) return 0;", "if (d <= 0) return exp(d);"),
    ("fma in exp", "softmax", "p = p * r + a[n]", "p = fma(p, r, a[n])"),
]


@pytest.mark.parametrize(("op", "text", "fault"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_fault_is_found_in_its_op(tmp_path: Path, op: str, text: str, fault: str) -> None:
    source = SOURCE.read_text()
    assert source.count(text) >= 1, text
    status, output = check(tmp_path, source.replace(text, fault), "-Wno-unused")
    assert status == 1
    assert f"WRONG {op} " in output


def test_fast_math_is_found(tmp_path: Path) -> None:
    status, output = check(tmp_path, SOURCE.read_text(), "-O2", "-ffast-math")
    assert status == 1
    assert "WRONG conv " in output
