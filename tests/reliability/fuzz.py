"""Fuzz: files of every format, changed in ways that know its structure.

    python -m tests.reliability.fuzz png 1234 [FOLDER]    # repeat one trial, and keep its files

Each trial is made from its number alone. What refnet reads must give a result or a `RefnetError`; a result has the
values that the format's own library gives. Trials run in a child process, so that a crash or a hang is seen.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import h5py
import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image, ImageOps

import refnet
from refnet.errors import RefnetError
from refnet.evidence.golden import decode_options
from refnet.evidence.golden_file import read_golden
from refnet.weights.formats import read, write
from tests.refnet.formats import test_keras, test_saved_model, test_tf_checkpoint
from tests.refnet.formats.tables import Tables
from tests.reliability import mutators
from tests.reliability.figures import ROOT, Row
from tests.reliability.mutators import Files
from tests.support.arrays import random_images
from tests.support.nets import lively_weights, small_blocks
from tests.support.tensorflow import tensorflow

#: A trial takes milliseconds; the machine may be busy.
HANG_SECONDS = 30
#: Before the first trial a child may import TensorFlow.
IMPORT_SECONDS = 300
DATA = ROOT / "tests" / "refnet" / "formats" / "data"
#: Distinct failures after which a run ends.
ENOUGH = 20

#: What a child notes in shared memory: the trial at work, how many were accepted, the longest time and its trial; then
#: the failures as text.
NOTES, FAILURES_AT = struct.Struct("<QQdQ"), 64

Arrays = Mapping[str, np.ndarray]


class Target(NamedTuple):
    """A format: how a sound file of it is written, changed, and read.

    Attributes
    ----------
    file : str
        What is read.
    sound : callable
        Writes the files into a folder.
    mutate : callable
        Other files, from sound ones.
    read : callable
        By refnet: the arrays.
    truth : callable, optional
        By the format's own library: the arrays under the same names; those that it does not have are not compared.
    slow_truth : bool
        The library takes seconds to import: the short form does without it.
    refused : str, optional
        Words of the library's error where it refuses what says nothing about values. TensorFlow parses more than
        refnet needs, and may refuse any of it.
    """

    file: str
    sound: Callable[[Path], None]
    mutate: Callable[[Files, Random], Files]
    read: Callable[[Path], Arrays]
    truth: Callable[[Path], Arrays] | None = None
    slow_truth: bool = False
    refused: str | None = None


ARRAYS = {
    "conv1_conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4),
    "post_bn/beta": np.linspace(0, 1, 3, dtype=np.float32),
    "half": np.ones(3, np.float16),
}


#: Keras' files have two arrays of a layer.
ARRAYS_H5 = {name: array for name, array in ARRAYS.items() if "/" in name}


def tensors(path: Path) -> Arrays:
    found: Arrays = read(path).tensors
    return found


def weights(path: Path) -> Arrays:
    """None to compare; what is accepted must also run, or be refused then."""
    loaded = refnet.load_weights(path)
    if small(loaded.recipe):
        refnet.Engine(loaded)(np.zeros((24, 24, 3), np.uint8))
    return {}


def small(recipe: Any) -> bool:
    return max(side or 0 for side in (recipe.height, recipe.width, recipe.resize_side)) < 100


def golden(path: Path) -> Arrays:
    found = read_golden(path)
    decode_options(found.options)
    if np.prod(found.shape, dtype=float) < 10_000:
        refnet.golden.compare_end_points(path, found.values) if found.values else None
    return {}


def pixels(path: Path) -> Arrays:
    return {"pixels": refnet.load_image(path)}


def by_safetensors(path: Path) -> Arrays:
    # Bytes, as NumPy lacks some of the types.
    entries = dict(safetensors.deserialize(path.read_bytes()))
    kinds = {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "I8": "|i1",
        "U8": "|u1",
    }
    return {
        name: np.frombuffer(entry["data"], kinds[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in entries.items()
        if entry["dtype"] in kinds
    }


def by_numpy(path: Path) -> Arrays:
    """Members are read when they are asked for."""
    return np.load(path, allow_pickle=False)


class Lazy(Mapping[str, np.ndarray]):
    """Arrays that a library reads one by one, each when it is asked for: refnet may have left others out."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._get(name))

    def __contains__(self, name: object) -> bool:
        """As far as a name is refnet's alone, there is nothing to compare."""
        return isinstance(name, str) and self._get(name) is not None

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


def by_tensorflow(path: Path) -> Arrays:
    """On some damaged tables TensorFlow ends the process, so a child opens each first."""
    load, prefix = tensorflow().train.load_checkpoint, str(path).removesuffix(".index")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(Exception):
            load(prefix)
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        raise RuntimeError("TensorFlow ends the process")
    return Lazy(load(prefix).get_tensor)


def by_h5py(path: Path) -> Arrays:
    """By refnet's names, where each is there once; in a child, as HDF5 ends the process or hangs on some files."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(HANG_SECONDS // 3)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with os.fdopen(writer, "wb") as out:
                pickle.dump(_walk(path), out)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as source:
        content = source.read()
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]) or not content:
        raise RuntimeError("HDF5 refuses it, ends the process, or hangs")
    found: Arrays = pickle.loads(content)
    return found


def _walk(path: Path) -> Arrays:
    found: dict[str, list[np.ndarray]] = {}
    roles = {1: ["kernel"], 2: ["kernel", "bias"], 4: ["gamma", "beta", "moving_mean", "moving_variance"]}

    def note(place: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.size > 10_000 or place.startswith("optimizer"):
            return
        *_, group, role = ["", *place.split("/")]
        layer = group
        if group == "vars" and "name" in item.parent.attrs:
            numbered = roles.get(len(item.parent), [])
            layer, role = item.parent.attrs["name"], dict(enumerate(numbered)).get(int(role), "?")
        found.setdefault(f"{layer}/{role.removesuffix(':0')}", []).append(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return {name: arrays[0] for name, arrays in found.items() if len(arrays) == 1}


def by_pillow(path: Path) -> Arrays:
    with Image.open(path) as image:
        if image.mode not in ("RGB", "L", "1"):
            return {}
        return {"pixels": np.asarray(ImageOps.exif_transpose(image).convert("RGB"))}


def image(path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))
    upright = Image.Exif()
    upright[0x112] = 6
    picture.save(path, exif=upright) if path.suffix != ".gif" else picture.save(path)


def save(path: Path) -> None:
    write(path, ARRAYS, {})


def deflated(path: Path) -> None:
    np.savez_compressed(path, **ARRAYS)


def v1(path: Path) -> None:
    path.write_bytes(test_tf_checkpoint.v1_file(Tables, 1, (2, 3), Tables.field(4, test_tf_checkpoint.DATA)))


def v2(path: Path) -> None:
    write(path.with_suffix(""), ARRAYS, {})


def objects(path: Path) -> None:
    test_saved_model.write(path.with_suffix(""), test_saved_model.GRAPH)


def archive(path: Path) -> None:
    test_keras.write_archive(path, path.parent)
    (path.parent / "inner.h5").unlink()


def h5(path: Path) -> None:
    test_keras.write(path, ARRAYS_H5)


def h5_numbered(path: Path) -> None:
    test_keras.write_numbered(path)


def h5_compressed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for layer in ("a", "b"):
            values = np.arange(60, dtype=np.float32).reshape(5, 12)
            options = {"compression": "gzip", "shuffle": layer == "a"}
            file.create_dataset(f"{layer}/{layer}/kernel:0", data=values, chunks=(2, 5), **options)


def h5_newest(path: Path) -> None:
    """Chunks by every kind of index, names in heaps, and an attribute among many."""
    values = np.arange(60, dtype=np.float32).reshape(5, 12)
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(12):
            file[f"many/{number}"] = np.float32(number)
        limits = [None, (None, 12), (None, None), (9, 20)]
        for number, limit in enumerate(limits):
            for kind, options in (("plain", {}), ("gzip", {"compression": "gzip"})):
                place = f"{kind}{number}/kernel"
                file.create_dataset(place, data=values, chunks=(2, 5), maxshape=limit, **options)
        file.create_dataset("single/kernel", data=values, chunks=(5, 12), compression="gzip")
        layer = file.create_group("layers/c/vars")
        layer["0"] = values
        for number in range(12):
            layer.attrs[f"other{number}"] = number
        layer.attrs["name"] = "conv"


def torch(name: str) -> Callable[[Path], None]:
    """Copies a file that PyTorch wrote."""
    return lambda path: path.write_bytes((DATA / name).read_bytes()) and None


def own_weights(path: Path) -> None:
    loaded = refnet.random_weights(small_blocks(units=1), num_classes=7)
    described = loaded.replace(labels=[str(i) for i in range(7)], recipe=refnet.Recipe(24, 24))
    refnet.save_weights(path, described)


def state_dict(path: Path) -> None:
    """PyTorch's names of ResNet v1, with few channels."""
    generator, arrays = np.random.default_rng(0), {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        arrays[f"{convolution}.weight"] = generator.standard_normal(shape).astype(np.float32)
        for role in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{norm}.{role}"] = np.ones(shape[0], np.float32)

    add("conv1", "bn1", 64, 3, 7, 7)
    channels = 64
    for block, width in ((1, 2), (2, 3)):
        place = f"layer{block}.0"
        add(f"{place}.downsample.0", f"{place}.downsample.1", 4 * width, channels, 1, 1)
        add(f"{place}.conv1", f"{place}.bn1", width, channels, 1, 1)
        add(f"{place}.conv2", f"{place}.bn2", width, width, 3, 3)
        add(f"{place}.conv3", f"{place}.bn3", 4 * width, width, 1, 1)
        channels = 4 * width
    arrays["fc.weight"], arrays["fc.bias"] = np.ones((5, channels), np.float32), np.ones(5, np.float32)
    safetensors.numpy.save_file(arrays, path)


def record(path: Path) -> None:
    refnet.golden.record(path, lively_weights(), random_images(20, 21, 3), output_stride=4)


INDEX = "a.ckpt.index"

TARGETS = {
    "V1": Target("a", v1, mutators.table("a"), tensors),
    "V2": Target(INDEX, v2, mutators.table(INDEX), tensors, by_tensorflow, True, ""),
    "object-based": Target("a.index", objects, mutators.table("a.index"), tensors),
    "npz": Target("a.npz", save, mutators.npz, tensors, by_numpy),
    "npz, deflated": Target("a.npz", deflated, mutators.npz, tensors, by_numpy),
    "safetensors": Target("a.safetensors", save, mutators.safetensors, tensors, by_safetensors),
    "h5": Target("a.h5", h5, mutators.hdf5, tensors, by_h5py, refused=""),
    "h5, compressed": Target("a.h5", h5_compressed, mutators.hdf5, tensors, by_h5py, refused=""),
    "h5, newest": Target("a.h5", h5_newest, mutators.hdf5, tensors, by_h5py, refused=""),
    "weights.h5": Target("a.h5", h5_numbered, mutators.hdf5, tensors, by_h5py, refused=""),
    "keras": Target("a.keras", archive, mutators.plain_archive, tensors),
    "PyTorch": Target("a.pth", torch("zip_protocol_5.pth"), mutators.plain_archive, tensors),
    "PyTorch, before 1.6": Target("a.pth", torch("legacy.pth"), mutators.any_bytes, tensors),
    "PNG": Target("a.png", image, mutators.png, pixels, by_pillow),
    "JPEG": Target("a.jpg", image, mutators.jpeg, pixels, by_pillow),
    "GIF": Target("a.gif", image, mutators.any_bytes, pixels, by_pillow),
    "TIFF": Target("a.tif", image, mutators.any_bytes, pixels, by_pillow),
    "WebP": Target("a.webp", image, mutators.any_bytes, pixels, by_pillow),
    "AVIF": Target("a.avif", image, mutators.any_bytes, pixels, by_pillow),
    "state dict": Target("a.safetensors", state_dict, mutators.safetensors, weights),
    "weights of refnet": Target("a.safetensors", own_weights, mutators.safetensors, weights),
    "documents of refnet": Target("a.safetensors", own_weights, mutators.metadata("__refnet__"), weights),
    "golden": Target("a.safetensors", record, mutators.metadata("refnet", "refnet_sha256"), golden),
}
"""The formats, by the name that the command takes."""


def trial_files(target: Target, sound: Files, name: str, trial: int) -> Files:
    return target.mutate(sound, Random(f"{name} {trial}"))


def differences(found: Arrays, target: Target, path: Path) -> str | None:
    """What refnet reads and the format's own library reads differently."""
    assert target.truth is not None
    try:
        expected = target.truth(path)
        others = {key: np.asarray(expected[key]) for key in found if key in expected}
    except Exception as error:
        if target.refused is not None and target.refused in str(error):
            return None
        return f"the format's own library refuses it: {type(error).__name__}: {error}"
    for key, other in others.items():
        array = found[key]
        if other.shape != array.shape or other.astype(array.dtype).tobytes() != array.tobytes():
            return f"{key!r} has other values in the format's own library"
    return None


def attempt(target: Target, folder: Path, files: Files, compare: bool) -> tuple[bool, str | None, float]:
    """Whether the files were accepted; what is wrong with that, if anything; and the seconds that reading them took."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path, start = folder / target.file, time.monotonic()
    try:
        found = target.read(path)
    except RefnetError:
        return False, None, time.monotonic() - start
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        line = next((frame for frame in reversed(where) if "/refnet" in frame.filename), where[-1])
        wrong = f"{type(error).__name__} at {Path(line.filename).name}, line {line.lineno}: {str(error)[:100]}"
        return False, wrong, time.monotonic() - start
    taken = time.monotonic() - start
    return True, differences(found, target, path) if compare and target.truth is not None else None, taken


def attempt_sound(target: Target, folder: Path, sound: Files) -> Arrays:
    for name, content in sound.items():
        (folder / name).write_bytes(content)
    return target.read(folder / target.file)


def sound_files(target: Target, folder: Path) -> Files:
    target.sound(folder / target.file)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    accepted, wrong, _ = attempt(target, folder, files, compare=False)
    assert accepted, wrong
    return files


def child(name: str, sound: Files, trials: range, seconds: float, compare: bool, shared: mmap.mmap) -> None:
    """Do trials, and note in shared memory the one at work, how many were accepted, and the failures."""
    target, room = TARGETS[name], len(shared) - FAILURES_AT - 1
    _, accepted, slowest, slowest_trial = NOTES.unpack_from(shared)
    seen = shared[FAILURES_AT:].rstrip(b"\0").decode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as directory:
        if compare and target.truth is not None:
            # The library is imported now, which may take longer than a trial.
            assert not differences(attempt_sound(target, Path(directory), sound), target, Path(directory) / target.file)
        end = time.monotonic() + seconds
        for trial in trials:
            NOTES.pack_into(shared, 0, trial, accepted, slowest, slowest_trial)
            files = trial_files(target, sound, name, trial)
            good, wrong, taken = attempt(target, Path(directory), files, compare)
            accepted += good
            slowest, slowest_trial = max((slowest, slowest_trial), (taken, trial))
            NOTES.pack_into(shared, 0, trial, accepted, slowest, slowest_trial)
            if wrong is not None and wrong.partition(":")[0] not in seen:
                seen += f"trial {trial}: {wrong}\n"
                encoded = seen.encode("utf-8", "replace")[:room]
                shared[FAILURES_AT : FAILURES_AT + len(encoded)] = encoded
            if time.monotonic() > end or seen.count("\n") >= ENOUGH:
                break


def fuzz(name: str, trials: range, seconds: float, compare: bool = True) -> Row:
    """Trials of one format until they, or the time, are over."""
    target, first = TARGETS[name], trials.start
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sound = sound_files(target, Path(folder))
    with mmap.mmap(-1, 1 << 16) as shared:
        NOTES.pack_into(shared, 0, 2**64 - 1, 0, 0.0, 0)
        while True:
            if (process := os.fork()) == 0:
                status = 1
                try:
                    # Libraries warn of what they pass over, and Python of a member's name that is there twice.
                    warnings.simplefilter("ignore")
                    sys.stderr.flush()
                    child(name, sound, range(first, trials.stop), seconds, compare, shared)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            status = watch(process, shared)
            at, accepted, slowest, slowest_trial = NOTES.unpack_from(shared)
            if status == 0:
                break
            assert os.WIFSIGNALED(status), f"{name}: the trials ended with status {status} at {at}"
            assert at in trials, f"{name}: no trial was begun"
            lost.append(f"trial {at}: {'a hang' if os.WTERMSIG(status) == signal.SIGKILL else 'a crash'}")
            first = at + 1
            if len(lost) >= ENOUGH or first >= trials.stop:
                break
        done = at + 1 - trials.start
        failures = lost + shared[FAILURES_AT:].rstrip(b"\0").decode("utf-8", "replace").splitlines()
    lines = "\n".join(f"  {name}, {failure}" for failure in failures)
    assert not failures, f"repeat one by python -m tests.reliability.fuzz {name!r} TRIAL\n{lines}"
    truth = ", with the library's values" if compare and target.truth is not None else ""
    words = f"{accepted:,} accepted{truth}, the others refused; slowest {1e3 * slowest:.0f} ms (trial {slowest_trial})"
    return Row(f"{name}: changed files", done, words)


def watch(process: int, shared: mmap.mmap) -> int:
    """The child's status; it is killed if it stays at a trial."""
    last, since, most = bytes(shared[:8]), time.monotonic(), IMPORT_SECONDS
    while True:
        pid, status = os.waitpid(process, os.WNOHANG)
        if pid:
            return status
        if bytes(shared[:8]) != last:
            last, since, most = bytes(shared[:8]), time.monotonic(), HANG_SECONDS
        elif time.monotonic() - since > most:
            os.kill(process, signal.SIGKILL)
            return os.waitpid(process, 0)[1]
        time.sleep(0.01)


def all_targets(trials: range, seconds: float, slow_truth: bool) -> list[Row]:
    rows, problems = [], []
    for name, target in TARGETS.items():
        try:
            rows.append(fuzz(name, trials, seconds, compare=slow_truth or not target.slow_truth))
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n" + "\n".join(problems)
    return rows


def short() -> list[Row]:
    return all_targets(range(120), 60, slow_truth=False)


def long(minutes: float) -> list[Row]:
    # Other trials than the short form's.
    return all_targets(range(1000, 10**9), 60 * minutes, slow_truth=True)


def repeat(name: str, trial: int, folder: Path) -> None:
    """One trial; its files stay."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as directory:
        sound = sound_files(target, Path(directory))
    for file, content in trial_files(target, sound, name, trial).items():
        (folder / file).write_bytes(content)
    print("files:", folder)
    found = target.read(folder / target.file)
    print("accepted;", differences(found, target, folder / target.file) if target.truth else None)


if __name__ == "__main__":
    repeat(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()))
