"""The command line as a process among others: its pipes, its files, its environment, and its end."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import refnet
from refnet.cli import main, summary
from refnet.errors import ConfigError
from refnet.testing import assert_golden
from tests.refnet.bad_calls import WEIGHTS, make_files
from tests.support.nets import lively_weights

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and limits of POSIX")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    large = {name: value * 1e30 if name.endswith("weights") else value for name, value in lively_weights().items()}
    refnet.save_weights(folder / "large.npz", refnet.Weights(large, recipe=WEIGHTS.recipe))
    (folder / "one.txt").write_text("a\n")
    return folder


def environment(**changes: str | None) -> dict[str, str]:
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path[:3])), **changes}
    return {name: value for name, value in inherited.items() if value is not None}


def refnet_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "refnet", *map(str, arguments)]
    return subprocess.run(
        command, text=True, check=False, timeout=120, **{"capture_output": True, "env": environment(), **options}
    )


def without_reader(*arguments: object, cwd: Path, stream: str = "stdout") -> subprocess.CompletedProcess[str]:
    """The command with a pipe that nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    other = "stderr" if stream == "stdout" else "stdout"
    try:
        return refnet_process(*arguments, cwd=cwd, capture_output=False, **{stream: theirs, other: subprocess.PIPE})
    finally:
        os.close(theirs)


class TestNobodyReads:
    @pytest.mark.parametrize("line", ["summary resnet_v2_50", "--help", "predict a.png --weights w.npz --json", "demo"])
    def test_is_no_failure(self, line: str, files: Path) -> None:
        done = without_reader(*line.split(), cwd=files)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "error" not in done.stderr

    def test_hides_no_failure(self, files: Path) -> None:
        """The exit code says what the output would have said."""
        for line, code in (
            ("summary none.npz --json", 4),
            ("predict a.png none.png --weights w.npz --json", 5),
            ("golden check g.safetensors --weights w.npz --image a.png --json", 5),
        ):
            assert without_reader(*line.split(), cwd=files).returncode == code

    def test_of_stderr(self, files: Path) -> None:
        done = without_reader("predict", "a.png", "none.png", "--weights", "w.npz", cwd=files, stream="stderr")
        assert (done.returncode, done.stdout.split()[0]) == (5, "a.png")


class TestOverflow:
    def test_is_an_error_of_the_image(self, files: Path) -> None:
        done = refnet_process("predict", "a.png", "--weights", "large.npz", "--top", 1, cwd=files)
        assert done.returncode == 5
        assert re.search(r"error: a.png: \d of 7 logits are NaN or infinite", done.stderr)
        assert "nan" not in done.stdout

    def test_json_has_no_nan(self, files: Path) -> None:
        done = refnet_process("predict", "a.png", "--weights", "large.npz", "--top", 1, "--json", cwd=files)
        assert done.returncode == 5
        answer = json.loads(done.stdout, parse_constant=pytest.fail)
        assert answer["images"][0]["error"]["type"] == "InputError"

    @pytest.mark.parametrize(
        ("option", "found"),
        [("batch_norm_epsilon=1e999", "inf"), ("batch_norm_epsilon=NaN", "nan"), ("output_stride=-Infinity", "-inf")],
    )
    def test_json_of_errors_has_them_as_text(self, option: str, found: str, files: Path) -> None:
        line = ("golden", "record", "o.safetensors", "--weights", "w.npz", "--image", "a.png", "--option", option)
        done = refnet_process(*line, "--json", cwd=files)
        assert done.returncode == 2
        error = json.loads(done.stdout, parse_constant=pytest.fail)["error"]
        assert (error["type"], error["found"]) == ("ConfigError", found)


def limited() -> None:
    """No file of more than 1,000 bytes can be written, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


class TestFullDisk:
    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("convert w.npz full.npz --json", 4),
            ("convert w.npz full.safetensors --json", 4),
            ("convert w.npz full.ckpt --json", 4),
            ("golden record full.safetensors --weights w.npz --image a.png --json", 5),
        ],
    )
    def test_names_the_users_file(self, line: str, code: int, files: Path) -> None:
        before = set(files.iterdir())
        done = refnet_process(*line.split(), cwd=files, preexec_fn=limited)
        assert done.returncode == code
        message = json.loads(done.stdout)["error"]["message"]
        assert re.fullmatch(r"full\.\S+: File too large\.", message)
        assert ".tmp" not in message
        assert set(files.iterdir()) == before

    def test_a_folder_that_is_not_there_is_named(self, files: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            refnet.save_weights(files / "nowhere" / "w.npz", WEIGHTS)
        assert caught.value.filename == str(files / "nowhere" / "w.npz")
        assert "None" not in str(caught.value)

    @pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a file that cannot be read")
    @pytest.mark.parametrize("read", [refnet.load_weights, refnet.load_image], ids=["weights", "image"])
    def test_a_file_that_cannot_be_read_is_named(self, read: Callable[[str], object]) -> None:
        with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
            read("/proc/self/mem")


def run_code(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=False, timeout=120, **options
    )


#: A program that keeps two kernels.
KEEPING = """
from refnet_kernels.jit import kept
for file in ("a.o", "b.o"):
    assert kept(file, "a", lambda: bytes(10_000)) == bytes(10_000)
"""


class TestCache:
    @pytest.mark.parametrize("home", ["", "relative/home", "/nonexistent/home"])
    @pytest.mark.parametrize("config", [None, "", "relative/cache"])
    def test_without_a_home_there_is_none(self, home: str, config: str | None, tmp_path: Path) -> None:
        places = environment(HOME=home, XDG_CACHE_HOME=config, REFNET_CACHE=None)
        code = "from refnet_kernels.jit import cache_directory; print(cache_directory())"
        done = run_code(code, cwd=tmp_path, env=places)
        assert (done.stdout, done.stderr) == ("None\n", "")
        assert list(tmp_path.iterdir()) == []
        assert not os.path.exists("/nonexistent")

    def test_it_is_said_once_and_by_a_log(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o770)
        places = environment(REFNET_CACHE=str(tmp_path / "cache"), PYTHONWARNINGS="error")
        done = run_code(KEEPING, env=places)
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert line.startswith("compiled kernels are not kept for the next process: others may write to ")

    def test_a_full_disk_is_said(self, tmp_path: Path) -> None:
        done = run_code(KEEPING, env=environment(REFNET_CACHE=str(tmp_path / "cache")), preexec_fn=limited)
        assert done.returncode == 0
        assert re.fullmatch(r"compiled kernels are not kept .* cannot be written \(File too large\)\n", done.stderr)

    def test_where_none_is_wanted_nothing_is_said(self) -> None:
        assert run_code(KEEPING, env=environment(REFNET_CACHE="off")).stderr == ""

    def test_the_command_line_says_it_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(summary, "run", lambda _: logging.getLogger("refnet").warning("a problem") or 0)
        assert main(["summary", "x"]) == 0
        assert capsys.readouterr().err == "refnet: warning: a problem\n"
        assert logging.getLogger("refnet").handlers == []


class TestEnvironment:
    @pytest.mark.parametrize(
        "setting", ["REFNET_LANES=5", "REFNET_LANES=x", "REFNET_TUNE=always", "REFNET_UPDATE_GOLDENS=yes"]
    )
    def test_a_wrong_setting_is_a_usage_error(
        self, setting: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, value)
        monkeypatch.chdir(files)
        for line in ("predict a.png --weights w.npz --json", "selfcheck --json", "golden check g.safetensors --json"):
            assert main(line.split()) == 2
            out, err = capsys.readouterr()
            assert f"The environment variable {name} is {value!r}; it can be " in json.loads(out)["error"]["message"]
            assert err == ""
        for call in (refnet.Engine, refnet.KerasModel):
            with pytest.raises(ConfigError, match=name):
                call(WEIGHTS)
        with pytest.raises(ConfigError, match=name):
            assert_golden("g.safetensors", end_points={})

    def test_an_empty_setting_says_nothing(self, files: Path) -> None:
        done = refnet_process("predict", "a.png", "--weights", "w.npz", cwd=files, env=environment(REFNET_LANES=""))
        assert done.returncode == 0

    def test_ascii_is_enough(self, tmp_path: Path) -> None:
        make_files(tmp_path)
        (tmp_path / "a.png").rename(tmp_path / "zwölf\n.png")
        plain = environment(PYTHONIOENCODING="ascii", PYTHONUTF8="1")
        done = refnet_process("predict", "zwölf\n.png", "--weights", "w.npz", cwd=tmp_path, env=plain)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, r"zw\xf6lf\n.png")


class TestEnd:
    def test_an_interrupt_while_modules_are_imported(self, tmp_path: Path) -> None:
        (tmp_path / "numpy.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
        )
        shadowed = environment()
        shadowed["PYTHONPATH"] = os.pathsep.join([str(tmp_path), shadowed["PYTHONPATH"]])
        done = refnet_process("--version", env=shadowed)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "refnet: interrupted\n")
        # Another program gets its exception.
        done = run_code("try: import refnet\nexcept KeyboardInterrupt: print('mine')", env=shadowed)
        assert (done.returncode, done.stdout) == (0, "mine\n")

    def test_after_the_imports_an_interrupt_is_an_exception(self) -> None:
        code = "import sys; sys.argv = ['refnet']\nimport refnet, signal\nfrom refnet.cli import main\n"
        code += "before = signal.getsignal(signal.SIGINT).__name__\nmain(['--version'])\n"
        code += "print(before, signal.getsignal(signal.SIGINT).__name__)"
        assert run_code(code, env=environment()).stdout.splitlines()[-1] == "_end default_int_handler"

    def test_waits_for_a_kernel_that_a_thread_compiles(self) -> None:
        code = """
import os, threading, time
from refnet_kernels.jit import kept
started = threading.Event()
def compile():
    started.set()
    time.sleep(0.5)
    os.write(1, b"compiled")
    return b"code"
threading.Thread(target=kept, args=("x.o", "x", compile), daemon=True).start()
started.wait()
"""
        done = run_code(code, env=environment(REFNET_CACHE="off"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "compiled", "")
