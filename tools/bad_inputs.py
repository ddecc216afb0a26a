"""Print the error of every bad input in the tests, and what damage does to good files.

    python tools/bad_inputs.py                 # each bad file, image, call and command line, with its error
    python tools/bad_inputs.py --only images   # or only files, configs, images, calls or commands
    python tools/bad_inputs.py --fuzz 2000     # 2000 damaged files of each format

The exit code is 1 if a bad input gives another error than the tests expect, or none. Damage is flipped bytes, a cut or
an addition, drawn from the number of the trial; a file with checksums must never give other values.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import re
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

import refnet
from refnet.cli import main as command_line
from refnet.cli.console import printable
from refnet.errors import InputError, RefnetError
from refnet.weights.formats import read, write
from tests.refnet import bad_calls, bad_commands, bad_images
from tests.refnet.formats import (
    bad_configs,
    test_bad_goldens,
    test_bad_weights,
    test_foreign,
    test_keras,
    test_npz,
    test_onnx,
    test_pytorch,
    test_read,
    test_safetensors,
    test_saved_model,
    test_tf_checkpoint,
)
from tests.refnet.formats.bad_files import BadFile, flip
from tests.refnet.formats.tables import Tables
from tests.refnet.formats.torch_files import save as save_torch
from tests.support.nets import lively_weights

BAD: dict[str, Mapping[str, BadFile]] = {
    "any format": test_read.BAD,
    "TF checkpoint": test_tf_checkpoint.BAD,
    "SavedModel, object-based": test_saved_model.BAD,
    "safetensors": test_safetensors.BAD,
    "npz": test_npz.BAD,
    "PyTorch": test_pytorch.BAD,
    "ONNX": test_onnx.BAD,
    "Keras .h5, .keras": test_keras.BAD,
    "other formats": test_foreign.BAD,
    "sound, but no network": test_bad_weights.BAD,
    "golden": test_bad_goldens.BAD,
}
ARRAYS = {
    "conv1_conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4),
    "post_bn/beta": np.linspace(0, 1, 16, dtype=np.float32),
}


def main() -> int:
    """Print the tables; 1 if the tests and refnet disagree."""
    # Pillow's, of damaged metadata: the tables show what refnet says.
    warnings.filterwarnings("ignore", module="PIL")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=INPUTS, action="append", help="print only these")
    parser.add_argument("--fuzz", type=int, metavar="N", help="damage a good file of each format N times instead")
    arguments = parser.parse_args()
    console = Console()
    if arguments.fuzz:
        console.print(fuzz_table(arguments.fuzz))
        return 0
    wrong = 0
    for kind in arguments.only or INPUTS:
        rows = list(INPUTS[kind]())
        table = Table("of", "what is wrong", "error", "message", title=f"Bad {kind}")
        for row in rows:
            table.add_row(*map(printable, row[:-1]))
        console.print(table)
        others = [row for row in rows if not row.expected]
        console.print(f"{len(rows)} bad {kind}, {len(others)} of them with another error than the tests expect")
        wrong += len(others)
    return int(wrong > 0)


class Row(NamedTuple):
    """What the input is for, what is wrong with it, the error, its message, and whether the tests expect that."""

    of: str
    wrong: str
    error: str
    message: str
    expected: bool


def refusal(act: Callable[[], object]) -> RefnetError | None:
    """The error that something gives; None if it gives none."""
    try:
        act()
    except RefnetError as error:
        return error
    return None


def row_of(of: str, wrong: str, act: Callable[[], object], error: type[RefnetError], message: str) -> Row:
    """A row about an error of refnet's own."""
    found = refusal(act)
    if found is None:
        return Row(of, wrong, "none", "", expected=False)
    # A list of problems begins on the second line.
    text = " ".join(line.strip() for line in found.message.splitlines()[:2])
    expected = isinstance(found, error) and bool(re.search(message, found.message))
    return Row(of, wrong, type(found).__name__, text, expected)


def bad_files() -> Iterator[Row]:
    """Every file of weights, and golden."""
    for file_format, cases in BAD.items():
        yield from _files(file_format, cases)


def _files(of: str, cases: Mapping[str, BadFile]) -> Iterator[Row]:
    for name, bad in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            path = bad.write(Path(folder))
            row = row_of(of, name, lambda bad=bad, path=path: bad.read(path), bad.error, bad.message)
        yield row._replace(message=row.message.replace(f"{folder}/", ""))


def configs() -> Iterator[Row]:
    """Every file of configuration beside weights."""
    for name, cases in bad_configs.BAD.items():
        yield from _files(name, cases)


def images() -> Iterator[Row]:
    """Every image, in a file and in an array."""
    yield from _files("file", bad_images.FILES)
    engine = refnet.Engine(lively_weights())
    for name, (array, message) in bad_images.ARRAYS.items():
        yield row_of("array", name, lambda array=array: engine(array), InputError, message)


def calls() -> Iterator[Row]:
    """Every call with a wrong argument."""
    with tempfile.TemporaryDirectory() as folder:
        bad_calls.make_files(Path(folder))
        for bad in bad_calls.bad_calls(Path(folder)):
            yield row_of(bad.function, bad.wrong, bad.call, bad.error, bad.message)


def commands() -> Iterator[Row]:
    """Every command line; the error is its exit code."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        bad_commands.make_bad_files(Path(folder))
        for bad in bad_commands.bad_commands():
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                code = command_line(bad.arguments)
            errors = [line for line in said.getvalue().splitlines() if line.startswith("refnet: error: ")]
            message = errors[0].removeprefix("refnet: error: ") if errors else ""
            line = " ".join(map(bad_calls.text_of, bad.arguments)).replace("'", "")
            expected = code == bad.code and bool(re.search(bad.message, message))
            yield Row(
                f"refnet {bad.arguments[0] if bad.arguments else ''}", line, f"exit code {code}", message, expected
            )


INPUTS: dict[str, Callable[[], Iterator[Row]]] = {
    "files": bad_files,
    "configs": configs,
    "images": images,
    "calls": calls,
    "commands": commands,
}


class Tally(NamedTuple):
    """What became of damaged files."""

    refused: int
    equal: int
    other: int
    seconds: float
    slowest: float


def fuzz_table(count: int) -> Table:
    """What becomes of ``count`` damaged files of each format."""
    table = Table("format", "files", "refused", "the same values", "other values", "seconds", "slowest, ms")
    for name, save in SOUND.items():
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder) / name)
            tally = damage(Path(folder), Path(folder) / name, count)
        numbers = (count, *tally[:3], f"{tally.seconds:.1f}", f"{1e3 * tally.slowest:.1f}")
        table.add_row(name, *map(str, numbers))
    return table


def damage(folder: Path, path: Path, count: int) -> Tally:
    """Damage one of the files in a folder and read it, ``count`` times."""
    sound = {file: file.read_bytes() for file in sorted(folder.iterdir())}
    expected = read(path).tensors
    outcomes, times = [], []
    for trial in range(count):
        draw = random.Random(trial)
        file = draw.choice(list(sound))
        file.write_bytes(damaged(sound[file], draw))
        start = time.perf_counter()
        outcomes.append(outcome(path, expected))
        times.append(time.perf_counter() - start)
        file.write_bytes(sound[file])
    counts = (outcomes.count(kind) for kind in ("refused", "equal", "other"))
    return Tally(*counts, sum(times), max(times))


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to four flipped bytes, or a part of the file, with or without an addition."""
    if draw.random() < 0.7:
        return flip(content, [(draw.random(), draw.randint(1, 255)) for _ in range(draw.randint(1, 4))])
    return content[: int(draw.random() * len(content))] + draw.randbytes(draw.choice([0, 0, 9, 60]))


def outcome(path: Path, expected: Mapping[str, np.ndarray]) -> str:
    """Whether reading is refused, or gives the expected values, or others; anything else is an error."""
    try:
        found = read(path).tensors
    except RefnetError:
        return "refused"
    same = found.keys() == expected.keys()
    return "equal" if same and all(found[name].tobytes() == expected[name].tobytes() for name in found) else "other"


def _save(path: Path) -> None:
    write(path, ARRAYS, {})


def _save_deflated(path: Path) -> None:
    np.savez_compressed(path, **ARRAYS)


def _save_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            layer, role = name.split("/")
            file[f"{layer}/{layer}/{role}:0"] = array


def _save_keras(path: Path) -> None:
    inner = path.with_name("inner.h5")
    _save_hdf5(inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", inner.read_bytes())
    inner.unlink()


def _save_v1(path: Path) -> None:
    path.write_bytes(test_tf_checkpoint.v1_file(Tables, 1, (6,), Tables.field(5, test_tf_checkpoint.DATA)))


def _save_objects(path: Path) -> None:
    test_saved_model.write(path, test_saved_model.GRAPH)


def _save_pytorch(path: Path) -> None:
    save_torch(path, ARRAYS, zipped=path.name != "legacy.pth")


def _save_onnx(path: Path) -> None:
    path.write_bytes(test_onnx.proto(test_onnx.V2).SerializeToString())


SOUND: dict[str, Callable[[Path], None]] = {
    "v1": _save_v1,
    "v2.ckpt": _save,
    "object-based": _save_objects,
    "stored.npz": _save,
    "deflated.npz": _save_deflated,
    "a.safetensors": _save,
    "zip.pth": _save_pytorch,
    "legacy.pth": _save_pytorch,
    "a.onnx": _save_onnx,
    "a.keras": _save_keras,
    "a.h5": _save_hdf5,
}


if __name__ == "__main__":
    raise SystemExit(main())
