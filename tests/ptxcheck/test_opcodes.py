"""Each opcode that the checker knows does what PTX says, on edge cases and random numbers; others are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet_kernels.exact import fma
from tests.ptxcheck import Memory, PtxError, PtxKernel, RefusedError

KINDS = {"s": "int", "u": "uint", "b": "uint", "f": "float"}
NUMPY = {f"{kind}{bits}": np.dtype(f"{name}{bits}") for kind, name in KINDS.items() for bits in (16, 32, 64)}
INTEGERS = [
    0,
    1,
    2,
    3,
    5,
    7,
    31,
    32,
    33,
    63,
    64,
    65,
    255,
    -1,
    -2,
    -7,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63 - 1,
    -(2**63),
]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.5, 2.5, -2.5, 1e-45, 3e-39, 1e10, -1e10, 1e20, -1e20, 3.4e38, math.inf, -math.inf,
          math.nan, 2147483647.0, 2147483648.0, 0.1]  # fmt: skip


def source(body: str, kinds: list[str], result: str, module: str = "") -> str:
    """A kernel of one block per element: operands from arrays to %a, %b ..., the result %o to the last array."""
    names = "abcd"[: len(kinds)]
    registers = "".join(
        f".reg .{k if k[0] == 'f' else 'b' + k[1:]} %{n};\n"
        for n, k in zip([*names, "o"], [*kinds, result], strict=True)
    )
    loads = "".join(
        f"ld.param.u64 %p, [p_{n}];\nmad.lo.u64 %p, %i, {NUMPY[k].itemsize}, %p;\nld.global.{k} %{n}, [%p];\n"
        for n, k in zip(names, kinds, strict=True)
    )
    parameters = ", ".join(f".param .u64 p_{n}" for n in [*names, "o"])
    return f"""
.version 9.0
.target sm_80
.address_size 64
{module}
.visible .entry test({parameters})
{{
.reg .b32 %t; .reg .b64 %i, %p; .reg .pred %q<4>; .reg .b32 %x<4>; .reg .b64 %y<4>;
{registers}
mov.u32 %t, %ctaid.x;
cvt.u64.u32 %i, %t;
{loads}
{body}
ld.param.u64 %p, [p_o];
mad.lo.u64 %p, %i, {NUMPY[result].itemsize}, %p;
st.global.{result} [%p], %o;
ret;
}}
"""


def evaluate(
    body: str, operands: list[np.ndarray], kinds: list[str], result: str, built: Path, module: str = ""
) -> np.ndarray:
    kernel = PtxKernel(source(body, kinds, result, module), built, body)
    memory = Memory()
    out = np.zeros(len(operands[0]), NUMPY[result])
    lent = [memory.put(f"operand {n}", a) for n, a in enumerate(operands)]
    lent.append(memory.put("out", out, writable=True))
    kernel.launch(memory, (len(out),), (1,), [a.address for a in lent], shared_bytes=8, orders=1)
    return out


def values(kind: str, count: int, seed: int) -> np.ndarray:
    """Edge cases in random combinations, then random numbers."""
    rng = np.random.default_rng(seed)
    dtype = NUMPY[kind]
    with np.errstate(over="ignore"):
        if kind[0] == "f":
            edges = np.array(FLOATS, dtype)
            random = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 7, count)).astype(dtype)
        else:
            edges = np.array([v % 2**64 for v in INTEGERS], np.uint64).astype(dtype)
            random = rng.integers(0, 2**64, count, np.uint64).astype(dtype)
    return np.where(rng.random(count) < 0.7, edges[rng.integers(0, len(edges), count)], random)


def same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    unsigned = f"u{found.itemsize}"
    kept = ~np.isnan(found)
    np.testing.assert_array_equal(found.view(unsigned)[kept], expected.view(unsigned)[kept])


def wrap(kind: str, value: int) -> int:
    bits = int(kind[1:])
    value %= 2**bits
    return value - 2**bits if kind[0] == "s" and value >= 2 ** (bits - 1) else value


def shift_right(kind: str) -> Callable[[int, int], int]:
    return lambda a, b: wrap(kind, a >> min(b, int(kind[1:])))


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


#: Opcode; the operands' and the result's types; the truth in Python's integers.
INTEGER_OPS: list[tuple[str, str, Callable[..., int]]] = [
    *((f"add.{k}", f"{k} {k} {k}", lambda a, b: a + b) for k in ("s16", "s32", "u32", "s64", "u64")),
    *((f"sub.{k}", f"{k} {k} {k}", lambda a, b: a - b) for k in ("s16", "s32", "s64")),
    *((f"mul.lo.{k}", f"{k} {k} {k}", lambda a, b: a * b) for k in ("s16", "u16", "s32", "u64", "s64")),
    *((f"mul.hi.{k}", f"{k} {k} {k}", lambda a, b, n=int(k[1:]): (a * b) >> n) for k in ("s32", "u32", "s64", "u64")),
    *((f"mul.wide.{k}", f"{k} {k} {k[0]}{2 * int(k[1:])}", lambda a, b: a * b) for k in ("s16", "u16", "s32", "u32")),
    *((f"mad.lo.{k}", f"{k} {k} {k} {k}", lambda a, b, c: a * b + c) for k in ("s32", "u64")),
    ("mad.wide.s32", "s32 s32 s64 s64", lambda a, b, c: a * b + c),
    ("mad.wide.u32", "u32 u32 u64 u64", lambda a, b, c: a * b + c),
    *((f"neg.{k}", f"{k} {k}", lambda a: -a) for k in ("s32", "s64")),
    *((f"abs.{k}", f"{k} {k}", abs) for k in ("s32", "s64")),
    *((f"min.{k}", f"{k} {k} {k}", min) for k in ("s32", "u32", "s64", "u64")),
    *((f"max.{k}", f"{k} {k} {k}", max) for k in ("s32", "u32", "s64", "u64")),
    *((f"and.{k}", f"{k} {k} {k}", lambda a, b: a & b) for k in ("b16", "b32", "b64")),
    *((f"or.{k}", f"{k} {k} {k}", lambda a, b: a | b) for k in ("b32", "b64")),
    *((f"xor.{k}", f"{k} {k} {k}", lambda a, b: a ^ b) for k in ("b32", "b64")),
    *((f"not.{k}", f"{k} {k}", lambda a: ~a) for k in ("b32", "b64")),
    *((f"shl.{k}", f"{k} u32 {k}", lambda a, b: a << min(b, 64)) for k in ("b16", "b32", "b64")),
    *((f"shr.{k}", f"{k} u32 {k}", shift_right(k)) for k in ("s16", "s32", "u32", "b32", "s64", "u64")),
    *((f"div.{k}", f"{k} {k} {k}", truncated) for k in ("s32", "u32", "s64", "u64")),
    *((f"rem.{k}", f"{k} {k} {k}", lambda a, b: a - b * truncated(a, b)) for k in ("s32", "u32", "s64", "u64")),
    *((f"cvt.{to}.{k}", f"{k} {to}", lambda a: a)
      for to, k in (("s64", "s32"), ("u64", "u32"), ("u32", "u64"), ("s16", "s64"), ("s32", "u16"), ("u32", "s16"))),
    ("bfe.u32", "u32 u32 u32 u32", lambda a, b, c: (a >> min(b, 32)) & (2 ** min(c, 32) - 1)),
    ("bfi.b32", "b32 b32 u32 u32 b32", lambda a, b, c, d:
        (b & ~((2 ** min(d, 32) - 1) << min(c, 32))) | ((a << min(c, 32)) & ((2 ** min(d, 32) - 1) << min(c, 32)))),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "types", "truth"), INTEGER_OPS, ids=[op for op, _, _ in INTEGER_OPS])
def test_integers(opcode: str, types: str, truth: Callable[..., int], built: Path) -> None:
    *kinds, result = types.split()
    operands = [values(kind, 300, n) for n, kind in enumerate(kinds)]
    if opcode.startswith(("div", "rem")):
        operands[1][operands[1] == 0] = 3
    names = ", ".join(f"%{n}" for n in "abcd"[: len(kinds)])
    found = evaluate(f"{opcode} %o, {names};", operands, kinds, result, built)
    expected = [wrap(result, truth(*(int(v) for v in row))) for row in zip(*operands, strict=True)]
    assert found.tolist() == expected


def smaller(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min(a, b, key=lambda v: (v, math.copysign(1, v)))


def elementwise(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda *arrays: np.array([function(*row) for row in zip(*arrays, strict=True)], arrays[0].dtype)


def to_integer(kind: str, rounded: Callable[[float], int]) -> Callable[..., np.ndarray]:
    bits = int(kind[1:])
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "s" else (0, 2**bits - 1)

    def convert(x: float) -> int:
        if math.isnan(x):
            return wrap(kind, 0 if bits == 32 else 2**63)
        return least if x <= least else most if x >= most else min(max(rounded(x), least), most)

    return lambda a: np.array([convert(float(x)) for x in a], NUMPY[kind])


FLOAT_OPS: list[tuple[str, str, Callable[..., np.ndarray]]] = [
    ("fma.rn.f32", "f32 f32 f32 f32", fma),
    *((f"add.{r}f{n}", f"f{n} f{n} f{n}", np.add) for r in ("", "rn.") for n in (32, 64)),
    *((f"sub.{r}f{n}", f"f{n} f{n} f{n}", np.subtract) for r in ("", "rn.") for n in (32, 64)),
    *((f"mul.rn.f{n}", f"f{n} f{n} f{n}", np.multiply) for n in (32, 64)),
    *((f"div.rn.f{n}", f"f{n} f{n} f{n}", np.divide) for n in (32, 64)),
    *((f"sqrt.rn.f{n}", f"f{n} f{n}", np.sqrt) for n in (32, 64)),
    *((f"rcp.rn.f{n}", f"f{n} f{n}", np.reciprocal) for n in (32, 64)),
    *((f"neg.f{n}", f"f{n} f{n}", np.negative) for n in (32, 64)),
    *((f"abs.f{n}", f"f{n} f{n}", np.abs) for n in (32, 64)),
    *((f"min.f{n}", f"f{n} f{n} f{n}", elementwise(smaller)) for n in (32, 64)),
    *((f"max.f{n}", f"f{n} f{n} f{n}", elementwise(lambda a, b: -smaller(-a, -b))) for n in (32, 64)),
    ("cvt.f64.f32", "f32 f64", lambda a: a.astype(np.float64)),
    ("cvt.rn.f32.f64", "f64 f32", lambda a: a.astype(np.float32)),
    ("cvt.rn.f32.s32", "s32 f32", lambda a: a.astype(np.float32)),
    ("cvt.rn.f32.u64", "u64 f32", lambda a: a.astype(np.float32)),
    ("cvt.rn.f64.s64", "s64 f64", lambda a: a.astype(np.float64)),
    ("cvt.rmi.f64.f64", "f64 f64", np.floor),
    ("cvt.rpi.f32.f32", "f32 f32", np.ceil),
    ("cvt.rzi.f32.f32", "f32 f32", np.trunc),
    ("cvt.rni.f64.f64", "f64 f64", np.rint),
    *((f"cvt.rzi.{k}.f32", f"f32 {k}", to_integer(k, math.trunc)) for k in ("s32", "u32", "s64", "u64")),
    *((f"cvt.rmi.{k}.f64", f"f64 {k}", to_integer(k, math.floor)) for k in ("s32", "s64")),
    ("cvt.rni.s32.f32", "f32 s32", to_integer("s32", round)),
]


@pytest.mark.parametrize(("opcode", "types", "truth"), FLOAT_OPS, ids=[op for op, _, _ in FLOAT_OPS])
def test_floats(opcode: str, types: str, truth: Callable[..., np.ndarray], built: Path) -> None:
    *kinds, result = types.split()
    operands = [values(kind, 500, n) for n, kind in enumerate(kinds)]
    names = ", ".join(f"%{n}" for n in "abc"[: len(kinds)])
    found = evaluate(f"{opcode} %o, {names};", operands, kinds, result, built)
    with np.errstate(all="ignore"):
        same_bits(found, truth(*operands))


def test_fma_in_binary64_rounds_once(built: Path) -> None:
    a, b, c = (values("f64", 500, n) for n in range(3))
    found = evaluate("fma.rn.f64 %o, %a, %b, %c;", [a, b, c], ["f64"] * 3, "f64", built)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    exact = [
        float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(*(v[finite] for v in (a, b, c)), strict=True)
    ]
    assert found[finite].tolist() == exact


COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("name", COMPARE)
def test_comparisons_of_floats(name: str, unordered: bool, built: Path) -> None:
    a, b = values("f32", 500, 1), values("f32", 500, 2)
    body = f"setp.{name}{'u' if unordered else ''}.f32 %q1, %a, %b;\nselp.u32 %o, 1, 0, %q1;"
    nan = np.isnan(a) | np.isnan(b)
    truth = {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[COMPARE[name]]
    expected = np.where(nan, unordered, truth)
    np.testing.assert_array_equal(evaluate(body, [a, b], ["f32", "f32"], "u32", built), expected)


@pytest.mark.parametrize(("name", "kind"), [("lt", "s32"), ("lt", "u32"), ("lo", "u32"), ("hs", "u64"), ("ne", "s64")])
def test_comparisons_of_integers(name: str, kind: str, built: Path) -> None:
    a, b = values(kind, 500, 1), values(kind, 500, 2)
    body = f"setp.{name}.{kind} %q1, %a, %b;\n@%q1 bra YES;\nmov.u32 %o, 0;\nbra.uni END;\nYES: mov.u32 %o, 1;\nEND:"
    truth = {"lt": a < b, "lo": a < b, "hs": a >= b, "ne": a != b}[name]
    np.testing.assert_array_equal(evaluate(body, [a, b], [kind, kind], "u32", built), truth)


def test_moves_between_registers_of_other_types(built: Path) -> None:
    a = values("u64", 300, 1)
    body = "mov.b64 {%x0, %x1}, %a; mov.b64 %o, {%x1, %x0};"
    np.testing.assert_array_equal(
        evaluate(body, [a], ["u64"], "u64", built), (a << np.uint64(32)) | (a >> np.uint64(32))
    )
    x = values("f32", 300, 1)
    assert evaluate("mov.b32 %o, %a;", [x], ["f32"], "u32", built).tolist() == x.view(np.uint32).tolist()


def test_a_scope_has_registers_of_its_own(built: Path) -> None:
    a = values("u32", 300, 1)
    body = "mov.u32 %x0, %a; { .reg .b32 %x0; mov.u32 %x0, 7; { .reg .b32 %x0; mov.u32 %x0, 8; } } mov.u32 %o, %x0;"
    np.testing.assert_array_equal(evaluate(body, [a], ["u32"], "u32", built), a)


def test_a_table_of_constants(built: Path) -> None:
    a = np.array([0, 1, 1, 0], np.uint32)
    module = ".const .align 4 .b8 table[8] = {1, 2, 0, 0, 255, 255, 255, 255};"
    body = "mul.wide.u32 %y0, %a, 4; mov.u64 %y1, table; add.s64 %y0, %y0, %y1; ld.const.u32 %o, [%y0];"
    assert evaluate(body, [a], ["u32"], "u32", built, module).tolist() == [513, 2**32 - 1, 2**32 - 1, 513]


def test_shared_memory_of_the_launch_by_its_own_and_by_a_generic_address(built: Path) -> None:
    a = values("u32", 300, 1)
    module = ".extern .shared .align 8 .b8 memory[];"
    body = "mov.u64 %y0, memory; cvta.shared.u64 %y1, %y0; st.u32 [%y1+4], %a; bar.sync 0; ld.shared.u32 %o, [%y0+4];"
    np.testing.assert_array_equal(evaluate(body, [a], ["u32"], "u32", built, module), a)
    with pytest.raises(PtxError, match="at byte 8 of memory, which has 8"):
        evaluate(body.replace("+4], %a", "+8], %a"), [a], ["u32"], "u32", built, module)


def test_a_function_that_is_not_inlined_is_refused(built: Path) -> None:
    with pytest.raises(RefusedError, match="expected one kernel, with its functions inlined"):
        PtxKernel(source("mov.f32 %o, %a;", ["f32"], "f32", ".func helper() { ret; }"), built)


@pytest.mark.parametrize(
    "line",
    [
        "add.ftz.f32 %o, %a, %a;",
        "fma.rn.ftz.f32 %o, %a, %a, %a;",
        "fma.rz.f32 %o, %a, %a, %a;",
        "add.rz.f32 %o, %a, %a;",
        "add.sat.f32 %o, %a, %a;",
        "mul.f32 %o, %a, %a;",
        "div.full.f32 %o, %a, %a;",
        "sqrt.approx.f32 %o, %a;",
        "ex2.approx.f32 %o, %a;",
        "cvt.rz.f32.f64 %o, %y0;",
        "cvt.rn.f16.f32 %x0, %a;",
        "shfl.sync.down.b32 %x0, %x1, 1, 31, -1;",
        "atom.global.add.f32 %o, [%y0], %a;",
        "bar.sync 1;",
        "bar.sync 0, 64;",
        "bar.warp.sync -1;",
        "ld.volatile.global.f32 %o, [%y0];",
        "st.shared.u8 [%x0], %x1;",
        "mov.u32 %x0, %laneid;",
        "mov.u32 %o, %x0;\ncall.uni helper, ();",
        "add.f32 %o, %x0, %y0;",
        "wgmma.fence.sync.aligned;",
    ],
)
def test_what_is_not_known_exactly_is_refused(line: str, built: Path) -> None:
    with pytest.raises(
        RefusedError, match=r"PTX line \d+: .*" + re.escape(line.split("\n")[-1].split()[0].rstrip(";"))
    ):
        PtxKernel(source(line, ["f32"], "f32"), built)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("add.u32 %o, %x0, 1;", "uninitialised", "add.u32 %o, %x0, 1;"),
        ("setp.eq.u32 %q1, %a, 7;\n@%q1 mov.u32 %x0, 1;\nmov.u32 %o, %x0;", "uninitialised", "mov.u32 %o, %x0;"),
        ("mov.u32 %o, 0;\nAGAIN: bra AGAIN;", "endless loop", "bra AGAIN"),
        ("mov.u32 %o, 0;\ntrap;", "trap", "trap"),
        ("div.u32 %o, %a, 0;", "division by zero", "div.u32"),
        ("mov.u64 %y0, 4096;\nld.global.u32 %o, [%y0];", "bounds", "0x1000, which is no array's"),
        (".local .align 8 .b8 frame[8];\nmov.u64 %y0, frame;\nld.local.u32 %o, [%y0+4];", "uninitialised", "local"),
        (".local .align 8 .b8 frame[8];\nmov.u64 %y0, frame;\nst.local.u32 [%y0+8], %a;", "bounds", "byte 8 of local"),
        ("ld.param.u64 %y0, [p_a];\nld.u32 %o, [%y0+-4];", "bounds", "at byte -4 of operand 0, which has 40"),
    ],
)  # fmt: skip
def test_errors_say_where(body: str, kind: str, words: str, built: Path) -> None:
    with pytest.raises(PtxError) as error:
        evaluate(body, [np.arange(10, dtype=np.uint32)], ["u32"], "u32", built)
    assert error.value.kind == kind
    assert "thread (0, 0, 0) of block (0, 0, 0) at PTX line" in str(error.value)
    assert words in str(error.value)


def test_a_register_that_every_thread_writes_first_is_no_error(built: Path) -> None:
    a = np.arange(10, dtype=np.uint32)
    body = "setp.lt.u32 %q1, %a, 10;\n@%q1 mov.u32 %x0, 1;\nmov.u32 %o, %x0;"
    assert evaluate(body, [a], ["u32"], "u32", built).tolist() == [1] * 10
