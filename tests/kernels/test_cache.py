"""The cache of compiled kernels: what it saves, and what it refuses to load."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from refnet_kernels import jit

SCRIPT = """
import sys
import numpy as np
from refnet_kernels.jit import on_compile
on_compile(lambda name: print(name.split(".")[-1]))
from refnet_kernels.residual.cpu import call
assert call(np.ones(3, np.float32), np.ones(3, np.float32), False).tolist() == [2, 2, 2]
print("numba" in sys.modules)
"""
COMPILED = ["residual_kernel", "walk", "True"]
LOADED = ["False"]


def start(cache: Path | str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": str(cache)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.split()


def run(cache: Path | str) -> list[str]:
    """Run a kernel in a process of its own: the names of what was compiled there, and whether Numba was imported."""
    return finish(start(cache))


def test_a_warm_cache_compiles_nothing_and_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(cache) == COMPILED
    assert run(cache) == LOADED
    files = list(cache.rglob("*.o"))
    assert len(files) == 2
    for file in files:
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
    assert run(cache) == COMPILED
    assert run(cache) == LOADED


def test_off_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("off") == COMPILED
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(cache) == COMPILED
    cache.chmod(0o770)
    assert run(cache) == COMPILED


def test_processes_that_start_together_with_an_empty_cache(tmp_path: Path) -> None:
    for process in [start(tmp_path / "cache") for _ in range(3)]:
        finish(process)
    assert run(tmp_path / "cache") == LOADED


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path / "cache"))
    directory = jit.cache_directory()
    assert directory is not None
    return directory


def test_the_directories_are_private(directory: Path) -> None:
    assert directory.stat().st_mode & 0o777 == directory.parent.stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_read(directory: Path) -> None:
    jit._write(directory / "k.o", b"machine code")
    assert jit._read(directory / "k.o") == b"machine code"
    assert [file.name for file in directory.iterdir()] == ["k.o"]


@pytest.mark.parametrize("bit", [0, 1000, -1])
def test_a_flipped_bit_is_seen(directory: Path, bit: int) -> None:
    jit._write(directory / "k.o", bytes(range(256)))
    data = bytearray((directory / "k.o").read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (directory / "k.o").write_bytes(data)
    assert jit._read(directory / "k.o") is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half a digest": lambda data: data[:16],
    "digest only": lambda data: data[:32],
    "truncated": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "planted without a digest": lambda data: b"planted",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_other_contents_are_not_loaded(directory: Path, damage: Callable[[bytes], bytes]) -> None:
    jit._write(directory / "k.o", b"machine code")
    (directory / "k.o").write_bytes(damage((directory / "k.o").read_bytes()))
    assert jit._read(directory / "k.o") is None


def test_a_file_in_the_place_of_another_is_not_loaded(directory: Path) -> None:
    jit._write(directory / "k.o", b"machine code")
    (directory / "k.o").rename(directory / "l.o")
    assert jit._read(directory / "l.o") is None


def test_a_missing_file_and_a_missing_directory_are_no_errors(directory: Path) -> None:
    assert jit._read(directory / "absent.o") is None
    jit._write(directory / "absent" / "k.o", b"machine code")
    assert list(directory.iterdir()) == []


def test_a_full_disk_is_no_error_and_leaves_nothing_behind(directory: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to write more, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        jit._write(directory / "k.o", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
@pytest.mark.parametrize("which", ["root", "inner"])
def test_no_directory_that_others_may_write_to(directory: Path, mode: int, which: str) -> None:
    (directory if which == "inner" else directory.parent).chmod(mode)
    assert jit.cache_directory() is None


def test_no_directory_of_another_user(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: directory.stat().st_uid + 1)
    assert jit.cache_directory() is None


def test_no_link_to_a_directory(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(directory.parent)
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path / "link"))
    assert jit.cache_directory() is None


def test_no_directory_where_none_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path / "file" / "cache"))
    assert jit.cache_directory() is None


def test_another_set_of_sources_or_another_processor_has_another_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "CPU", "another")
    jit._key.cache_clear()
    try:
        assert jit.cache_directory() != directory
    finally:
        monkeypatch.undo()
        jit._key.cache_clear()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_is_as_it_was_after_a_compilation(
    enabled: bool, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFNET_CACHE", "off")
    before, seen = gc.isenabled(), []

    def compile() -> bytes:
        seen.append(gc.isenabled())
        if fails:
            raise KeyboardInterrupt
        return b"code"

    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            jit.kept("any.o", "any", compile)
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if before else gc.disable)()


LOGGED = """
import collections, logging, sys
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
{before}
import numpy as np
from refnet_kernels.residual.cpu import call
call(np.ones(3, np.float32), np.ones(3, np.float32), False)
level = logging.getLogger("numba").level
import numba
numba.njit(lambda x: x + 1)(2)
print(level)
"""


def log_of(cache: Path, before: str = "") -> tuple[list[str], list[str], str]:
    """A program that logs everything: what Numba logs for refnet, what refnet logs, and the level after it."""
    marked = LOGGED.format(before=before).replace("import numba\n", "logging.info('own')\nimport numba\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", marked], env=environment, capture_output=True, text=True, check=True)
    ours, own, rest = done.stderr.partition("root INFO own\n")
    assert own
    # What the program itself compiles is logged, as it asked for.
    assert rest.count("numba.") > 10
    lines = ours.splitlines()
    numba = [line for line in lines if line.startswith("numba")]
    return numba, [line for line in lines if line.startswith("refnet")], done.stdout.strip()


def test_numba_does_not_fill_the_log_of_a_program_that_logs_everything(tmp_path: Path) -> None:
    numba, refnet, level = log_of(tmp_path / "cache")
    assert (numba, level) == ([], "0")
    assert refnet == ["refnet INFO compiling kernels for this machine, once"]
    assert log_of(tmp_path / "cache")[:2] == ([], [])


def test_a_level_that_a_program_gave_to_numba_stays(tmp_path: Path) -> None:
    numba, _, level = log_of(tmp_path / "cache", before="logging.getLogger('numba').setLevel(logging.DEBUG)")
    assert len(numba) > 10
    assert level == "10"
