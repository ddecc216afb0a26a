"""PyTorch's files: true ones of torch.save, forged ones, and pickles that want to run code."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refnet
from refnet.errors import ConfigError, CorruptError, FormatError, LimitError, RefnetError
from refnet.weights.formats import read, write
from refnet.weights.formats.loaded import Loaded
from refnet.weights.formats.pickle_values import Call, Name, read_pickle
from tests.refnet.formats import bad_files
from tests.refnet.formats.bad_files import BadFile, check_refused, read_or_refuse
from tests.refnet.formats.torch_files import (
    MAGIC_NUMBER,
    Global,
    Persistent,
    Raw,
    Reduce,
    archive,
    legacy,
    opcodes,
    ordered,
    pickled,
    rebuilt,
    save,
    state_of,
    storage,
)
from tests.support.arrays import random_images
from tests.torchvision.networks import Description, draw_state

#: Written by tools/make_torch_files.py, with PyTorch.
DATA = Path(__file__).parent / "data"


def count(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def assert_same(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], converted: Sequence[str] = ()
) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(array, expected[name], strict=True)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        # There kernels are packed in place.
        assert array.ctypes.data % 64 == 0 or not array.size or name in converted


# What tools/make_torch_files.py says.
BASE = count(3, 4)
TENSORS = {
    "conv.weight": count(2, 1, 3, 1),
    "channels_last": count(2, 3, 2, 2),
    "base": BASE,
    "view": np.array([[5, 6], [9, 10]], np.float32),
    "transposed": np.array([[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5, np.float32),
    "half": np.array([0, 1, 2], np.float16),
    "bfloat16": np.array([0, 1, 2], np.float32),
    "double": np.array([0, 1, 2], np.float64),
    "parameter": np.array([0, 1, 2], np.float32),
    **{np.dtype(dtype).name: np.array([0, 1, 2], dtype) for dtype in ("i8", "i4", "i2", "i1", "u1")},
}
NORM = {
    "weight": np.ones(2, np.float32),
    "bias": np.zeros(2, np.float32),
    "running_mean": np.zeros(2, np.float32),
    "running_var": np.ones(2, np.float32),
    "num_batches_tracked": np.array(0),
}
MODULE = {
    "lasting": np.array([0, 1], np.float32),
    "conv.weight": np.array([0, 1], np.float32).reshape(2, 1, 1, 1),
    **{f"{norm}.{name}": array for norm in ("norm", "again") for name, array in NORM.items()},
}


@pytest.mark.parametrize(
    ("name", "form"), [("zip.pth", "PyTorch"), ("zip_protocol_5.pth", "PyTorch"), ("legacy.pth", "PyTorch, legacy")]
)
def test_tensors_of_all_kinds(name: str, form: str, watch: Any) -> None:
    with watch(str(DATA / name)):
        loaded = read(DATA / name)
    assert_same(loaded.tensors, TENSORS, ["bfloat16"])
    assert (loaded.format, loaded.metadata) == (form, {})
    assert loaded.conversion.converted == {"bfloat16": "bfloat16"}
    assert loaded.conversion.left_out == {"flag": "BoolStorage is not a numeric type that refnet reads"}


def test_whole_module(watch: Any) -> None:
    """A buffer that does not last is not in a module's state dict, a part that is there twice is."""
    with watch(str(DATA / "module.pth")):
        loaded = read(DATA / "module.pth")
    assert_same(loaded.tensors, MODULE)
    assert loaded.conversion.notes == []


def test_checkpoint_of_a_training(watch: Any) -> None:
    with watch(str(DATA / "checkpoint.pth")):
        loaded = read(DATA / "checkpoint.pth")
    assert_same(loaded.tensors, MODULE)
    assert loaded.conversion.left_out == {"optimizer": "it is the state of an optimizer"}
    assert loaded.conversion.remarks == [
        "the file holds averages of the weights too (state_dict_ema), and the weights themselves were taken "
        "(state_dict): averages=True takes the averages"
    ]


@pytest.mark.parametrize("name", ["a.pth", "a", "a.npz", "a.safetensors", "a.index", "a.data-00000-of-00001"])
@pytest.mark.parametrize("zipped", [True, False])
def test_any_name(name: str, zipped: bool, tmp_path: Path) -> None:
    assert_same(read(save(tmp_path / name, {"x": BASE}, zipped=zipped)).tensors, {"x": BASE})


def test_big_endian(tmp_path: Path) -> None:
    value, values = state_of({"x": BASE, "y": np.array([1.5, -2])})
    swapped = {key: np.frombuffer(values[key], code).byteswap().tobytes() for key, code in (("0", "f4"), ("1", "f8"))}
    found = read(archive(tmp_path / "a", value, swapped, {"a/byteorder": b"big"})).tensors
    assert_same(found, {"x": BASE, "y": np.array([1.5, -2])}, list(found))


def test_deflated(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", *state_of({"x": BASE}), method=zipfile.ZIP_DEFLATED)
    assert_same(read(path).tensors, {"x": BASE})


def test_names_of_storages_and_integers_of_python_2(tmp_path: Path) -> None:
    """Its strings are bytes, and a storage's key can be any text."""
    name, key = (Raw(b"U" + bytes([len(text)]) + text) for text in (b"x", b"../k"))
    value = Raw(b"}" + opcodes(name) + opcodes(rebuilt(storage(key, 2, "FloatStorage", None))) + b"s")
    path = legacy(tmp_path / "a", value, [("../k", 2, np.float32([1, 2]).tobytes())])
    assert_same(read(path).tensors, {"x": np.float32([1, 2])})


def test_unsigned_and_other_numbers_by_their_dtype(tmp_path: Path) -> None:
    """PyTorch has no storage of them."""

    def named(key: str, nbytes: int, dtype: str) -> Reduce:
        of = Persistent(("storage", Global("torch.storage", "UntypedStorage"), key, "cpu", nbytes))
        arguments = (of, 0, (2,), (1,), False, ordered({}), Global("torch", dtype))
        return Reduce(Global("torch._utils", "_rebuild_tensor_v3"), arguments)

    expected = {name: np.array([1, 2**bits - 1], name) for bits in (16, 32, 64) for name in [f"uint{bits}"]}
    entries = {name: named(name, array.nbytes, name) for name, array in expected.items()}
    entries["small"] = named("small", 2, "float8_e4m3fn")
    values = {name: array.tobytes() for name, array in expected.items()} | {"small": b"ab"}
    loaded = read(archive(tmp_path / "a", entries, values))
    assert_same(loaded.tensors, expected)
    assert loaded.conversion.left_out == {"small": "float8_e4m3fn is not a numeric type that refnet reads"}


def test_what_is_not_a_plain_tensor_is_left_out(tmp_path: Path) -> None:
    x, values = state_of({"x": BASE})
    quantized = Reduce(Global("torch._utils", "_rebuild_qtensor"), (storage("0", 12), 0, (12,), (1,)))
    negated = rebuilt(storage("0", 12), 0, (12,), (1,), {"neg": True})
    subclass = Reduce(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (Global("torch._utils", "_rebuild_tensor_v2"), Global("my", "Tensor"), rebuilt(storage("0", 12)).arguments, {}),
    )
    entries = {**x.items, "q": quantized, "n": negated, "s": subclass, "i": 1, "t": "text", 5: None}
    loaded = read(archive(tmp_path / "a", ordered(entries), values))
    assert_same(loaded.tensors, {"x": BASE})
    assert loaded.conversion.left_out == {
        "q": "it is an object of torch._utils._rebuild_qtensor, not a tensor",
        "n": "its values stand in the file negated or conjugated",
        "s": "it is an object of torch._tensor._rebuild_from_type_v2, not a tensor",
        "i": "it is an int, not a tensor",
        "t": "it is a str, not a tensor",
    }


def test_tensors_that_share_memory_get_their_own(tmp_path: Path) -> None:
    """Kernels are packed in place."""
    both = ordered({"x": rebuilt(storage("0", 4), 0, (4,)), "y": rebuilt(storage("0", 4), 0, (4,))})
    found = read(archive(tmp_path / "a", both, {"0": np.float32([1, 2, 3, 4]).tobytes()})).tensors
    found["x"][:] = 0
    np.testing.assert_array_equal(found["y"], [1, 2, 3, 4])
    many = ordered({str(i): rebuilt(storage("0", 4), 0, (4,)) for i in range(100)})
    found = read(archive(tmp_path / "a", many, {"0": np.float32([1, 2, 3, 4]).tobytes()})).tensors
    assert_same(found, {str(i): np.float32([1, 2, 3, 4]) for i in range(100)})


# Which state dict.

SMALL, OTHER, LOSS = {"w": count(2, 2)}, {"w": count(2, 2) + 1}, {"loss": np.float32([1])}


def nested(tmp_path: Path, **parts: Any) -> Loaded:
    """What is read of a checkpoint whose parts are state dicts, or anything."""
    value, values = {}, {}
    for number, (key, part) in enumerate(parts.items()):
        value[key] = part
        if isinstance(part, dict) and all(isinstance(array, np.ndarray) for array in part.values()):
            value[key], own = state_of(part)
            rename = {name: f"{number}{name}" for name in own}
            entries = {name: _moved(entry, rename) for name, entry in value[key].items.items()}
            value[key] = value[key]._replace(items=entries)
            values |= {rename[name]: data for name, data in own.items()}
    return read(archive(tmp_path / "a", value, values))


def _moved(entry: Reduce, rename: Mapping[str, str]) -> Reduce:
    of, *rest = entry.arguments
    kind, storage_type, key, *more = of.identity
    return entry._replace(arguments=(Persistent((kind, storage_type, rename[key], *more)), *rest))


CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "state_dict": ({"epoch": 1, "state_dict": SMALL, "rng": LOSS}, ""),
    "model": ({"model": SMALL}, ""),
    "model_state_dict": ({"model_state_dict": SMALL, "loss": LOSS}, ""),
    "any name": ({"my_network": SMALL}, ""),
    "a usual name beside another": ({"model": SMALL, "criterion": OTHER}, "tensors beside model .*those of criterion"),
    "averages after": ({"state_dict": SMALL, "state_dict_ema": OTHER}, r"averages .*\(state_dict_ema\)"),
    "averages before": ({"ema_model": OTHER, "net": SMALL, "swa_state": OTHER}, r"\(ema_model, swa_state\)"),
    "averages alone": ({"model_ema": SMALL, "rng": LOSS}, r"averages of the weights were taken \(model_ema\)"),
    "no kernel at all": ({"state_dict": LOSS}, ""),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_state_dict_is_chosen(name: str, tmp_path: Path) -> None:
    parts, remark = CHOICES[name]
    loaded = nested(tmp_path, **parts)
    assert_same(loaded.tensors, LOSS if name == "no kernel at all" else SMALL)
    assert len(loaded.conversion.remarks) == bool(remark)
    if remark:
        with pytest.raises(AssertionError, match=remark):
            raise AssertionError(loaded.conversion.remarks[0])


def test_averages_are_taken_if_asked_for(tmp_path: Path) -> None:
    nested(tmp_path, state_dict=SMALL, state_dict_ema=OTHER)
    loaded = read(tmp_path / "a", averages=True)
    assert_same(loaded.tensors, OTHER)
    assert loaded.averaged
    assert any("averages of the weights were taken (state_dict_ema)" in note for note in loaded.conversion.remarks)
    nested(tmp_path, state_dict=SMALL)
    with pytest.raises(ConfigError, match="no averages of its weights"):
        read(tmp_path / "a", averages=True)


@pytest.mark.parametrize("names", [("encoder", "decoder"), ("model", "net"), ("ema", "swa")])
def test_several_state_dicts_are_listed(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"2 state dicts.*{names[0]}, {names[1]}"):
        nested(tmp_path, **dict.fromkeys(names, SMALL))


def test_one_state_dict_under_two_names(tmp_path: Path) -> None:
    value, values = state_of(SMALL)
    content = b"\x80\x02}(" + opcodes("model") + opcodes(value) + b"q\7" + opcodes("state_dict") + b"h\7u."
    loaded = read(archive(tmp_path / "a", content, values))
    assert_same(loaded.tensors, SMALL)
    assert loaded.conversion.remarks == []


def test_deeper_and_in_objects(tmp_path: Path) -> None:
    """Such as a trainer that was saved as a whole, and dicts of a class of their own."""
    value, values = state_of(SMALL)
    attributes = Reduce(Global("my", "Attributes"), (), {"model": value})
    trainer = Reduce(Global("my", "Trainer"), (), None, {"a": 1, "learner": attributes})
    assert_same(read(archive(tmp_path / "a", {"x": {"trainer": trainer}}, values)).tensors, SMALL)
    slots = Reduce(Global("my", "Trainer"), (), None, (None, {"model": value}))
    assert_same(read(archive(tmp_path / "a", slots, values)).tensors, SMALL)


# Pickles that want to run code. They are data; where nothing else is wrong, the file even loads.


class Runs:
    """A value whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _python(*arguments: Any) -> list[bytes]:
    """What Python's own pickler writes for a call, in all protocols."""
    return [pickle.dumps(Runs(*arguments), protocol) for protocol in range(6)]


def _attacks(marker: Path) -> list[bytes]:
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    attacks = _python(os.system, touch) + _python(eval, code) + _python(exec, code)
    attacks += _python(subprocess.check_output, ["touch", str(marker)]) + _python(open, str(marker), "w")
    attacks += _python(__import__, "antigravity")
    text = opcodes(touch)
    attacks += [
        b"\x80\x02cos\nsystem\n" + opcodes((touch,)) + b"R.",
        b"\x80\x02cos\nsystem\n" + opcodes((touch,)) + b"\x81.",  # NEWOBJ
        b"\x80\x04" + opcodes("os") + opcodes("system") + b"\x93" + opcodes((touch,)) + b"}\x92.",  # NEWOBJ_EX
        b"\x80\x02(cos\nsystem\n" + text + b"o.",
        b"\x80\x02(S'" + touch.encode() + b"'\nios\nsystem\n.",
        b"\x80\x02cbuiltins\nobject\n)\x81}" + opcodes("__setstate__") + b"cos\nsystem\nsb" + text + b"b.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + opcodes((touch,)) + b"R.",
        b"\x80\x02ctorch.hub\nload\n" + opcodes((touch,)) + b"R.",
        b"\x80\x02" + text + b"Pos.system\n.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02cantigravity\nfly\n.",
        b"\x80\x05" + opcodes("antigravity\nfly") + opcodes("x") + b"\x93.",
    ]
    return attacks


def test_nothing_is_run(tmp_path: Path, watch: Any) -> None:
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    value, values = state_of({"x": BASE})
    body = opcodes(value)
    attacks = _attacks(marker)
    assert len(attacks) > 40
    # What Python itself would do, so that the attacks are none of straw.
    pickle.loads(attacks[2])
    assert marker.exists()
    marker.unlink()
    loaded = 0
    for attack in attacks:
        inside = b"\x80\x02}(" + opcodes("x") + attack[2:-1] + opcodes("state_dict") + body + b"u."
        for content in (attack, inside):
            for write_file in (
                lambda content=content: archive(path, content, values),
                lambda content=content: legacy(path, content, [("0", 12, BASE.tobytes())]),
                lambda content=content: path.write_bytes(content),
                lambda content=content: archive(path, value, values, {"a/data.pkl": content, "a/code/x.py": content}),
            ):
                write_file()
                read_or_refuse(path)  # what Python imports for it, it has now
                with watch(str(path)):
                    loaded += read_or_refuse(path) is not None
                assert not marker.exists()
    assert loaded > 20


def test_an_attack_beside_weights_is_left_out(tmp_path: Path) -> None:
    value, values = state_of({"x": BASE})
    attack = Reduce(Global("os", "system"), ("true",))
    loaded = read(archive(tmp_path / "a", ordered({**value.items, "y": attack}), values))
    assert_same(loaded.tensors, {"x": BASE})
    assert loaded.conversion.left_out == {"y": "it is an object of os.system, not a tensor"}


# The machine, against Python's own pickler.

SIMPLE = st.one_of(st.none(), st.booleans(), st.integers(-(2**127), 2**127 - 1), st.floats(allow_nan=False), st.text())


def _values(leaves: Any) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.text() | st.integers(-9, 9), inner)
        ),
        max_leaves=20,
    )


# In protocol 2 bytes are a call.
PLAIN = st.one_of(
    st.tuples(st.just(2), _values(SIMPLE)), st.tuples(st.integers(3, 5), _values(SIMPLE | st.binary(max_size=300)))
)


@settings(max_examples=200, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=PLAIN)
def test_plain_values_are_pythons(case: tuple[int, Any]) -> None:
    protocol, value = case
    data = pickle.dumps(value, protocol)
    found = read_pickle(b"before" + data + b"after", 6, 0)
    assert found.end == 6 + len(data)
    assert repr(found.value) == repr(value)  # of the same types too


def test_values_inside_themselves_and_in_several_places() -> None:
    shared = ["x"]
    value: list[Any] = [shared, shared, (shared,)]
    value.append(value)
    for protocol in range(2, 6):
        found = read_pickle(pickle.dumps(value, protocol), 0, 0).value
        assert found[0] is found[1] is found[2][0]
        assert found[3] is found


def test_objects_are_notes_of_calls() -> None:
    for protocol in range(2, 6):
        found = read_pickle(pickle.dumps({"set": {"a"}, "type": Path, "path": Path("/x")}, protocol), 0, 0).value
        assert isinstance(found["type"], Name)
        assert found["type"].title.startswith("pathlib")
        assert isinstance(found["path"], Call)
        assert found["path"].title.startswith("pathlib")
        assert isinstance(found["set"], Call)
        assert found["set"].title in ("builtins.set", "__builtin__.set")
        assert found["set"].arguments == (["a"],)


def test_keys_that_would_take_time_without_bound(tmp_path: Path) -> None:
    """The hash of a tuple visits its parts wherever they are, and integers beyond 64 bits can share one hash."""
    twice = b")" + b"2\x86" * 60  # a tuple of a tuple, twice, 60 times
    numbers = b"".join(opcodes(5 + i * (2**61 - 1)) + b"N" for i in range(20_000))
    value, values = state_of({"x": BASE})
    for keys in (twice + b"N", numbers):
        content = b"\x80\x02}(" + keys + opcodes("model") + opcodes(value) + b"u."
        assert_same(read(archive(tmp_path / "a", content, values)).tensors, {"x": BASE})


# Files that are refused.

ONE = np.float32([1, 2]).tobytes()


def _pickle(content: bytes, error: type[RefnetError], message: str) -> BadFile:
    """A pickle in an archive with two storages."""
    return BadFile(lambda f: archive(f / "a.pth", content, {"0": ONE, "9": ONE}), error, message)


def _value(value: Any, error: type[RefnetError], message: str) -> BadFile:
    return _pickle(pickled(value), error, message)


def _tensor(of: Any, error: type[RefnetError], message: str) -> BadFile:
    """A tensor beside a sound one."""
    entries = {"good": rebuilt(storage("9", 2)), "x": of}
    return _value(ordered(entries), error, f"tensor 'x': .*{message}")


def _archive(error: type[RefnetError], message: str, value: Any = None, **others: bytes) -> BadFile:
    members = {name.replace("__", "/").replace("_dot_", "."): content for name, content in others.items()}
    sound = ordered({"x": rebuilt(storage("0", 2))})
    return BadFile(lambda f: archive(f / "a", value or sound, {"0": ONE}, members), error, message)


def _edited(error: type[RefnetError], message: str, member: str, field: int, layout: str, number: int) -> BadFile:
    """An archive whose directory says something else of a member."""

    def write_file(folder: Path) -> Path:
        path = archive(folder / "a", ordered({"x": rebuilt(storage("0", 2))}), {"0": ONE})
        content = bytearray(path.read_bytes())
        entry = content.rindex(b"PK\1\2", 0, content.rindex(member.encode()))
        struct.pack_into(layout, content, entry + field, number)
        path.write_bytes(content)
        return path

    return BadFile(write_file, error, message)


def _legacy(error: type[RefnetError], message: str, *, cut: int = 0, **changes: Any) -> BadFile:
    """A file of before PyTorch 1.6 in which something else is said."""

    def write_file(folder: Path) -> Path:
        sound = {"value": ordered({"x": rebuilt(storage("0", 2, "FloatStorage", None))}), "values": [("0", 2, ONE)]}
        path = legacy(folder / "a", **(sound | changes))
        path.write_bytes(path.read_bytes()[: -cut or None])
        return path

    return BadFile(write_file, error, message)


def _twice(folder: Path) -> Path:
    path = archive(folder / "a", ordered({"x": rebuilt(storage("0", 2))}), {"0": ONE})
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("a/data/0", bytes(8))
    return path


def _without(name: str) -> Callable[[Path], Path]:
    def write_file(folder: Path) -> Path:
        whole = archive(folder / "whole", ordered({"x": rebuilt(storage("0", 2))}), {"0": ONE})
        with zipfile.ZipFile(whole) as file, zipfile.ZipFile(folder / "a", "w") as part:
            for member in file.infolist():
                if member.filename != name:
                    part.writestr(member, file.read(member))
        return folder / "a"

    return write_file


def _shared_bomb(folder: Path) -> Path:
    """Thousands of tensors of one storage, each with the values in another order."""
    value = {f"x{i}": rebuilt(storage("0", 10_000), 0, (100, 100), (1, 100)) for i in range(3000)}
    return archive(folder / "a", ordered(value), {"0": bytes(40_000)})


def _modules(state: Any) -> Reduce:
    return Reduce(Global("my", "Net"), (), None, state)


def _doubled_modules(depth: int) -> bytes:
    """A module that is twice in a module, which is twice in a module, ...: a short file, and 2^depth names."""
    content = opcodes(_modules({"_parameters": {}, "_buffers": {}, "_modules": {}}))
    for _ in range(depth):
        content += b"q\0" + b"0"  # remembered, and off the stack
        content += b"cmy\nNet\n)R}(" + opcodes("_parameters") + b"}" + opcodes("_buffers") + b"}" + opcodes("_modules")
        content += b"}(" + opcodes("a") + b"h\0" + opcodes("b") + b"h\0" + b"u" + b"ub"
    return b"\x80\x02" + content + b"."


def _repeated_dicts(depth: int, names: int) -> bytes:
    """A dict under many names in a dict, which is under many names in a dict, ...: names^depth ways."""
    content = b"}" + opcodes("x") + b"Ns"
    for _ in range(depth):
        content += b"q\0" + b"0}(" + b"".join(opcodes(f"{i}") + b"h\0" for i in range(names)) + b"u"
    return b"\x80\x02" + content + b"."


_FLOOD = b"\x80\x02" + b"}" * 600_000 + b"."
_LONG = "x" * 100_000

PICKLES: dict[str, tuple[bytes, type[RefnetError], str]] = {
    "empty": (b"", FormatError, "does not start with"),
    "protocol 0": (pickle.dumps({}, 0), FormatError, "not a pickle of protocol 2 or later"),
    "protocol 1": (pickle.dumps({}, 1), FormatError, "not a pickle of protocol 2 or later"),
    "protocol 6": (b"\x80\x06}.", FormatError, "protocol 6"),
    "another protocol later": (b"\x80\x02}\x80\x04.", FormatError, "protocol 4, or changes it"),
    "cut off": (b"\x80\x02}", CorruptError, "cut off"),
    "cut off in a number": (b"\x80\x02J\0\0", CorruptError, "cut off"),
    "cut off in a name": (b"\x80\x02ctorch", CorruptError, "cut off"),
    "a text longer than the file": (b"\x80\x02X\xff\xff\xff\xffabc", CorruptError, "cut off"),
    "a text of 2^63 bytes": (b"\x80\x04\x8d" + bytes(7) + b"\x80abc", CorruptError, "cut off"),
    "a frame longer than the file": (b"\x80\x04\x95" + bytes(7) + b"\x80}.", CorruptError, "cut off"),
    "an integer longer than the file": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", CorruptError, "cut off"),
    "a text that is not UTF-8": (b"\x80\x02X\2\0\0\0\xff\xff.", FormatError, "not UTF-8"),
    "a negative length": (b"\x80\x02T\xff\xff\xff\xff.", FormatError, "negative length"),
    "a name of 1 MB": (b"\x80\x02c" + b"x" * 1_000_000 + b"\ny\n.", FormatError, "more than 1000 bytes"),
    "a name of 1 MB on the stack": (b"\x80\x04" + opcodes("x" * 1_000_000) + b"2\x93.", FormatError, "short texts"),
    "a name of numbers": (b"\x80\x04NN\x93.", FormatError, "short texts"),
    "an unknown opcode": (b"\x80\x02\xff.", FormatError, r"opcode b'\\xff'"),
    "an extension": (b"\x80\x02\x82\1.", FormatError, r"opcode b'\\x82'"),
    "a reference as text": (b"\x80\x02Px\n.", FormatError, "opcode b'P'"),
    "an instance of protocol 0": (b"\x80\x02(ios\nsystem\n.", FormatError, "opcode b'i'"),
    "memory from outside": (b"\x80\x05\x97.", FormatError, r"opcode b'\\x97'"),
    "nothing on the stack": (b"\x80\x02s.", FormatError, "more values than there are"),
    "values from below a mark": (b"\x80\x02}NN(s.", FormatError, "more values than there are"),
    "a tuple of too few": (b"\x80\x02N\x87.", FormatError, "more values than there are"),
    "no mark": (b"\x80\x02]Ne.", FormatError, "more values than there are"),
    "no value": (b"\x80\x02.", FormatError, "one value"),
    "two values": (b"\x80\x02}}.", FormatError, "one value"),
    "a mark left": (b"\x80\x02(}.", FormatError, "one value"),
    "a value that was not remembered": (b"\x80\x02h\7.", FormatError, "recalls value 7"),
    "arguments that are a list": (b"\x80\x02cos\nsystem\n]R.", FormatError, "not a tuple"),
    "a call of a number": (b"\x80\x02K\1)R.", FormatError, "not a name"),
    "a call of data": (b"\x80\x02NQ)R.", FormatError, "not a name"),
    "keywords that are a list": (b"\x80\x04cos\nsystem\n)]\x92.", FormatError, "keywords"),
    "a state of a list": (b"\x80\x02]}b.", FormatError, "not an object"),
    "a state of a name": (b"\x80\x02cos\nsystem\n}b.", FormatError, "not an object"),
    "items of a list": (b"\x80\x02]NNs.", FormatError, "not a dict"),
    "items of a number": (b"\x80\x02K\1(NNu.", FormatError, "not a dict"),
    "a key without a value": (b"\x80\x02}(Nu.", FormatError, "no value"),
    "a key that is a list": (b"\x80\x02}]Ns.", FormatError, "a key is a list"),
    "a value appended to a dict": (b"\x80\x02}Na.", FormatError, "not a list"),
    "values added to a list": (b"\x80\x04](N\x90.", FormatError, "not a set"),
    "bytes after the end": (b"\x80\x02}.}.", FormatError, "2 bytes follow the pickle"),
    "600,000 dicts": (_FLOOD, LimitError, "opcodes"),
    "modules in modules without end": (_doubled_modules(60), LimitError, "without end"),
    "a module in itself": (
        b"\x80\x02cmy\nNet\n)Rq\0}(" + opcodes("_parameters") + b"}" + opcodes("_buffers") + b"}"
        + opcodes("_modules") + b"}" + opcodes("a") + b"h\0sub.",
        LimitError, "without end",
    ),
    "a tuple 200,000 deep": (b"\x80\x02)" + b"\x85" * 200_000 + b".", FormatError, "no state dict, but a tuple"),
    "dicts under many names": (_repeated_dicts(7, 100), FormatError, "a dict with the keys 0, 1, "),
    "a list in itself": (b"\x80\x02]q\0h\0a.", FormatError, "no state dict, but a list"),
    "a dict in itself": (b"\x80\x02}q\0" + opcodes("a") + b"h\0s.", FormatError, "a dict with the keys a"),
}  # fmt: skip

HUGE = 2**40
BAD: dict[str, BadFile] = {
    **{f"the pickle: {name}": _pickle(*row) for name, row in PICKLES.items()},
    "no tensor: a number": _value(3, FormatError, "no state dict, but an int"),
    "no tensor: a call": _value(Reduce(Global("os", "system"), ("x",)), FormatError, "an object of os.system"),
    "no tensor: a dict": _value({"epoch": 3, _LONG: 1}, FormatError, r"a dict with the keys epoch, x{100}\.\.\.: save"),
    "no tensor: one alone": _value(rebuilt(storage("0", 2)), FormatError, "an object of torch._utils._rebuild_tensor"),
    "no tensor: a list of them": _value([rebuilt(storage("0", 2))], FormatError, "no state dict, but a list"),
    "no tensor: an optimizer's": _value({"state": {}, "param_groups": []}, FormatError, "no state dict"),
    "a storage that is missing": _tensor(rebuilt(storage("1", 2)), CorruptError, "storage '1' is missing"),
    "a storage elsewhere": _tensor(rebuilt(storage("../../b", 2)), CorruptError, r"'../../b' is missing"),
    "a storage that is longer": _tensor(rebuilt(storage("0", 3)), CorruptError, "has 8 bytes, but 3 elements"),
    "a storage of another type": _tensor(rebuilt(storage("0", 2, "HalfStorage")), CorruptError, "HalfStorage take 4"),
    "a storage of 8 TiB": _tensor(rebuilt(storage("0", 2 * HUGE), 0, (2 * HUGE,)), CorruptError, f"{8 * HUGE}"),
    "a storage of no elements": _tensor(rebuilt(storage("0", -2)), FormatError, "storage is none"),
    "a storage of an unknown type": _tensor(rebuilt(storage("0", 2, "LostStorage")), FormatError, "storage is none"),
    "a storage by a number": _tensor(rebuilt(storage(0, 2)), FormatError, "storage is none"),
    "a storage of text elements": _tensor(rebuilt(storage("0", "2")), FormatError, "storage is none"),
    "a storage that is a view": _value(
        {"x": rebuilt(storage("0", 2, "FloatStorage", ("1", 0, 2)))}, FormatError, "part of another"
    ),
    "a storage that is no reference": _tensor(rebuilt("0"), FormatError, "storage is none"),
    "a storage of two types": _value(
        {"x": rebuilt(storage("0", 2, "HalfStorage")), "y": rebuilt(storage("0", 2, "BFloat16Storage"))},
        FormatError, "say different things of storage '0'",
    ),
    "a tensor beyond its storage": _tensor(rebuilt(storage("0", 2), 1, (2,)), CorruptError, "ends at element 3"),
    "strides beyond the storage": _tensor(rebuilt(storage("0", 2), 0, (2,), (2,)), CorruptError, "ends at element 3"),
    "an offset beyond the storage": _tensor(rebuilt(storage("0", 2), 2**63, ()  , ()), CorruptError, "ends at element"),
    "strides of 0": _tensor(rebuilt(storage("0", 2), 0, (HUGE,), (0,)), LimitError, f"takes {4 * HUGE} bytes"),
    "strides of 0 and three values": _tensor(rebuilt(storage("0", 2), 0, (3,), (0,)), LimitError, "takes 12 bytes"),
    "a negative stride": _tensor(rebuilt(storage("0", 2), 1, (2,), (-1,)), FormatError, "strides is not of whole"),
    "a negative offset": _tensor(rebuilt(storage("0", 2), -1), FormatError, "offset is not of whole"),
    "a negative dimension": _tensor(rebuilt(storage("0", 2), 0, (-2,)), FormatError, "shape is not of whole"),
    "a float dimension": _tensor(rebuilt(storage("0", 2), 0, (2.0,)), FormatError, "shape is not of whole"),
    "a bool dimension": _tensor(rebuilt(storage("0", 2), 0, (True,)), FormatError, "shape is not of whole"),
    "a long dimension": _tensor(rebuilt(storage("0", 2), 0, (2**600,)), FormatError, "shape is not of whole"),
    "a shape that is a list": _tensor(rebuilt(storage("0", 2), 0, [2]), FormatError, "shape is not of whole"),
    "fewer strides": _tensor(rebuilt(storage("0", 2), 0, (1, 2)), FormatError, "2 dimensions, but 1 strides"),
    "33 dimensions": _tensor(rebuilt(storage("0", 2), 0, (1,) * 33, (1,) * 33), FormatError, "33 dimensions"),
    "a product over 2^64": _tensor(rebuilt(storage("0", 2), 0, (HUGE, HUGE), (1, 1)), LimitError, "more bytes"),
    "more than 2^64 times 0": _tensor(rebuilt(storage("0", 2), 0, (2**63, 0), (1, 1)), LimitError, "more bytes"),
    "a tensor of nothing": _tensor(Reduce(Global("torch._utils", "_rebuild_tensor"), ()), FormatError, "not 0 values"),
    "a name that is not Unicode": _value(
        ordered({"\udcff": rebuilt(storage("0", 2))}), FormatError, r"tensor '\\udcff': its name"
    ),
    "a name of 100,000 characters": _value(
        ordered({_LONG: rebuilt(storage("1", 2))}), CorruptError, r"tensor 'x{100}\.\.\.': its storage"
    ),
    "the values of 3000 tensors in those of one": BadFile(_shared_bomb, LimitError, "share the 40000 that"),
    "a member twice": BadFile(_twice, FormatError, "'a/data/0' is in the archive twice"),
    "no pickle": BadFile(_without("a/data.pkl"), FormatError, r"FOLDER/data\.pkl; this one has none"),
    "no values": BadFile(_without("a/data/0"), CorruptError, "storage '0' is missing"),
    "two pickles": _archive(FormatError, r"has a/data\.pkl, b/data\.pkl", b__data_dot_pkl=b"\x80\x02}."),
    "TorchScript": _archive(FormatError, "a TorchScript archive.*torch.jit.load", a__constants_dot_pkl=b""),
    "torch.export": _archive(FormatError, "torch.export saved", a__archive_format=b"pt2"),
    "a byte order": _archive(FormatError, "byte order is b'middle'", a__byteorder=b"middle"),
    "a name that leads outside": _archive(FormatError, "leads outside", __etc__passwd=b""),
    "no checksums": _edited(CorruptError, "set_crc32_options", "a/data.pkl", 16, "<L", 0),
    "no checksums, by PyTorch": BadFile(
        lambda f: shutil.copy(DATA / "no_checksums.pth", f / "a"), CorruptError, "set_crc32_options"
    ),
    "a wrong checksum of the pickle": _edited(CorruptError, r"data\.pkl'.*CRC-32 differs", "a/data.pkl", 16, "<L", 1),
    "a wrong checksum of values": _edited(CorruptError, "tensor 'x': .*CRC-32 differs", "a/data/0", 16, "<L", 1),
    "encrypted values": _edited(FormatError, "encrypted", "a/data/0", 8, "<H", 1),
    "another compression": _edited(FormatError, "another method", "a/data/0", 10, "<H", zipfile.ZIP_LZMA),
    "values longer than the file": _edited(FormatError, "overlaps", "a/data/0", 20, "<L", 1 << 20),
    "values that expand from nothing": _edited(LimitError, "cannot expand", "a/data/0", 24, "<L", 1 << 20),
    "a member that starts elsewhere": _edited(CorruptError, "damaged", "a/data.pkl", 42, "<L", 7),
    "legacy: cut off in the values": _legacy(CorruptError, "ends at byte", cut=1),
    "legacy: cut off before the values": _legacy(CorruptError, "cut off", cut=9),
    "legacy: cut off in the pickles": _legacy(CorruptError, "cut off", cut=30),
    "legacy: bytes after the end": _legacy(FormatError, "3 bytes follow", end=b"abc"),
    "legacy: another version": _legacy(FormatError, "version", start=pickled(MAGIC_NUMBER) + pickled(1002)),
    "legacy: another magic number": _legacy(
        FormatError, "magic number", start=pickled(3) + pickled(MAGIC_NUMBER)
    ),
    "legacy: a big-endian machine": _legacy(FormatError, "big-endian", system={"little_endian": False}),
    "legacy: a machine that is no dict": _legacy(FormatError, "big-endian", system=[]),
    "legacy: a list of storages with another": _legacy(FormatError, "list of storages", keys=["0", "1"]),
    "legacy: a list of storages that is none": _legacy(FormatError, "list of storages", keys={"0": "0"}),
    "legacy: a list of storages with a list": _legacy(FormatError, "list of storages", keys=[["0"]]),
    "legacy: a storage twice": _legacy(FormatError, "storage '0' has", keys=["0", "0"], values=[("0", 2, ONE)] * 2),
    "legacy: a storage that is not listed": _legacy(CorruptError, "storage '0' is missing", values=[]),
    "legacy: a storage of another size": _legacy(FormatError, "has 3 elements", values=[("0", 3, ONE)]),
    "legacy: a storage of 2^63 elements": _legacy(FormatError, f"has {2**63} elements", values=[("0", 2**63, ONE)]),
    "legacy: a storage of two types": _legacy(
        FormatError, "say different things of storage '0'",
        value={"x": rebuilt(storage("0", 2, "FloatStorage", None)), "y": rebuilt(storage("0", 2, "IntStorage", None))},
    ),
    "legacy: a view": _legacy(
        FormatError, "part of another", value=ordered({"x": rebuilt(storage("0", 2, "FloatStorage", ("1", 0, 1)))})
    ),
    **{
        f"a pickle that is not PyTorch's, protocol {protocol}": bad_files.content(
            pickle.dumps({"model": {"conv1": np.ones(3)}}, protocol), FormatError,
            "a pickle, of a dict, but not one that torch.save.*numpy.savez", "a.pkl",
        )
        for protocol in (2, 3, 4, 5)
    },
    **{
        f"a pickle of {name}, protocol {protocol}": bad_files.content(
            pickle.dumps(value, protocol), FormatError, "a pickle, but not one that torch.save.*numpy.savez"
        )
        for protocol in (0, 1)
        for name, value in {"a dict": {"a": 1}, "a list": [1], "an array": np.ones(3), "an object": Path("/x")}.items()
    },
    "a pickled object": bad_files.content(
        pickle.dumps(Path("/x")), FormatError, r"a pickle, of an object of pathlib\.\w+, but"
    ),
    "a pickle with arrays in between": bad_files.content(b"\x80\x04\x95junk", FormatError, "a pickle, but not one"),
    "a tar archive": bad_files.content(bytes(257) + b"ustar" + bytes(250), FormatError, "a tar archive.*PyTorch"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    error = check_refused(BAD[name], tmp_path, watch)
    if "tensor 'x'" in BAD[name].message:
        assert error.tensor == "x"


def test_several_problems_are_all_listed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", ordered({"x": rebuilt(storage("1", 2)), "y": rebuilt(storage("2", 2))}))
    with pytest.raises(CorruptError, match=r"2 problems(.|\n)*'x'(.|\n)*'y'"):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_large_storages_beside_small_ones(zipped: bool, tmp_path: Path) -> None:
    """The large ones are read in threads."""
    rng = np.random.default_rng(0)
    sizes = {"a": 300_000, "b": 3, "c": 200_000, "d": 5, "e": 400_000, "f": 0}
    arrays = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
    path = save(tmp_path / "x", arrays, zipped=zipped)
    assert_same(read(path).tensors, arrays)
    if not zipped:  # it has no checksums
        return
    content = bytearray(path.read_bytes())
    for name in ("a", "d", "e"):
        content[content.index(arrays[name].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"(?s)3 problems.* 'a': .* 'd': .* 'e': "):
        read(path)


def test_small_files_take_little_memory(tmp_path: Path) -> None:
    """Each would take gigabytes, and is read with 256 MiB to spare."""
    many = 500_000
    archive(tmp_path / "dicts", b"\x80\x02" + b"}" * many + b".")
    archive(tmp_path / "sets", b"\x80\x04" + b"\x8f" * many + b".")
    archive(tmp_path / "marks", b"\x80\x02" + b"(" * many + b".")
    archive(tmp_path / "memo", b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", i) for i in range(many)) + b".")
    archive(tmp_path / "calls", b"\x80\x02cos\nsystem\n" + b")R" * (many // 2) + b".")
    archive(tmp_path / "modules", _doubled_modules(60))
    archive(tmp_path / "storage", {"x": rebuilt(storage("0", HUGE), 0, (HUGE,))}, {"0": b""})
    archive(tmp_path / "strides", {"x": rebuilt(storage("0", 2), 0, (HUGE,), (0,))}, {"0": ONE})
    _shared_bomb(tmp_path).rename(tmp_path / "shared")
    legacy(tmp_path / "legacy", {"x": rebuilt(storage("0", HUGE, "FloatStorage", None))}, [("0", HUGE, ONE)])
    script = """
import resource, sys
from refnet.errors import RefnetError
from refnet.weights.formats import read
for path in sys.argv[1:]:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    try:
        read(path)
    except RefnetError as error:
        print(type(error).__name__)
"""
    expected = {
        "dicts": "FormatError", "sets": "FormatError", "marks": "FormatError", "memo": "FormatError",
        "calls": "FormatError", "modules": "LimitError", "storage": "CorruptError", "strides": "LimitError",
        "shared": "LimitError", "legacy": "CorruptError",
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    paths = [str(tmp_path / name) for name in expected]
    done = subprocess.run([sys.executable, "-c", script, *paths], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == list(expected.values()), done.stderr


# Forged files: something is said that torch.save does not say, with valid checksums.

FORGERIES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@settings(max_examples=300, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 2),
    changes=FORGERIES,
    cut=st.just(1.0) | st.floats(0, 1),
    more=st.just(b"") | st.binary(max_size=9),
    zipped=st.booleans(),
)
def test_forged_pickles(
    which: int, changes: Any, cut: float, more: bytes, zipped: bool, tmp_path: Path, watch: Any
) -> None:
    value, values = state_of({"x": BASE, "y": np.array([1.5, -2])}, *([] if zipped else [None]))
    module = _modules({"_parameters": {"x": value.items["x"]}, "_buffers": {}, "_modules": {"a": None}})
    content = bytearray(pickled([value, {"model": value, "optimizer": {}}, module][which]))
    for where, byte in changes:
        content[int(where * len(content))] = byte
    content = content[: round(cut * len(content))] + more
    path = tmp_path / "a"
    if zipped:
        archive(path, bytes(content), values)
    else:
        legacy(path, bytes(content), [("0", 12, values["0"]), ("1", 2, values["1"])])
    with watch(str(path)):
        found = read_or_refuse(path)
    for name, array in ({} if found is None else found.tensors).items():
        assert array.nbytes <= 2 * (BASE.nbytes + 16), name


# Networks.

SMALL_NET = Description(((3, 2), (5, 1), (4, 2)), 7)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_is_that_of_safetensors(zipped: bool, tmp_path: Path) -> None:
    state = draw_state(SMALL_NET, 1)
    write(tmp_path / "a.safetensors", state, {})
    path = save(tmp_path / "a.pth", state, zipped=zipped)
    theirs, ours = (refnet.load_weights(each) for each in (tmp_path / "a.safetensors", path))
    assert ours.keys() == theirs.keys()
    assert all(array.tobytes() == theirs[name].tobytes() for name, array in ours.items())
    assert (ours.options, ours.recipe) == (theirs.options, theirs.recipe)
    assert ours.conversion.renamed == theirs.conversion.renamed
    assert ours.source == ("PyTorch" if zipped else "PyTorch, legacy")
    images = random_images(2, 224, 224, 3, seed=2)[:, :33, :33]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        np.testing.assert_array_equal(refnet.forward(path, images), refnet.forward(theirs, images), strict=True)


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    state, values = state_of(draw_state(SMALL_NET, 1))
    parts = {"model": state, "ema": state._replace(function=Global("my", "Dict")), "optimizer": {"state": {}}}
    parts["optimizer"]["param_groups"] = []
    weights = refnet.load_weights(archive(tmp_path / "a.pth", parts, values))
    assert "optimizer was left out: it is the state of an optimizer" in weights.notes
    assert any("holds averages of the weights too (ema)" in note for note in weights.notes)


# Against PyTorch itself, where it is installed.


def _same_as_torch(found: Mapping[str, np.ndarray], theirs: Mapping[str, Any]) -> None:
    import torch  # type: ignore[import-not-found]

    assert list(found) == list(theirs)
    for name, tensor in theirs.items():
        tensor = tensor.detach()
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert found[name].tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(protocol: int, zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rng = torch.Generator().manual_seed(protocol)
    base = torch.randn(4, 6, generator=rng)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    module.register_buffer("halves", base[:2].half())
    tensors = {
        "view": base[1:3, 2:5],
        "transposed": base.t(),
        "every other": base[::2, ::3],
        "base": base,
        "channels_last": torch.randn(2, 3, 4, 5, generator=rng).to(memory_format=torch.channels_last),
        "bfloat16": base.bfloat16()[1],
        "double": base.double(),
        "long": torch.arange(-3, 3),
        "parameter": torch.nn.Parameter(base[0]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(2, 0),
    }
    parallel = torch.nn.DataParallel(module)
    objects = [
        (tensors, tensors),
        (module, module.state_dict()),
        (parallel, parallel.state_dict()),
        ({"net": module, "epoch": 1}, module.state_dict()),
        ({"state_dict": module.state_dict(), "optimizer": torch.optim.Adam(module.parameters()).state_dict()},
         module.state_dict()),
    ]  # fmt: skip
    for value, state in objects:
        torch.save(value, tmp_path / "a", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        _same_as_torch(read(tmp_path / "a").tensors, state)
        if protocol == 2 and value is tensors:
            _same_as_torch(read(tmp_path / "a").tensors, torch.load(tmp_path / "a", weights_only=True))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_reads_the_forged_files_alike(zipped: bool, tmp_path: Path) -> None:
    """So that the files that these tests write are PyTorch's."""
    torch = pytest.importorskip("torch")
    path = save(tmp_path / "a", {"x": BASE, "y": np.array([1.5, -2]), "z": np.arange(3)}, zipped=zipped)
    _same_as_torch(read(path).tensors, torch.load(path, weights_only=True))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_published_networks(library: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    models = pytest.importorskip(library)
    model = models.models.resnet50() if library == "torchvision" else models.create_model("resnetv2_50")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    write(tmp_path / "a.safetensors", {name: value.numpy() for name, value in model.state_dict().items()}, {})
    ours, theirs = (refnet.load_weights(tmp_path / name) for name in ("a.pth", "a.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(array.tobytes() == theirs[name].tobytes() for name, array in ours.items())
