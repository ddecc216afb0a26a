"""What a pickle says, read without doing what it says: nothing is imported, made or called.

A pickle is a program for a small machine. Here the machine has plain values only. Where the program names a class or a
function, the value is the name; where it calls one, the value is a note of the call. So a pickle can hold anything,
and reading it gives a tree of values for others to interpret.

Source: CPython's ``Lib/pickletools.py``, which documents every opcode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from refnet.errors import CorruptError, FormatError, LimitError

#: The first byte of a pickle of protocol 2 or later; the protocol follows.
START = b"\x80"

PROTOCOLS = (2, 3, 4, 5)

# An opcode of one byte can make an object of some 100. A network's state dict takes 15,000 opcodes.
_OPCODES, _FILE_BYTES_PER_OPCODE = 1 << 19, 128
_MAX_NAME_BYTES = 1000
# Longer ones are states of random generators. Python needs much time to print a very long one.
_MAX_INT_BYTES = 16
_INT64 = range(-(2**63), 2**63)


class Name:
    """A class or function that a pickle names.

    Attributes
    ----------
    title : str
        Its module, a dot, and its name there.
    """

    __slots__ = ("title",)

    def __init__(self, title: str) -> None:
        self.title = title


class Call:
    """An object that a pickle wants made.

    Attributes
    ----------
    title : str
        What it calls for that, by name.
    arguments : tuple
    items : dict, optional
        What it then wants put into the object by key.
    state : object
        What it then wants set as the object's state; of several the last.
    """

    __slots__ = ("arguments", "items", "state", "title")

    def __init__(self, title: str, arguments: tuple[Any, ...] = ()) -> None:
        self.title = title
        self.arguments = arguments
        self.items: dict[Any, Any] | None = None
        self.state: Any = None


class Outside:
    """A reference to something that lies outside the pickle.

    Attributes
    ----------
    identity : object
        As whoever wrote the pickle names it.
    """

    __slots__ = ("identity",)

    def __init__(self, identity: Any) -> None:
        self.identity = identity


class Pickle(NamedTuple):
    """A pickle that was read.

    Attributes
    ----------
    value : object
        None, bool, int, float, str, bytes, tuple, list, dict, `Name`, `Call` and `Outside`, in any depth, and a value
        may be at several places, inside itself too. The keys of a dict are simple values, or stand for others.
    outside : list of Outside
        All references.
    end : int
        Where the bytes after the pickle start.
    """

    value: Any
    outside: list[Outside]
    end: int


def read_pickle(data: bytes, start: int, file_size: int) -> Pickle:
    """Read one pickle of protocol 2 to 5.

    Parameters
    ----------
    data : bytes
    start : int
        Where it starts.
    file_size : int
        Bytes of the whole file, with which the number of opcodes may grow.

    Returns
    -------
    Pickle

    Raises
    ------
    CorruptError
        The bytes end before the pickle does.
    FormatError
        It is not a pickle of these protocols.
    LimitError
        It makes more objects than a file of this size justifies.
    """
    machine = _Machine(data, start)
    value = machine.run(_OPCODES + file_size // _FILE_BYTES_PER_OPCODE)
    return Pickle(value, machine.outside, machine.position)


def kind(value: Any) -> str:
    """What a value is, in a few words.

    Parameters
    ----------
    value : object

    Returns
    -------
    str
    """
    if isinstance(value, Call):
        return f"an object of {value.title}"
    if isinstance(value, Name):
        return f"the name {value.title}"
    if isinstance(value, Outside):
        return "data outside the pickle"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name == 'int' else 'a'} {name}"


class _Machine:
    """The machine; ``run`` returns the value that it ends with."""

    def __init__(self, data: bytes, start: int) -> None:
        self.position = start
        self.outside: list[Outside] = []
        self._data = data
        self._stack: list[Any] = []
        # The stacks below the marks that are set.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, limit: int) -> Any:
        data, size = self._data, len(self._data)
        if data[self.position : self.position + 1] != START:
            self._refuse(f"it does not start with the byte {START[0]:#04x}: it is not a pickle of protocol 2 or later")
        for _ in range(limit):
            position = self.position
            if position >= size:
                self._cut_off()
            opcode = data[position]
            self.position = position + 1
            if opcode == _STOP:
                return self._result()
            action = _ACTIONS.get(opcode)
            if action is None:
                self._refuse(f"refnet does not know the opcode {bytes([opcode])!r}, or reads no pickle that has it")
            try:
                action(self)
            except IndexError:
                self._refuse("it takes more values than there are")
            except struct.error:
                self._cut_off()
        raise LimitError(f"the pickle has more than {limit} opcodes, too many for a file of this size.", found=limit)

    def _result(self) -> Any:
        if len(self._stack) != 1 or self._below:
            self._refuse("it does not end with one value")
        return self._stack[0]

    def _refuse(self, why: str) -> NoReturn:
        raise FormatError(f"the pickle is malformed before its byte {self.position}: {why}.")

    def _cut_off(self) -> NoReturn:
        raise CorruptError("the pickle is cut off.")

    # What the actions share.

    def _take(self, count: int) -> bytes:
        start = self.position
        if count > len(self._data) - start:
            self._cut_off()
        self.position = start + count
        return self._data[start : start + count]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + _MAX_NAME_BYTES)
        if end < 0:
            if len(self._data) - self.position < _MAX_NAME_BYTES:
                self._cut_off()
            self._refuse(f"a name has more than {_MAX_NAME_BYTES} bytes")
        line = self._take(end - self.position)
        self.position += 1
        return self._text(line)

    def _text(self, content: bytes) -> str:
        try:
            # As pickles are written: halves of surrogate pairs stand in names of files.
            return content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self._refuse("a text is not UTF-8")

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def _key(self, value: Any) -> Any:
        """The value as a key: itself if it is simple, else something that stands for it.

        The hash of a tuple takes time without bound where tuples share their parts, and integers beyond 64 bits can
        all have the same.
        """
        if value is None or type(value) in (bool, float, str, bytes) or (type(value) is int and value in _INT64):
            return value
        if type(value) in (list, dict):
            self._refuse(f"a key is a {type(value).__name__}")
        return Outside(value)

    # The actions.

    def protocol(self, found: int) -> None:
        if found not in PROTOCOLS or self._stack or self._below or self._memo:
            self._refuse(f"it has the protocol {found}, or changes it; refnet reads 2 to 5")

    def frame(self, count: int) -> None:
        if count > len(self._data) - self.position:
            self._cut_off()

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._below.pop()

    def pop_mark(self) -> None:
        self._since_mark()

    def duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def integer(self, count: int) -> None:
        content = self._take(count)
        if count > _MAX_INT_BYTES:
            self._stack.append(Call("builtins.int"))
        else:
            self._stack.append(int.from_bytes(content, "little", signed=True))

    def string(self, count: int) -> None:
        """A string of Python 2."""
        if count < 0:
            self._refuse("a string has a negative length")
        content = self._take(count)
        try:
            self._stack.append(content.decode())
        except UnicodeDecodeError:
            self._stack.append(content)

    def named(self) -> None:
        self._stack.append(Name(f"{self._line()}.{self._line()}"))

    def named_on_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str or len(name) + len(module) > _MAX_NAME_BYTES:
            self._refuse("a module and a name in it are not two short texts")
        self._stack.append(Name(f"{module}.{name}"))

    def call(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple:
            self._refuse("the arguments of a call are not a tuple")
        if isinstance(called, Outside):
            # A class with its source, as PyTorch wrote them into whole modules.
            identity = called.identity
            called = identity[1] if type(identity) is tuple and len(identity) > 1 else None
        if not isinstance(called, Name | Call):
            self._refuse("what is called is not a name")
        self._stack.append(Call(called.title, arguments))

    def call_by_keywords(self) -> None:
        keywords = self._stack.pop()
        if type(keywords) is not dict:
            self._refuse("the keywords of a call are not a dict")
        self.call()

    def set_state(self) -> None:
        state = self._stack.pop()
        if not isinstance(self._stack[-1], Call):
            self._refuse("a state is set on what is not an object")
        self._stack[-1].state = state

    def refer_outside(self) -> None:
        reference = Outside(self._stack.pop())
        self.outside.append(reference)
        self._stack.append(reference)

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise IndexError
        self._stack[-count:] = [values]

    def tuple_since_mark(self) -> None:
        values = self._since_mark()
        self._stack.append(tuple(values))

    def frozen_set(self) -> None:
        values = self._since_mark()
        self._stack.append(Call("builtins.frozenset", (values,)))

    def add_items(self) -> None:
        values = self._since_mark()
        target = self._stack[-1]
        if not isinstance(target, Call):
            self._refuse("values are added to what is not a set")
        if target.title == "builtins.set" and len(target.arguments) == 1 and type(target.arguments[0]) is list:
            target.arguments[0].extend(values)

    def append(self) -> None:
        value = self._stack.pop()
        self._append([value])

    def append_since_mark(self) -> None:
        self._append(self._since_mark())

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(values)
        elif not isinstance(target, Call):
            self._refuse("values are appended to what is not a list")

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def set_items(self) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Call):
            if target.items is None:
                target.items = {}
            target = target.items
        if type(target) is not dict:
            self._refuse("items are set in what is not a dict")
        if len(pairs) % 2:
            self._refuse("a key has no value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[self._key(key)] = value

    def remember(self, where: int) -> None:
        self._memo[where] = self._stack[-1]

    def recall(self, where: int) -> None:
        try:
            self._stack.append(self._memo[where])
        except KeyError:
            self._refuse(f"it recalls value {where}, which it has not remembered")


_U8, _U16, _U32, _U64 = (struct.Struct(f"<{code}") for code in "BHIQ")
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")
_Action = Callable[[_Machine], None]


def _push(value: Any) -> _Action:
    return lambda machine: machine._stack.append(value)


def _push_new(make: Callable[[], Any]) -> _Action:
    return lambda machine: machine._stack.append(make())


def _push_number(layout: struct.Struct) -> _Action:
    return _with(lambda machine, number: machine._stack.append(number), layout)


def _push_text(length: struct.Struct) -> _Action:
    return _with(lambda machine, count: machine._stack.append(machine._text(machine._take(count))), length)


def _push_bytes(length: struct.Struct) -> _Action:
    return _with(lambda machine, count: machine._stack.append(machine._take(count)), length)


def _with(action: Callable[[_Machine, Any], None], number: struct.Struct) -> _Action:
    size, unpack = number.size, number.unpack_from

    def act(machine: _Machine) -> None:
        start = machine.position
        machine.position = start + size
        action(machine, unpack(machine._data, start)[0])

    return act


_STOP = ord(".")
# Opcodes by pickletools' names for them. Those of protocols 0 and 1 alone are missing, and those that need a registry
# or memory that the pickle does not hold (EXT1, NEXT_BUFFER, ...).
_ACTIONS: dict[int, _Action] = {
    ord(code): action
    for code, action in {
        "\x80": _with(_Machine.protocol, _U8),
        "\x95": _with(_Machine.frame, _U64),
        "N": _push(None),
        "\x88": _push(True),
        "\x89": _push(False),
        "J": _push_number(_I32),  # BININT
        "K": _push_number(_U8),
        "M": _push_number(_U16),
        "\x8a": _with(_Machine.integer, _U8),  # LONG1
        "\x8b": _with(_Machine.integer, _U32),
        "G": _push_number(_F64),
        "U": _with(_Machine.string, _U8),  # SHORT_BINSTRING
        "T": _with(_Machine.string, _I32),
        "\x8c": _push_text(_U8),  # SHORT_BINUNICODE
        "X": _push_text(_U32),
        "\x8d": _push_text(_U64),
        "C": _push_bytes(_U8),  # SHORT_BINBYTES
        "B": _push_bytes(_U32),
        "\x8e": _push_bytes(_U64),
        "\x96": _push_bytes(_U64),  # BYTEARRAY8
        ")": _push(()),
        "]": _push_new(list),
        "}": _push_new(dict),
        "\x8f": _push_new(lambda: Call("builtins.set", ([],))),
        "\x85": lambda machine: machine.tuple_of(1),
        "\x86": lambda machine: machine.tuple_of(2),
        "\x87": lambda machine: machine.tuple_of(3),
        "t": _Machine.tuple_since_mark,
        "\x91": _Machine.frozen_set,
        "a": _Machine.append,
        "e": _Machine.append_since_mark,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "\x90": _Machine.add_items,
        "(": _Machine.mark,
        "0": _Machine.pop,
        "1": _Machine.pop_mark,
        "2": _Machine.duplicate,
        "q": _with(_Machine.remember, _U8),  # BINPUT
        "r": _with(_Machine.remember, _U32),
        "\x94": lambda machine: machine.remember(len(machine._memo)),  # MEMOIZE
        "h": _with(_Machine.recall, _U8),  # BINGET
        "j": _with(_Machine.recall, _U32),
        "c": _Machine.named,  # GLOBAL
        "\x93": _Machine.named_on_stack,
        "R": _Machine.call,  # REDUCE
        "\x81": _Machine.call,  # NEWOBJ
        "\x92": _Machine.call_by_keywords,
        "b": _Machine.set_state,  # BUILD
        "Q": _Machine.refer_outside,  # BINPERSID
    }.items()
}
