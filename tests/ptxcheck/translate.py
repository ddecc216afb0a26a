"""PTX as C: one function that runs one thread up to its next barrier."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .parse import SIZES, Entry, RefusedError, Statement, Variable

SHARED_BITS = 20
ARRAY_BITS = 40

_FLOATS = {"f32": "float", "f64": "double"}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNSIGNED_COMPARISONS = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_ROUNDINGS = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_SPECIAL = {f"%{name}.{axis}": f"{where}[{i}]" for name, where in (
    ("tid", "t->tid"), ("ntid", "c->ntid"), ("ctaid", "c->ctaid"), ("nctaid", "c->nctaid")
) for i, axis in enumerate("xyz")}  # fmt: skip
_SPECIAL |= {"%dynamic_smem_size": "c->shared_bytes"}

#: Opcode, the types of the operands and of the result, and the value. T is the opcode's own type, U and S the unsigned
#: and the signed one of its width, W the one of twice its width.
_RULES: list[tuple[str, str, str]] = [
    (r"add\.([us]\d+)", "U U -> U", "a + b"),
    (r"sub\.([us]\d+)", "U U -> U", "a - b"),
    (r"mul\.lo\.([us]\d+)", "U U -> U", "a * b"),
    (r"mul\.wide\.([us](?:16|32))", "T T -> W", "(W)a * (W)b"),
    (r"mul\.hi\.([us]32)", "T T -> T", "(T)(((W)a * (W)b) >> 32)"),
    (r"mul\.hi\.(s64)", "T T -> T", "(T)(((__int128)a * b) >> 64)"),
    (r"mul\.hi\.(u64)", "T T -> T", "(T)(((unsigned __int128)a * b) >> 64)"),
    (r"mad\.lo\.([us]\d+)", "U U U -> U", "a * b + c_"),
    (r"mad\.wide\.([us](?:16|32))", "T T W -> W", "(W)a * (W)b + c_"),
    (r"div\.([us](?:32|64))", "T T -> T", "div_NAME(c, t, a, b, LINE)"),
    (r"rem\.([us](?:32|64))", "T T -> T", "rem_NAME(c, t, a, b, LINE)"),
    (r"neg\.(s\d+)", "U -> U", "0 - a"),
    (r"abs\.(s\d+)", "T -> U", "a < 0 ? 0 - (U)a : (U)a"),
    (r"min\.([us]\d+)", "T T -> T", "a < b ? a : b"),
    (r"max\.([us]\d+)", "T T -> T", "a > b ? a : b"),
    (r"and\.(b\d+|pred)", "T T -> T", "a & b"),
    (r"or\.(b\d+|pred)", "T T -> T", "a | b"),
    (r"xor\.(b\d+|pred)", "T T -> T", "a ^ b"),
    (r"not\.(b\d+)", "T -> T", "~a"),
    (r"not\.(pred)", "T -> T", "!a"),
    (r"shl\.(b\d+)", "T u32 -> T", "SHIFT_LEFT(a, b)"),
    (r"shr\.b(\d+)", "U u32 -> U", "SHIFT_RIGHT(a, b)"),
    (r"shr\.([us]\d+)", "T u32 -> T", "SHIFT_RIGHT(a, b)"),
    (r"bfe\.(u32|u64)", "T u32 u32 -> T", "SHIFT_RIGHT(a, b) & (SHIFT_LEFT((T)1, c_) - 1)"),
    (r"bfi\.(b32|b64)", "T T u32 u32 -> T", "(b & ~MASK(T, c_, d)) | (SHIFT_LEFT(a, c_) & MASK(T, c_, d))"),
    (r"mov\.(pred|[busf]\d+)", "T -> T", "a"),
    (r"selp\.([busf]\d+)", "T T pred -> T", "c_ ? a : b"),
    (r"fma\.rn\.(f32)", "T T T -> T", "fmaf(a, b, c_)"),
    (r"fma\.rn\.(f64)", "T T T -> T", "fma(a, b, c_)"),
    (r"add(?:\.rn)?\.(f32|f64)", "T T -> T", "a + b"),
    (r"sub(?:\.rn)?\.(f32|f64)", "T T -> T", "a - b"),
    (r"mul\.rn\.(f32|f64)", "T T -> T", "a * b"),
    (r"div\.rn\.(f32|f64)", "T T -> T", "a / b"),
    (r"rcp\.rn\.(f32|f64)", "T -> T", "1 / a"),
    (r"sqrt\.rn\.(f32)", "T -> T", "sqrtf(a)"),
    (r"sqrt\.rn\.(f64)", "T -> T", "sqrt(a)"),
    (r"neg\.(f32|f64)", "T -> T", "-a"),
    (r"abs\.(f32)", "T -> T", "fabsf(a)"),
    (r"abs\.(f64)", "T -> T", "fabs(a)"),
    (r"min\.(f32|f64)", "T T -> T", "min_NAME(a, b)"),
    (r"max\.(f32|f64)", "T T -> T", "max_NAME(a, b)"),
]
_MEMORY = re.compile(
    r"(ld|st)(?:\.(param|const|global|shared|local))?(?:\.(?:nc|ca|cg|cs|lu|wb|wt))*(?:\.L[12]::\w+)*(?:\.(v2|v4))?\.([busf]\d+)"
)
_COPY = re.compile(r"cp\.async\.(ca|cg)\.shared\.global(?:\.L2::\w+)?")
_WITHOUT_RESULT = re.compile(r"st\.|cp\.async|bar\.|bra|ret|exit|trap|membar|fence")


def c_type(kind: str) -> str:
    """The C type of a PTX type; bits count as unsigned."""
    if kind == "pred":
        return "uint8_t"
    if kind in _FLOATS:
        return _FLOATS[kind]
    return f"{'' if kind[0] == 's' else 'u'}int{kind[1:]}_t"


class Translator:
    """Writes one kernel as C."""

    def __init__(self, entry: Entry):
        self.entry = entry
        self.addresses = _addresses(entry)
        self.parameter_at = {v.name: at for v, at in parameter_offsets(entry)}
        self.labels = {s.operands[0]: i for i, s in enumerate(entry.body) if s.opcode == "label"}
        self.barriers = [i for i, s in enumerate(entry.body) if s.opcode == "bar.sync"]
        live = self._live()
        #: Registers that some path reads before it writes them; whether it does is seen when it runs.
        self.doubtful = live[0]
        self.saved = {i: sorted(live[i + 1]) for i in self.barriers}

    def c(self) -> str:
        """The whole file."""
        registers, body = self.entry.registers, self.entry.body
        kept = sorted(set().union(*self.saved.values()))
        fields = "".join(f"{c_type(registers[r])} {_name(r)}; " for r in kept)
        flags = "".join(f"uint8_t {_name(r)}_set; " for r in kept if r in self.doubtful)
        frames = [v for v in self.entry.variables.values() if v.space == "local"]
        if len(frames) > 1:
            raise RefusedError(f"{len(frames)} variables in local memory, where Numba makes one")
        lines = [
            "#include <stdint.h>",
            f"typedef struct {{ {fields}{flags}char none; }} Saved;",
            f"#define LOCAL_BYTES {frames[0].bytes if frames else 0}",
            '#include "runtime.h"',
            f"static const uint32_t barrier_lines[] = {{0, {', '.join(str(body[i].line) for i in self.barriers)}}};",
            "static uint32_t run_thread(Context *c, Thread *t) {",
            "uint32_t fuel = FUEL;",
            *(f"{c_type(kind)} {_name(r)};" for r, kind in registers.items()),
            *(f"uint8_t {_name(r)}_set = 0;" for r in sorted(self.doubtful)),
            "switch (t->resume) {",
            *(f"case {n}: {self._moved(i, restore=True)} goto resume_{n};" for n, i in enumerate(self.barriers, 1)),
            "}",
            *(line for i, s in enumerate(body) for line in self._statement(i, s)),
            "return 0;",
            "}",
            "int run(Context *c, void *threads, const uint32_t *blocks, uint64_t block_count, const uint32_t *order) {",
            "return run_blocks(c, threads, blocks, block_count, order, barrier_lines);",
            "}",
            "uint64_t thread_bytes(void) { return sizeof(Thread); }",
        ]
        return "\n".join(lines) + "\n"

    # Which registers live on.

    def _live(self) -> list[set[str]]:
        """The registers that may be read, from each statement on, before they are written."""
        body = self.entry.body
        live: list[set[str]] = [set() for _ in range(len(body) + 1)]
        reads, writes = zip(*(self._reads_and_writes(s) for s in body), strict=True)
        changed = True
        while changed:
            changed = False
            for i in reversed(range(len(body))):
                after: set[str] = set().union(*(live[j] for j in self._successors(i, body[i])))
                before = reads[i] | (after if body[i].guard else after - writes[i])
                if before != live[i]:
                    live[i], changed = before, True
        return live

    def _successors(self, i: int, statement: Statement) -> list[int]:
        if statement.opcode in ("bra", "bra.uni"):
            target = self._target(statement)
            return [target, i + 1] if statement.guard else [target]
        ends = statement.opcode in ("ret", "exit", "trap") and not statement.guard
        return [] if ends else [i + 1]

    def _target(self, statement: Statement) -> int:
        if statement.operands[0] not in self.labels:
            raise statement.refuse("no such label")
        return self.labels[statement.operands[0]]

    def _registers_in(self, *texts: str) -> set[str]:
        return {name for text in texts for name in re.findall(r"%?[\w$]+", text) if name in self.entry.registers}

    def _reads_and_writes(self, s: Statement) -> tuple[set[str], set[str]]:
        if s.opcode == "label":
            return set(), set()
        results = 0 if _WITHOUT_RESULT.match(s.opcode) else 1
        return self._registers_in(*s.operands[results:], s.guard), self._registers_in(*s.operands[:results])

    # Statements.

    def _statement(self, i: int, s: Statement) -> Iterator[str]:
        if s.opcode == "label":
            yield f"L_{i}:;"
            return
        reads, writes = self._reads_and_writes(s)
        for register in sorted(reads & self.doubtful):
            guard = f"{self._guard(s)} && " if s.guard and register not in self._registers_in(s.guard) else ""
            yield f"if ({guard}!{_name(register)}_set) fail(c, t, UNINITIALISED, REGISTER, 0, 0, {s.line});"
        text = self._effect(i, s)
        text += "".join(f" {_name(r)}_set = 1;" for r in sorted(writes & self.doubtful))
        yield f"if ({self._guard(s)}) {{ {text} }}" if s.guard else f"{{ {text} }}"

    def _guard(self, s: Statement) -> str:
        return self._read(s, s.guard, "pred")

    def _effect(self, i: int, s: Statement) -> str:
        """What a statement does, as C."""
        for pattern, effect in (
            (r"bra(\.uni)?", self._branch),
            (r"ret|exit", lambda *_: "return 0;"),
            (r"trap", lambda *_: f"fail(c, t, TRAP, REGISTER, 0, 0, {s.line});"),
            (r"bar\.sync", self._barrier),
            (r"membar\.(cta|gl|sys)", lambda *_: ";"),
            (r"cvta(\.to)?\.(global|shared|local|const)\.u64", self._generic),
            (r"cp\.async\..*", self._copy),
            (r"setp\..*", self._compare),
            (r"cvt\..*", self._convert),
            (r"(ld|st)\..*", self._access),
            (r"mov\.b(64|32)", self._pack),
        ):
            if re.fullmatch(pattern, s.opcode):
                text = effect(i, s)
                if text:
                    return text
        return self._arithmetic(s)

    def _arithmetic(self, s: Statement) -> str:
        for pattern, signature, value in _RULES:
            match = re.fullmatch(pattern, s.opcode)
            if match is None:
                continue
            kinds = _letters(match[1])
            taken, given = (part.split() for part in signature.split("->"))
            if len(s.operands) != len(taken) + 1:
                raise s.refuse("another number of operands than expected")
            # c is the context.
            declared = " ".join(
                f"{c_type(kind)} {name} = {self._read(s, operand, kind)};"
                for name, operand, kind in zip(
                    ("a", "b", "c_", "d"), s.operands[1:], [kinds.get(k, k) for k in taken], strict=False
                )
            )
            for letter, kind in kinds.items():
                value = re.sub(rf"\({letter}([,)])", rf"({c_type(kind)}\1", value)
            value = value.replace("NAME", kinds["T"]).replace("LINE", str(s.line))
            kind = kinds.get(given[0], given[0])
            return f"{declared} {self._write(s, s.operands[0], kind, f'({c_type(kind)})({value})')}"
        why = "not known to the checker"
        if re.fullmatch(r"mul\.f(32|64)", s.opcode):
            why = "without .rn, ptxas is free to fuse it with a sum"
        raise s.refuse(why)

    def _branch(self, i: int, s: Statement) -> str:
        target = self._target(s)
        spent = f"if (!--fuel) fail(c, t, ENDLESS, REGISTER, 0, 0, {s.line}); " if target <= i else ""
        return f"{spent}goto L_{target};"

    def _barrier(self, i: int, s: Statement) -> str:
        if s.operands != ("0",):
            raise s.refuse("only the barrier 0 of the whole block is known")
        number = self.barriers.index(i) + 1
        return f"{self._moved(i, restore=False)} return {number}; resume_{number}:;"

    def _moved(self, i: int, *, restore: bool) -> str:
        names = [_name(r) for r in self.saved[i]]
        names += [f"{_name(r)}_set" for r in self.saved[i] if r in self.doubtful]
        pairs = ((name, f"t->saved.{name}") for name in names)
        return " ".join(f"{a} = {b};" if restore else f"{b} = {a};" for a, b in pairs)

    def _generic(self, _: int, s: Statement) -> str:
        space = s.opcode.split(".")[-2]
        window = {"shared": "SHARED_WINDOW", "local": "LOCAL_WINDOW"}.get(space, "0")
        sign = "-" if ".to." in s.opcode else "+"
        return self._write(s, s.operands[0], "u64", f"{self._read(s, s.operands[1], 'u64')} {sign} {window}")

    def _copy(self, _: int, s: Statement) -> str:
        if s.opcode == "cp.async.commit_group":
            return "t->groups++;"
        if s.opcode == "cp.async.wait_all":
            return "wait_group(c, t, -1);"
        if s.opcode == "cp.async.wait_group":
            return f"wait_group(c, t, {self._read(s, s.operands[0], 'u32')});"
        match = _COPY.fullmatch(s.opcode)
        if match is None or s.operands[2] not in (("16",) if match[1] == "cg" else ("4", "8", "16")):
            raise s.refuse("not known to the checker")
        size = s.operands[2]
        used = self._read(s, s.operands[3], "u32") if len(s.operands) > 3 else size
        to, source = (self._address(s, where) for where in s.operands[:2])
        return f"copy_async(c, t, {to}, {source}, {size}, {used}, {s.line});"

    def _compare(self, _: int, s: Statement) -> str:
        match = re.fullmatch(r"setp\.([a-z]+)\.([busf]\d+)", s.opcode)
        if match is None or "|" in s.operands[0]:
            raise s.refuse("not known to the checker")
        name, kind = match.groups()
        a, b = (self._read(s, operand, kind) for operand in s.operands[1:])
        if name in _UNSIGNED_COMPARISONS and kind[0] == "u":
            value = f"{a} {_UNSIGNED_COMPARISONS[name]} {b}"
        elif name in _COMPARISONS:
            # An ordered comparison is false where one is a NaN, and C's != is not.
            ordered = f"{a} == {a} && {b} == {b} && " if kind[0] == "f" and name == "ne" else ""
            value = f"{ordered}{a} {_COMPARISONS[name]} {b}"
        elif kind[0] == "f" and name in ("num", "nan"):
            value = f"{'!' if name == 'num' else ''}({a} != {a} || {b} != {b})"
        elif kind[0] == "f" and name.endswith("u") and name[:-1] in _COMPARISONS:
            value = f"{a} != {a} || {b} != {b} || {a} {_COMPARISONS[name[:-1]]} {b}"
        else:
            raise s.refuse("not known to the checker")
        return self._write(s, s.operands[0], "pred", value)

    def _convert(self, _: int, s: Statement) -> str:
        match = re.fullmatch(r"cvt(?:\.(r[nzmp]i?))?\.([usf]\d+)\.([usf]\d+)", s.opcode)
        if match is None:
            raise s.refuse("not known to the checker")
        rounding, to, kind = match.groups()
        value = self._read(s, s.operands[1], kind)
        integers = (to[0] != "f") + (kind[0] != "f")
        if (integers, rounding) == (2, None) or (integers, to[0], rounding) == (1, "f", "rn"):
            value = f"({c_type(to)}){value}"
        elif integers == 1 and to in ("s32", "u32", "s64", "u64") and rounding in _ROUNDINGS:
            value = f"to_{to}({_ROUNDINGS[rounding]}({value}))"
        elif integers == 0 and (to, kind, rounding) in (("f32", "f64", "rn"), ("f64", "f32", None)):
            value = f"({c_type(to)}){value}"
        elif integers == 0 and to == kind and rounding in _ROUNDINGS:
            value = f"({c_type(to)}){_ROUNDINGS[rounding]}({value})"
        else:
            raise s.refuse("not known to the checker")
        return self._write(s, s.operands[0], to, value)

    def _pack(self, _: int, s: Statement) -> str:
        """Two registers as one, or one as two; nothing where there are no braces."""
        half = f"b{int(s.opcode[-2:]) // 2}"
        low, whole = c_type(half), c_type(s.opcode[4:])
        to, source = s.operands
        if source.startswith("{"):
            parts = [self._read(s, part, half) for part in _elements(source)]
            return self._write(s, to, s.opcode[4:], f"({whole}){parts[0]} | ({whole}){parts[1]} << {half[1:]}")
        if to.startswith("{"):
            value = self._read(s, source, s.opcode[4:])
            shifted = (f"({low})({value} >> {bits})" for bits in (0, int(half[1:])))
            return " ".join(self._write(s, part, half, v) for part, v in zip(_elements(to), shifted, strict=True))
        return ""

    def _access(self, _: int, s: Statement) -> str:
        match = _MEMORY.fullmatch(s.opcode)
        if match is None or match[4] not in SIZES:
            raise s.refuse("not known to the checker")
        way, space, vector, kind = match.groups()
        store = way == "st"
        where, values = s.operands if store else s.operands[::-1]
        registers = _elements(values)
        size = SIZES[kind] * int(vector[1:] if vector else 1)
        if len(registers) * SIZES[kind] != size:
            raise s.refuse("another number of registers than the vector has")
        if space == "shared" and size < 4:
            raise s.refuse("shared memory is checked by words of 4 bytes")
        memory = self._memory(s, space, where, size, store=store)
        if store:
            stores = (f"m[{n}] = {self._read(s, r, kind)};" for n, r in enumerate(registers))
            return f"{c_type(kind)} *m = (void *){memory}; {' '.join(stores)}"
        loads = (self._write(s, r, kind, f"m[{n}]") for n, r in enumerate(registers))
        return f"const {c_type(kind)} *m = (const void *){memory}; {' '.join(loads)}"

    def _memory(self, s: Statement, space: str | None, where: str, size: int, *, store: bool) -> str:
        if space == "param":
            name, _, offset = where.strip("[] ").partition("+")
            if store or name not in self.parameter_at:
                raise s.refuse("only the kernel's own parameters are known")
            return f"(c->parameters + {self.parameter_at[name] + int(offset or 0)})"
        access = {None: "generic", "const": "global"}.get(space, space)
        return f"{access}(c, t, {self._address(s, where)}, {size}, {s.line}, {int(store)})"

    # Operands.

    def _address(self, s: Statement, operand: str) -> str:
        base, sign, offset = re.fullmatch(r"\[\s*([^\s+]+)\s*(?:(\+)\s*(-?\w+))?\s*\]", operand).groups()  # type: ignore[union-attr]
        kind = "u64" if base not in self.entry.registers or self.entry.registers[base].endswith("64") else "u32"
        address = f"(uint64_t){self._read(s, base, kind)}"
        return f"{address} + (uint64_t)({int(offset, 0)}ll)" if sign else address

    def _read(self, s: Statement, operand: str, kind: str) -> str:
        """An operand as a value of a type."""
        if kind == "pred":
            if re.fullmatch(r"-?\d+", operand):
                return str(int(int(operand) != 0))
            return f"!{_name(operand[1:])}" if operand.startswith("!") else _name(operand)
        if operand in self.entry.registers:
            return self._cast(s, _name(operand), self.entry.registers[operand], kind)
        if operand in _SPECIAL:
            return f"({c_type(kind)}){_SPECIAL[operand]}"
        if operand in self.addresses:
            return f"({c_type(kind)}){self.addresses[operand]:#x}ull"
        if match := re.fullmatch(r"0([fFdD])([0-9A-Fa-f]+)", operand):
            bits = "f32" if match[1] in "fF" else "f64"
            return self._cast(s, f"as_{bits}(0x{match[2]}ull)", bits, kind)
        if kind in _FLOATS or not re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?", operand):
            raise s.refuse(f"{operand} is not a known operand of type {kind}")
        return f"({c_type(kind)}){int(operand.rstrip('U'), 0) % 2**64:#x}ull"

    def _cast(self, s: Statement, value: str, given: str, kind: str) -> str:
        if given == kind or (given not in _FLOATS and kind not in _FLOATS and given != "pred"):
            return f"({c_type(kind)}){value}"
        if given[1:] != kind[1:] or given == "pred" or kind == "pred":
            raise s.refuse(f"a {given} is not a {kind}")
        return f"as_{kind}({value})" if kind in _FLOATS else f"({c_type(kind)})as_u{given[1:]}({value})"

    def _write(self, s: Statement, register: str, kind: str, value: str) -> str:
        if register == "_":
            return f"(void)({value});"
        if register not in self.entry.registers:
            raise s.refuse(f"{register} is not a register")
        given = self.entry.registers[register]
        if given != "pred" and SIZES[given] < SIZES.get(kind, 0):
            raise s.refuse(f"a {kind} does not fit in {register}")
        if (kind == "pred") != (given == "pred"):
            raise s.refuse(f"a {kind} does not fit in {register}")
        return f"{_name(register)} = {self._cast(s, f'({value})', kind, given)};"


def _addresses(entry: Entry) -> dict[str, int]:
    """Where each variable begins, in its own space."""
    addresses = {v.name: shared_start(n, v) for n, v in enumerate(shared_variables(entry), 1)}
    addresses |= {v.name: n << ARRAY_BITS for n, v in enumerate(module_variables(entry), 1)}
    return addresses | {v.name: 0 for v in entry.variables.values() if v.space == "local"}


def shared_variables(entry: Entry) -> list[Variable]:
    return [v for v in entry.variables.values() if v.space == "shared"]


def module_variables(entry: Entry) -> list[Variable]:
    return [v for v in entry.variables.values() if v.space in ("const", "global")]


def shared_start(number: int, variable: Variable) -> int:
    """An address that is aligned to what the variable declares, and to no more."""
    return (number << SHARED_BITS) + variable.align


def parameter_offsets(entry: Entry) -> Iterator[tuple[Variable, int]]:
    at = 0
    for parameter in entry.parameters:
        at += -at % parameter.align
        yield parameter, at
        at += parameter.bytes


def _letters(kind: str) -> dict[str, str]:
    bits = kind.lstrip("busf")
    if not bits.isdigit():
        return {"T": kind}
    sign = kind[0] if kind[0] in "us" else "u"
    kind = kind if kind[0] in "busf" else f"u{bits}"
    return {"T": kind, "U": f"u{bits}", "S": f"s{bits}", "W": f"{sign}{2 * int(bits)}"}


def _elements(operand: str) -> list[str]:
    return [element.strip() for element in operand.strip("{}").split(",")]


def _name(register: str) -> str:
    return "v_" + re.sub(r"\W", "_", register)
