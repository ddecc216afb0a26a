"""A fork at any moment: the child computes the same, and waits for nobody."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet
import refnet.engine
import refnet.weights.weights as weights_module
from tests.refnet.formats.test_keras import write_archive, write_numbered
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def fork(check: Callable[[], bool]) -> int:
    """A child that exits with 0 if the check holds; one that hangs is ended."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return child


def status(child: int) -> int:
    return os.waitpid(child, 0)[1]


def test_while_another_thread_runs() -> None:
    engine = refnet.Engine(lively_weights(), threads=2)
    image = random_images(32, 32, 3)
    expected = digest(engine(image))
    busy = threading.Thread(target=lambda: [engine(random_images(32, 32, 3)) for _ in range(200)])
    busy.start()
    children = [fork(lambda: digest(engine(image)) == expected) for _ in range(4)]
    busy.join()
    assert [status(child) for child in children] == [0] * 4
    assert digest(engine(image)) == expected


def test_while_another_thread_makes_the_engines_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_images(32, 32, 3)
    expected = digest(refnet.forward(lively_weights(), image))
    weights = refnet.Weights(lively_weights())
    planning, forked = threading.Event(), threading.Event()
    parent, make_plan = os.getpid(), refnet.engine.make_plan

    def make_plan_around_a_fork(*arguments: object) -> object:
        if os.getpid() == parent:
            planning.set()
            forked.wait(60)
        return make_plan(*arguments)

    monkeypatch.setattr(refnet.engine, "make_plan", make_plan_around_a_fork)
    results: list[str] = []
    planner = threading.Thread(target=lambda: results.append(digest(refnet.forward(weights, image))))
    planner.start()
    assert planning.wait(60)
    child = fork(lambda: digest(refnet.forward(weights, image)) == expected)
    forked.set()
    planner.join()
    assert status(child) == 0
    assert results == [expected]


def test_while_another_thread_reads_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, others = refnet.Weights(lively_weights()), refnet.Weights(lively_weights())
    reading, forked = threading.Event(), threading.Event()
    parent, infer = os.getpid(), weights_module.infer_architecture

    def infer_around_a_fork(*arguments: Any, **options: Any) -> Any:
        if os.getpid() == parent:
            reading.set()
            forked.wait(60)
        return infer(*arguments, **options)

    monkeypatch.setattr(weights_module, "infer_architecture", infer_around_a_fork)
    reader = threading.Thread(target=lambda: weights.architecture)
    reader.start()
    assert reading.wait(60)
    child = fork(lambda: others.architecture == weights.architecture)
    forked.set()
    reader.join()
    assert status(child) == 0


COMPILING = """
import threading
import refnet
from tests.refnet.formats.test_keras import write_archive, write_numbered
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights
from refnet_kernels.jit import on_compile
from tests.refnet.test_forks import fork, status

engine, image = refnet.Engine(lively_weights()), random_images(32, 32, 3)
compiling = threading.Event()
on_compile(lambda name: compiling.set())
results = []
compiler = threading.Thread(target=lambda: results.append(digest(engine(image))))
compiler.start()
assert compiling.wait(60)
child = fork(lambda: print(digest(engine(image)), flush=True) is None)
compiler.join()
print(*results, status(child))
"""


def test_while_another_thread_compiles() -> None:
    """Numba and LLVM cannot be cut in two: the fork comes when the kernel is ready."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": "off"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", COMPILING]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    expected = digest(refnet.forward(lively_weights(), random_images(32, 32, 3)))
    assert output.split() == [expected, expected, "0"]


ROOT = Path(__file__).parents[2]

#: Folders whose functions may import as they like.
OTHERWISE = {"refnet/cli": "a program of its own: nobody forks it, and it imports in one thread"}


def bare_imports(tree: ast.AST, within: bool = False, held: bool = False) -> Iterator[int]:
    """The lines of imports in functions that are not under `making`."""
    for node in ast.iter_child_nodes(tree):
        inside, under = within, held
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            decorators = [] if isinstance(node, ast.Lambda) else map(ast.unparse, node.decorator_list)
            inside, under = True, "once" in decorators
        elif isinstance(node, ast.With):
            under = held or any(ast.unparse(item.context_expr) == "making" for item in node.items)
        called = ast.unparse(node.func).rsplit(".")[-1] if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Import | ast.ImportFrom) or called in ("import_module", "__import__"):
            yield from [node.lineno] if within and not held else []
        yield from bare_imports(node, inside, under)


@pytest.mark.parametrize(
    ("source", "bare"),
    [
        ("import a", 0),
        ("def f():\n import a", 1),
        ("def f():\n from a import b\n import_module('c')", 2),
        ("def f():\n with making:\n  import a", 0),
        ("def f():\n with other:\n  import a", 1),
        ("@once\ndef f():\n import a", 0),
        ("@cache\ndef f():\n import a", 1),
        ("def f():\n with making:\n  def g():\n   import a", 1),
        ("f = lambda: importlib.import_module('a')", 1),
    ],
)
def test_bare_imports_are_found(source: str, bare: int) -> None:
    assert len(list(bare_imports(ast.parse(source)))) == bare


def test_every_import_in_a_function_is_under_making() -> None:
    files = [path for folder in ("refnet", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {path.relative_to(ROOT): list(bare_imports(ast.parse(path.read_text()))) for path in files}
    bare = [f"{path}:{line}" for path, lines in found.items() for line in lines]
    assert [place for place in bare if not place.startswith(tuple(OTHERWISE))] == []
    assert all(any(place.startswith(folder) for place in bare) for folder in OTHERWISE)


#: What is done for the first time, in a folder with weights and images.
WEIGHTS = "weights = refnet.random_weights(blocks, num_classes=7); x = np.zeros((1, 32, 32, 3), np.float32)"
FIRST_USES = {
    "load .npz": ("", "refnet.load_weights('a.npz')"),
    "load .safetensors": ("", "refnet.load_weights('a.safetensors')"),
    "load .ckpt": ("", "refnet.load_weights('a.ckpt')"),
    "load .h5": ("", "refused('a.h5')"),
    "load .keras": ("", "refused('a.keras')"),
    "load_image .png": ("", "refnet.load_image('a.png')"),
    "load_image .jpg": ("", "refnet.load_image('a.jpg')"),
    "load_image .webp": ("", "refnet.load_image('a.webp')"),
    "load_image .tif": ("", "refnet.load_image('a.tif')"),
    "load_image of bytes": ("", "refnet.load_image(open('a.gif', 'rb').read())"),
    "save .npz": (WEIGHTS, "refnet.save_weights(f'{os.getpid()}.npz', weights)"),
    "save .safetensors": (WEIGHTS, "refnet.save_weights(f'{os.getpid()}.safetensors', weights)"),
    "save .ckpt": (WEIGHTS, "refnet.save_weights(f'{os.getpid()}.ckpt', weights)"),
    "reference": (WEIGHTS, "refnet.forward(weights, x, device='reference')"),
    "list": (WEIGHTS, "refnet.forward(weights, x.tolist())"),
    "random_weights": ("", "refnet.random_weights(blocks, num_classes=7)"),
    "op": ("", "refnet.subsample(np.zeros((1, 4, 4, 1), np.float32), 2)"),
    "decode_predictions": ("", "refnet.decode_predictions(np.full((1, 1000), 1e-3, np.float32))"),
    "golden": ("", "refnet.golden.record"),
    "seeded": ("", "refnet.seeded.random_images((4, 4, 3))"),
    "testing": ("", "refnet.testing.assert_golden"),
}

BEGINNING = """
import os, signal, sys, threading, time
import numpy as np
import refnet
from refnet_kernels.system.forks import making

blocks = [refnet.resnet_v2_block("block1", base_depth=3, num_units=2, stride=2)]

def refused(path):
    try:
        refnet.load_weights(path)
    except refnet.errors.MissingTensorError:
        pass
"""

WITHOUT_MAKING = """
class Finder:
    def find_spec(name, path=None, target=None):
        if not making._is_owned():
            print(name)

exec(sys.argv[1])
sys.meta_path.insert(0, Finder)
exec(sys.argv[2])
"""

# A process for each delay, in which nothing was used; its imports are slowed, so that the fork falls into one of them.
FORKED = """
class Slow:
    def find_spec(name, path=None, target=None):
        time.sleep(0.002)

def hangs(milliseconds):
    sys.meta_path.insert(0, Slow)
    threading.Thread(target=exec, args=(sys.argv[2], globals())).start()
    time.sleep(milliseconds / 1000)
    if (child := os.fork()) == 0:
        signal.alarm(10)
        exec(sys.argv[2])
        os._exit(0)
    return os.waitpid(child, 0)[1]

exec(sys.argv[1])
for milliseconds in eval(sys.argv[3]):
    if (process := os.fork()) == 0:
        os._exit(os.waitstatus_to_exitcode(hangs(milliseconds)) != 0)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"failed after {milliseconds} ms")
"""


def write_files(folder: Path) -> None:
    weights = refnet.Weights(lively_weights())
    for name in ("a.npz", "a.safetensors", "a.ckpt"):
        refnet.save_weights(folder / name, weights)
    write_archive(folder / "a.keras", folder)
    write_numbered(folder / "a.h5")
    image = Image.fromarray(np.zeros((8, 9, 3), np.uint8))
    upright = Image.Exif()
    upright[0x112] = 6
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.gif"):
        image.save(folder / name, exif=upright)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    write_files(folder)
    return folder


def in_the_folder(folder: Path, code: str, use: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", BEGINNING + code, *FIRST_USES[use], *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


@pytest.mark.parametrize("use", FIRST_USES)
def test_nothing_is_imported_without_making(folder: Path, use: str) -> None:
    """Not by the libraries either, which import some of their parts when these are first needed."""
    assert in_the_folder(folder, WITHOUT_MAKING, use) == ""


@pytest.mark.parametrize(
    "use", ["load .npz", "load .ckpt", "load_image .jpg", "save .safetensors", "reference", "list", "random_weights"]
)
def test_while_another_thread_does_it_for_the_first_time(folder: Path, use: str) -> None:
    assert in_the_folder(folder, FORKED, use, "[2, 5, 15, 30]") == ""


@pytest.mark.slow
@pytest.mark.parametrize("use", FIRST_USES)
def test_while_another_thread_does_anything_for_the_first_time(folder: Path, use: str) -> None:
    assert in_the_folder(folder, FORKED, use, "range(60)") == ""


def test_no_module_takes_making_while_it_is_imported() -> None:
    """A thread that imports it would wait for one in `making`, which may wait for that very import."""
    code = """
import importlib, sys, threading
from refnet_kernels.system.forks import making
names = sys.argv[1:]
importer = threading.Thread(target=lambda: [importlib.import_module(name) for name in names], daemon=True)
with making:
    importer.start()
    importer.join(60)
    assert not importer.is_alive()
assert sys.modules.keys() >= set(names)
"""
    files = [path.relative_to(ROOT) for path in (ROOT / "refnet").rglob("*.py") if path.stem != "__main__"]
    files += [path.relative_to(ROOT / "kernels") for path in (ROOT / "kernels" / "refnet_kernels").rglob("*.py")]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    # What stands beside Numba's simulator, or instead of it.
    names -= {"refnet_kernels.gpu.intrinsics"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *names], env=environment, check=True, timeout=120)
