"""Print the error of every bad weights file in the tests, and what damage does to good files.

    python tools/bad_files.py                # each bad file, with its error
    python tools/bad_files.py --fuzz 2000    # 2000 damaged files of each format

The exit code is 1 if a bad file gives another error than the tests expect, or none. Damage is flipped bytes, a cut or
an addition, drawn from the number of the trial; a file with checksums must never give other values.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from refnet.errors import RefnetError
from refnet.weights.formats import read, write
from tests.refnet.formats import (
    test_bad_goldens,
    test_bad_weights,
    test_keras,
    test_npz,
    test_pytorch,
    test_read,
    test_safetensors,
    test_saved_model,
    test_tf_checkpoint,
)
from tests.refnet.formats.bad_files import BadFile, flip
from tests.refnet.formats.tables import Tables
from tests.refnet.formats.torch_files import save as save_torch

BAD: dict[str, Mapping[str, BadFile]] = {
    "any format": test_read.BAD,
    "TF checkpoint": test_tf_checkpoint.BAD,
    "SavedModel, object-based": test_saved_model.BAD,
    "safetensors": test_safetensors.BAD,
    "npz": test_npz.BAD,
    "PyTorch": test_pytorch.BAD,
    "Keras .h5, .keras": test_keras.BAD,
    "sound, but no network": test_bad_weights.BAD,
    "golden": test_bad_goldens.BAD,
}
ARRAYS = {
    "conv1_conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4),
    "post_bn/beta": np.linspace(0, 1, 16, dtype=np.float32),
}


def main() -> int:
    """Print the tables; 1 if the tests and the files disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=int, metavar="N", help="damage a good file of each format N times instead")
    arguments = parser.parse_args()
    console = Console()
    if arguments.fuzz:
        console.print(fuzz_table(arguments.fuzz))
        return 0
    table, wrong = bad_table()
    console.print(table)
    console.print(f"{sum(map(len, BAD.values()))} bad files, {wrong} of them with another error than the tests expect")
    return int(wrong > 0)


def bad_table() -> tuple[Table, int]:
    """Every bad file and its error, and how many are not as the tests expect."""
    table, wrong = Table("format", "what is wrong", "error", "message"), 0
    for file_format, cases in BAD.items():
        for name, bad in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                path = bad.write(Path(folder))
                error, message = refusal(bad, path)
            wrong += error != bad.error.__name__
            table.add_row(file_format, name, error, message.replace(f"{folder}/", ""))
    return table, wrong


def refusal(bad: BadFile, path: Path) -> tuple[str, str]:
    """The error from reading the file, and the first line of its message."""
    try:
        bad.read(path)
    except RefnetError as error:
        return type(error).__name__, error.message.splitlines()[0]
    return "none", ""


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


SOUND: dict[str, Callable[[Path], None]] = {
    "v1": _save_v1,
    "v2.ckpt": _save,
    "object-based": _save_objects,
    "stored.npz": _save,
    "deflated.npz": _save_deflated,
    "a.safetensors": _save,
    "zip.pth": _save_pytorch,
    "legacy.pth": _save_pytorch,
    "a.keras": _save_keras,
    "a.h5": _save_hdf5,
}


if __name__ == "__main__":
    raise SystemExit(main())
