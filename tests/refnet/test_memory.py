"""Want of memory or of threads: an error of refnet's own, no endless wait, and right bits once there is enough."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import resources
from refnet.errors import ConfigError, DeviceError, GoldenError, InputError, LimitError, RefnetError
from refnet.evidence.golden_file import MAX_SEEDED
from refnet.weights.files import MAX_STORED_PIXELS
from refnet_kernels.system.memory import Room
from tests.support.arrays import random_images
from tests.support.nets import lively_weights

#: Large enough that some tensors are read by threads, and kernels packed by several.
BLOCKS = [
    refnet.resnet_v2_block("block1", base_depth=64, num_units=1, stride=2),
    refnet.resnet_v2_block("block2", base_depth=128, num_units=1, stride=1),
]
SUFFIXES = (".npz", ".safetensors", ".ckpt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    weights = refnet.Weights(lively_weights(blocks=BLOCKS))
    for suffix in SUFFIXES:
        refnet.save_weights(folder / f"w{suffix}", weights)
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(folder / "i.png")
    return folder


def run(folder: Path, code: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own. One that hangs is killed, with the places where its threads are."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", BEGINNING + code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


BEGINNING = """
import faulthandler, hashlib, os, resource, sys
import numpy as np
import refnet
from refnet.errors import RefnetError

faulthandler.dump_traceback_later(60, exit=True)
INFINITY = resource.RLIM_INFINITY
image = np.random.default_rng(0).uniform(-1, 1, (64, 64, 3)).astype(np.float32)

def digest(arrays):
    if hasattr(arrays, "values"):
        arrays = [value for _, value in sorted(arrays.items())]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

def limit(extra):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (INFINITY if extra is None else used + extra, INFINITY))
"""

# All from the first import within a function to the end, in a new process.
WHOLE = """
def whole():
    weights = refnet.load_weights("w.npz")
    logits = refnet.Engine("w.npz", threads=3)(image)
    refnet.save_weights(f"{os.getpid()}.safetensors", weights)
    return logits

limit(int(sys.argv[1]))
try:
    found = whole()
except RefnetError as error:
    found = error
limit(None)
print("error" if isinstance(found, RefnetError) else digest([found]), digest([whole()]))
"""

# What is left is taken up to a given number of bytes, down to the allocator's small pieces.
HOGGED = """
weights, raw = refnet.load_weights("w.npz"), refnet.load_image("i.png")
plain, engine = dict(weights), []

def forward():
    engine[:] = [refnet.Engine("w.npz", threads=3)]
    return [engine[0](image)]

def again():
    # The engine that failed.
    return [engine[0](image)] if engine else forward()

def saved(suffix):
    path = f"{os.getpid()}{suffix}"
    refnet.save_weights(path, weights)
    return path

def golden():
    path = f"{os.getpid()}.golden"
    refnet.golden.record(path, weights, image)
    return [np.array(bool(refnet.golden.check(path, weights, image).differing))]

actions = {
    "load .npz": (lambda: refnet.load_weights("w.npz"), None),
    "load .safetensors": (lambda: refnet.load_weights("w.safetensors"), None),
    "load .ckpt": (lambda: refnet.load_weights("w.ckpt"), None),
    "load_image": (lambda: [refnet.load_image("i.png")], None),
    "preprocess": (lambda: [refnet.preprocess(raw)], None),
    "forward": (forward, again),
    "forward of a mapping": (lambda: [refnet.Engine(plain, threads=5)(image)], None),
    "forward of raw pixels": (lambda: [refnet.forward(weights, raw, threads=2)], None),
    "save .npz": (lambda: saved(".npz"), None),
    "save .ckpt": (lambda: saved(".ckpt"), None),
    "golden": (golden, None),
    "random_weights": (lambda: refnet.random_weights([refnet.resnet_v2_block("b", 16, 1, 1)]), None),
    "conv2d_same": (lambda: [refnet.conv2d_same(image[None], 8, 3, 2, variables=conv)], None),
}
conv = {"Conv/weights": np.ones((3, 3, 3, 8), np.float32), "Conv/biases": np.ones(8, np.float32)}

def result(found):
    return digest(refnet.load_weights(found) if isinstance(found, str) else found)

def hogged(action, left):
    hog, count = [None] * 1_000_000, 0
    limit(4 << 20)
    for size in (1 << 20, 1 << 16, 1 << 13, 1 << 10, 400, 200, 64):
        try:
            while True:
                hog[count] = bytes(size)
                count += 1
        except MemoryError:
            pass
    while left > 0 and count > 0:
        count -= 1
        left -= len(hog[count]) + 33
        hog[count] = None
    try:
        return action()
    except RefnetError as error:
        return error
    finally:
        hog.clear()
        limit(None)

action, again = actions[sys.argv[1]]
right, errors, results = result(action()), 0, 0
for left in range(0, int(sys.argv[2]), int(sys.argv[3])):
    faulthandler.dump_traceback_later(60, exit=True)
    found = hogged(action, left)
    if isinstance(found, RefnetError):
        errors += 1
    else:
        assert result(found) == right, left
        results += 1
    assert result((again or action)()) == right, left
print(errors, results)
"""
ACTIONS = re.findall(r'^    "([^"]+)": \(', HOGGED, re.MULTILINE)


def check_whole(folder: Path, mebibytes: Sequence[float]) -> None:
    right, ends = digest_of(folder), set()
    for extra in mebibytes:
        done = run(folder, WHOLE, int(extra * 2**20))
        assert done.returncode == 0, (extra, done.stderr[-2000:])
        under, after = done.stdout.split()
        assert under in ("error", right), extra
        assert after == right, extra
        ends.add(under)
    assert ends == {"error", right}


def digest_of(folder: Path) -> str:
    done = run(folder, WHOLE, 2**40)
    assert done.returncode == 0, done.stderr[-2000:]
    under, after = done.stdout.split()
    assert under == after
    return after


def test_all_from_the_beginning_under_a_limit(folder: Path) -> None:
    check_whole(folder, (2, 40, 1000))


@pytest.mark.slow
def test_all_from_the_beginning_under_any_limit(folder: Path) -> None:
    check_whole(folder, [*np.arange(0, 32, 0.5), *range(32, 400, 8)])


@pytest.mark.parametrize("action", ["load .npz", "load .ckpt", "forward", "save .npz"])
def test_memory_all_but_gone(folder: Path, action: str) -> None:
    done = run(folder, HOGGED, action, 4 << 20, 500_000)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_memory_all_but_gone_in_small_steps(folder: Path, action: str) -> None:
    done = run(folder, HOGGED, action, 6 << 20, 40_000, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 0


def test_the_batch_that_would_fit_fits(folder: Path) -> None:
    code = """
import re
engine = refnet.Engine("w.npz", threads=2)
size, extra = map(int, sys.argv[1:])
engine(np.zeros((1, size, size, 3), np.float32))
limit(extra << 20)
images = lambda count: np.broadcast_to(np.float32(0.5), (count, size, size, 3))
try:
    engine(images(10**7))
except refnet.errors.InputError as error:
    fits = int(re.search(r"at least [\\d,.]+ GiB of memory.* A batch of (\\d+) would fit", str(error))[1])
assert fits > 20
print(engine(images(fits)).shape)
limit(None)
assert engine(images(2)).tobytes() == refnet.Engine("w.npz")(images(2)).tobytes()
"""
    for size, extra in ((33, 60), (224, 150)):
        done = run(folder, code, size, extra)
        assert done.returncode == 0, done.stderr[-2000:]


def test_what_other_shapes_hold_makes_room(folder: Path) -> None:
    """The plan of a large batch goes where another one needs its memory."""
    code = """
engine = refnet.Engine("w.npz", threads=1)
engine(image)
limit(90 << 20)
first = engine(np.zeros((20, 112, 112, 3), np.float32))
for count in (21, 19, 22):
    assert engine(np.zeros((count, 112, 112, 3), np.float32))[:19].tobytes() == first[:19].tobytes()
"""
    done = run(folder, code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_want_of_threads_is_told_as_such(folder: Path) -> None:
    code = """
limit(300 << 20)
engine = refnet.Engine("w.npz", threads=1024)
try:
    engine(image)
except refnet.errors.DeviceError as error:
    print(error)
limit(None)
print(engine(image).tobytes() == refnet.Engine("w.npz", threads=1)(image).tobytes())
"""
    done = run(folder, code)
    assert done.returncode == 0, done.stderr[-2000:]
    message, same = done.stdout.splitlines()
    assert re.match(r"There are too few threads: 1024 threads are wanted and \d+ are there: .* Pass a smaller", message)
    assert same == "True"


def test_no_thread_is_no_damage(folder: Path) -> None:
    """Files are read, and one thread runs the network, where the system gives no thread at all."""
    code = """
import _thread
def start(*_):
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = start
for suffix in (".npz", ".safetensors", ".ckpt"):
    print(refnet.Engine("w" + suffix, threads=1)(image).sum())
"""
    done = run(folder, code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(set(done.stdout.split())) == 1


# Refused by the shape, before anything of its size is made. Each is the shape, and what is passed of it.
SHAPES: dict[str, Callable[[], np.ndarray]] = {
    "no images, huge": lambda: np.zeros((0, 10**8, 10**8, 3), np.float32),
    "view of floats": lambda: np.broadcast_to(np.float32(0), (10**9, 9, 9, 3)),
    "view of one image": lambda: np.broadcast_to(np.float32(0), (1, 10**6, 10**6, 3)),
    "view of binary64": lambda: np.broadcast_to(np.float64(0), (10**9, 9, 9, 3)),
    "view of raw pixels": lambda: np.broadcast_to(np.uint8(0), (10**9, 64, 64, 3)),
}


@pytest.mark.filterwarnings("ignore:The images are")
@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_cannot_fit_are_refused_at_once(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "room_for_more", lambda: Room(2**30, "a test"))
    weights = refnet.Weights(lively_weights(), recipe=refnet.Recipe(40, 40))
    engine = refnet.Engine(weights, device=device)
    with pytest.raises(InputError, match=r"would take .* of memory, but 1\.0 GiB are left by a test\. "):
        engine(SHAPES[name]())
    assert engine(random_images(20, 20, 3)).shape == (7,)


def test_a_view_that_does_not_fit_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "room_for_more", lambda: Room(2**30, "a test"))
    view = np.broadcast_to(np.float32(0), (1000, 2000, 2000, 3))
    with pytest.raises(InputError, match=r"A copy as float32 of images of shape .* A batch of 22 would fit"):
        refnet.subsample(view, 2)
    with pytest.raises(InputError, match="would take"):
        refnet.preprocess(np.broadcast_to(np.uint8(0), (10**6, 99, 99, 3)))
    with pytest.raises(InputError, match="would take"):
        refnet.seeded.random_images((10**9, 9, 9, 3))


def test_little_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask the system takes longer than a small network's plan should."""

    def room() -> Room:
        raise AssertionError

    monkeypatch.setattr(resources, "room_for_more", room)
    refnet.forward(lively_weights(), random_images(40, 40, 3))
    refnet.preprocess(np.zeros((300, 300, 3), np.uint8))


def no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError("Unable to allocate 5 GiB")


def test_every_want_is_told(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    """Whatever a function calls, the want of memory in it has one of refnet's classes, and says what was wanted."""
    weights, image = refnet.load_weights(folder / "w.npz"), random_images(64, 64, 3)
    engine, raw = refnet.Engine(weights), refnet.load_image(folder / "i.png")
    refnet.golden.record(tmp_path / "g", weights, image)
    model, w = refnet.KerasModel(lively_weights()), dict(weights)
    calls: list[tuple[str, type[RefnetError], Callable[[], Any]]] = [
        ("refnet.weights.formats.loaded.Arena.take", LimitError, lambda: refnet.load_weights(folder / "w.npz")),
        ("refnet.weights.formats.loaded.Arena.take", LimitError, lambda: refnet.Engine(folder / "w.ckpt")),
        ("refnet.weights.formats.npz._write_archive", LimitError, lambda: refnet.save_weights(tmp_path / "x.npz", w)),
        ("refnet.weights.initial.random_bits", LimitError, lambda: refnet.random_weights(BLOCKS)),
        ("refnet.run.compiled.CompiledExecutor._launches", InputError, lambda: engine.prepared((80, 80, 3))),
        ("refnet.run.cpu.CpuExecutor.run", InputError, lambda: engine(image)),
        ("refnet.run.cpu.CpuExecutor.run", InputError, lambda: refnet.forward(weights, image)),
        ("refnet.run.cpu.CpuExecutor.run", InputError, lambda: refnet.subsample(image[None], 2)),
        ("refnet.run.cpu.CpuExecutor.run", InputError, lambda: model.predict(image)),
        ("refnet.run.cpu.CpuExecutor.run", InputError, lambda: refnet.golden.check(tmp_path / "g", weights, image)),
        ("refnet.evidence.golden.digest", InputError, lambda: refnet.golden.record(tmp_path / "h", weights, image)),
        ("refnet.evidence.golden_file.digest", GoldenError, lambda: refnet.golden.read_golden(tmp_path / "g")),
        ("refnet.evidence.seeded.random_bits", InputError, lambda: refnet.seeded.random_images((4, 4, 3))),
        ("refnet.evidence.seeded.random_bits", LimitError, lambda: refnet.seeded.lively_weights(weights)),
        ("refnet.images.preprocess._interpolate", InputError, lambda: refnet.preprocess(raw)),
        ("refnet.images.files._to_channels", InputError, lambda: refnet.load_image(folder / "i.png")),
    ]  # fmt: skip
    for place, kind, call in calls:
        with monkeypatch.context() as patch:
            patch.setattr(place, no_memory)
            with pytest.raises(
                kind, match=r"(?s)There is not enough memory for th.*Unable to allocate 5 GiB.*left by"
            ) as told:
                call()
        assert type(told.value) is kind, place
        call()

    class Hungry:
        __array__ = no_memory

    with pytest.raises(LimitError, match="not enough memory"):
        refnet.Weights({"conv1/weights": Hungry()})
    with pytest.raises(InputError, match="not enough memory"):
        engine(Hungry())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("x.so: failed to map segment from shared object"),
        OSError("out of memory error when reading image file"),
    ],
    ids=repr,
)
def test_no_reader_takes_want_of_memory_for_damage(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        try:
            raise error
        except Exception as reason:
            # As a library that tells it in words of its own.
            raise OSError("cannot read") from reason

    monkeypatch.setattr(os, "preadv", fail)
    for suffix in SUFFIXES:
        with pytest.raises(LimitError, match="not enough memory"):
            refnet.load_weights(folder / f"w{suffix}")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(InputError, match="not enough memory"):
        refnet.load_image(folder / "i.png")


def test_what_failed_lets_go_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    class Large:
        def __init__(self) -> None:
            held.append(self)

        def __del__(self) -> None:
            freed.append(True)

    def work() -> None:
        large = Large()
        held.clear()
        del large.nothing

    freed: list[bool] = []

    @resources.for_images
    def told() -> None:
        large = Large()
        held.clear()
        no_memory(large)

    with pytest.raises(InputError) as error:
        told()
    assert freed == [True], error
    with pytest.raises(AttributeError):
        resources.for_images(work)()
    with pytest.raises(DeviceError, match="too few threads"), resources.for_images:
        raise RuntimeError("can't start new thread")


def test_files_cannot_ask_for_much_more_than_they_hold(tmp_path: Path) -> None:
    weights = refnet.Weights(lively_weights())
    side = int(MAX_STORED_PIXELS**0.5)
    for recipe in (refnet.Recipe(side, side), refnet.Recipe(None, None, 1.0, "vgg", side)):
        refnet.save_weights(tmp_path / "w.npz", weights.replace(recipe=recipe))
        assert refnet.load_weights(tmp_path / "w.npz").recipe == recipe
    larger = [refnet.Recipe(side, side + 1), refnet.Recipe(side, None, 1.0, "vgg", side + 1)]
    for recipe in larger:
        with pytest.raises(ConfigError, match="one in a file can make 4,000,000"):
            refnet.save_weights(tmp_path / "x.npz", weights.replace(recipe=recipe))
        with pytest.raises(ConfigError, match="one in a file can make 4,000,000"):
            refnet.golden.record(tmp_path / "g", weights, np.zeros((8, 8, 3), np.uint8), recipe=recipe)
    stored = {**dict(weights)}
    from refnet.weights import formats

    formats.write(tmp_path / "y.npz", stored, {"recipe": larger[0]._asdict()})
    with pytest.raises(LimitError, match=r"y\.npz: The recipe makes 2000 x 2001 pixels of any image"):
        refnet.load_weights(tmp_path / "y.npz")
    assert refnet.load_weights(tmp_path / "y.npz", recipe=larger[0]).recipe == larger[0]


def test_goldens_draw_only_so_much(tmp_path: Path) -> None:
    weights = lively_weights()
    with pytest.raises(InputError, match=f"a golden can have {MAX_SEEDED:,} drawn"):
        refnet.golden.record(tmp_path / "g", weights, (10_000, 10_000, 3), hashes_only=True)
    refnet.golden.record(tmp_path / "g", weights, (20, 20, 3), hashes_only=True)
    golden = refnet.golden.read_golden(tmp_path / "g")
    from refnet.evidence.golden_file import write_golden

    for shape in ((2001, 2000, 3), (2, 2000, 1001, 3)):
        write_golden(tmp_path / "h", golden._replace(shape=shape))
        with pytest.raises(GoldenError, match="these are not images, or too many"):
            refnet.golden.check(tmp_path / "h", weights)


COMMANDS = [
    ["predict", "i.png", "--weights", "w.npz", "--size", "1000000"],
    ["predict", "i.png", "--weights", "w.npz", "--size", "9" * 30],
    ["predict", "i.png", "--weights", "w.npz", "--size", "9" * 400],
    ["bench", "w.npz", "--batch", "1000000000"],
    ["bench", "w.npz", "--size", "1000000"],
    ["bench", "w.npz", "--size", "9" * 400],
    ["golden", "record", "g", "--weights", "w.npz", "--random", "1", "--size", "1000000"],
    ["golden", "record", "g", "--weights", "w.npz", "--image", "i.png", "--size", "9000"],
]


def test_commands_that_ask_for_too_much(folder: Path) -> None:
    code = """
import contextlib, io, json
from refnet.cli import main
limit(1 << 30)
for command in json.loads(sys.argv[1]):
    faulthandler.dump_traceback_later(60, exit=True)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*command, "--json"])
    print(json.dumps([code, json.loads(out.getvalue())["error"]["type"]]))
"""
    done = run(folder, code, json.dumps(COMMANDS))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(COMMANDS)
    assert set(found) == {(2, "ConfigError"), (5, "InputError")}, found


def test_any_want_in_a_command_is_an_error(folder: Path) -> None:
    code = """
from refnet import cli
from refnet.cli import summary
def run(_):
    raise MemoryError("Unable to allocate 5 GiB")
summary.run = run
sys.exit(cli.main(["summary", "w.npz", "--json"]))
"""
    done = run(folder, code)
    assert done.returncode == 1
    assert (
        "not enough memory for this command (Unable to allocate 5 GiB)" in json.loads(done.stdout)["error"]["message"]
    )
