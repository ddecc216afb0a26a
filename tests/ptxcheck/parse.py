"""PTX text as variables and statements."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Bytes of each type of memory.
SIZES = {f"{kind}{bits}": bits // 8 for kind in "busf" for bits in (8, 16, 32, 64) if (kind, bits) != ("f", 8)}

_HEAD = re.compile(r"\s*(?:\.(?:visible|weak|extern)\s+)*\.(?:entry|func)\b")
_IGNORED = {".version", ".target", ".address_size", ".pragma", ".loc", ".file", ".maxntid", ".minnctapersm", ".maxnreg"}


class RefusedError(Exception):
    """PTX that the checker does not know exactly."""


@dataclass(frozen=True)
class Statement:
    """An instruction, or a label (then ``opcode`` is ``"label"``)."""

    line: int
    opcode: str
    operands: tuple[str, ...] = ()
    guard: str = ""

    def refuse(self, why: str) -> RefusedError:
        text = f"{self.opcode} {', '.join(self.operands)}".strip()
        return RefusedError(f"PTX line {self.line}: {text}: {why}")


@dataclass(frozen=True)
class Variable:
    """Named memory: a parameter, or a variable in the space const, global, shared or local."""

    name: str
    space: str
    bytes: int
    align: int
    data: bytes = b""
    type: str = "b8"


@dataclass
class Entry:
    """A kernel: its parameters, the types of its registers and its statements; and the module's variables."""

    name: str = ""
    parameters: list[Variable] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)


def parse(text: str) -> Entry:
    """Read a module that holds one kernel and nothing but inlined functions."""
    entry = Entry()
    scopes: list[dict[str, str]] = []
    for line, piece in _pieces(_without_comments(text)):
        words = piece.rstrip(";{:").split()
        if piece.endswith("{") and not scopes:
            _head(entry, line, piece)
            scopes.append({})
        elif piece == "{":
            scopes.append({})
        elif piece == "}":
            scopes.pop()
        elif piece.endswith(":"):
            entry.body.append(Statement(line, "label", (words[0],)))
        elif words and words[0] == ".reg":
            _registers(entry, piece, scopes)
        elif words and words[0].startswith("."):
            variable = _variable(line, piece.rstrip(";"))
            entry.variables[variable.name] = variable
        elif words:
            entry.body.append(_instruction(line, piece.rstrip(";"), scopes))
    return entry


def _without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    lines = [re.sub(r"//.*", "", line) for line in text.split("\n")]
    return "\n".join("" if _IGNORED & set(line.split()[:1]) else line for line in lines)


def _pieces(text: str) -> list[tuple[int, str]]:
    """Cut at each ``;``, label and brace, with the line; the braces of an operand stay inside their piece."""
    pieces, start, line, inside = [], 0, 1, False
    for match in re.finditer(r"[;{}:]", text):
        before, mark = text[start : match.start()], match[0]
        if inside:
            inside = mark != "}"
            continue
        inside = mark == "{" and before.strip() != "" and not _HEAD.match(before)
        if inside or (mark == ":" and not re.fullmatch(r"\s*[\w$]+", before)):
            continue
        first = line + before[: len(before) - len(before.lstrip())].count("\n")
        pieces.append((first, (before + mark).strip()))
        line += before.count("\n")
        start = match.end()
    return pieces


def _head(entry: Entry, line: int, piece: str) -> None:
    match = re.match(r"(?:\.visible\s+)?\.entry\s+([\w$]+)\s*\((.*?)\)", piece, re.DOTALL)
    if match is None or entry.name:
        raise RefusedError(f"PTX line {line}: {piece.split('(')[0]}: expected one kernel, with its functions inlined")
    entry.name = match[1]
    entry.parameters = [_variable(line, parameter) for parameter in match[2].split(",") if parameter.strip()]


def _registers(entry: Entry, piece: str, scopes: list[dict[str, str]]) -> None:
    _, kind, names = piece.rstrip(";").split(maxsplit=2)
    for name in names.split(","):
        base, _, count = name.strip().rstrip(">").partition("<")
        for register in [f"{base}{i}" for i in range(int(count))] if count else [base]:
            # A scope's own registers get names of their own.
            unique = register if len(scopes) == 1 else f"{register}_scope{len(entry.registers)}"
            scopes[-1][register] = unique
            entry.registers[unique] = kind[1:]


def _variable(line: int, piece: str) -> Variable:
    match = re.match(
        r"\s*(?:\.(?:visible|extern|common|weak)\s+)*\.(param|const|global|shared|local)\s+(?:\.align\s+(\d+)\s+)?"
        r"\.(\w+)\s+([\w$]+)((?:\[\d*\])*)\s*(?:=\s*\{(.*)\})?\s*$",
        piece,
        re.DOTALL,
    )
    if match is None or match[3] not in SIZES:
        raise RefusedError(f"PTX line {line}: {piece.strip()}: not understood")
    space, align, kind, name, extents, values = match.groups()
    size = SIZES[kind]
    count = 1
    for extent in re.findall(r"\[(\d*)\]", extents):
        count *= int(extent or 0)
    data = b"".join((int(v, 0) % 256**size).to_bytes(size, "little") for v in values.split(",")) if values else b""
    return Variable(name, space, size * count, int(align or size), data, kind)


def _instruction(line: int, text: str, scopes: list[dict[str, str]]) -> Statement:
    match = re.match(r"\s*(?:@(!?[%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", text, re.DOTALL)
    if match is None:
        raise RefusedError(f"PTX line {line}: {text.strip()}: not understood")

    def resolve(operand: str) -> str:
        for scope in scopes[1:]:
            operand = re.sub(r"(?<![\w$%.])%?[\w$]+", lambda m, scope=scope: scope.get(m[0], m[0]), operand)  # type: ignore[misc]
        return operand.strip()

    operands = tuple(resolve(o) for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", match[3]))
    return Statement(line, match[2], operands, resolve(match[1] or ""))
