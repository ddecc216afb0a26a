"""What ``refnet completion`` writes, in the shells themselves."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from refnet.cli import _COMMANDS, main
from refnet.evidence.selfcheck import CASES
from refnet.network.networks import NETWORKS
from refnet.run.backends import BACKENDS

Script = Callable[[str], Path]

#: What is typed, and what the shell makes of it.
TYPED = (
    ("pred\t", ["predict"]),
    ("predict --dev\tref\t", ["predict", "--device", "reference"]),
    ("predict --device=ref\t", ["predict", "--device=reference"]),
    ("predict pict\t--weights net.c\t--recipe hug\t", [
        "predict", "picture.png", "--weights", "net.ckpt", "--recipe", "hugging-face",
    ]),
    ("golden rec\tout --option dtype=float6\t", ["golden", "record", "out", "--option", "dtype=float64"]),
    ("plot net\tresnet_v2_15\tout.png", ["plot", "network", "resnet_v2_152", "out.png"]),
    ("summary picture.png --rec\t", ["summary", "picture.png", "--recipe"]),
    ("batch --form\tj\t", ["batch", "--format", "jsonl"]),
    ("comple\tz\t", ["completion", "zsh"]),
    ("--vers\t", ["--version"]),
)  # fmt: skip
#: Starts each shell without the user's settings, and has it complete.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set bell-style none'"),
    "zsh": (["zsh", "-f", "-i"], "unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D"),
}


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Script:
    """Writes the script of a shell, beside some files, or skips the test."""

    def write(shell: str) -> Path:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        assert main(["completion", shell]) == 0
        (tmp_path / "script").write_text(capsys.readouterr().out)
        for name in ("picture.png", "net.ckpt"):
            (tmp_path / name).touch()
        return tmp_path / "script"

    return write


class Terminal:
    """A shell in a terminal of its own, in the script's folder, where ``refnet`` prints its arguments."""

    def __init__(self, shell: str, script: Path) -> None:
        command, settings = SHELLS[shell]
        self._own, other = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(script.parent), "PS1": "", "LC_ALL": "C"}
        self._shell = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, cwd=script.parent, env=environment, start_new_session=True
        )
        os.close(other)
        self._said = ""
        self.type("refnet() { printf '<%s>' ok \"$@\"; echo; }\n")
        self.type(f"{settings}; . ./script; refnet ready\n")
        self.wait_for("<ok><ready>")

    def type(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """The first match in what the shell says from now on."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self._said)) is None:
            ready, _, _ = select.select([self._own], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern} in {self._said!r}"
            self._said += os.read(self._own, 65536).decode(errors="replace")
        self._said = self._said[found.end() :]
        return found[0]

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        with suppress(OSError):
            os.close(self._own)


@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_shell_completes(shell: str, script: Script) -> None:
    terminal = Terminal(shell, script(shell))
    try:
        for keys, words in TYPED:
            terminal.type(f"refnet {keys}\n")
            assert terminal.wait_for(r"<ok>(?:<[^>\r\n]*>)*") == "<ok>" + "".join(f"<{word}>" for word in words), keys
    finally:
        terminal.close()


def offered_by_bash(script: Path, *typed: str) -> list[str]:
    """What is offered for the last of the words that stand before the cursor."""
    program = '. "$1"; shift; COMP_WORDS=(refnet "$@"); COMP_CWORD=$#; compopt() { :; }; _refnet; '
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", program, "bash", str(script), *typed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def offered_by_fish(script: Path, *typed: str) -> list[str]:
    program = "source $argv[1]; complete -C $argv[2]"
    command = ["fish", "--no-config", "-c", program, str(script), " ".join(["refnet", *typed])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=script.parent,
        env={"PATH": os.environ["PATH"], "HOME": str(script.parent), "TERM": "dumb", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


OFFERED = {"bash": offered_by_bash, "fish": offered_by_fish}


@pytest.mark.parametrize("shell", list(OFFERED))
def test_all_that_is_known_is_offered(shell: str, script: Script) -> None:
    path, offered = script(shell), OFFERED[shell]
    assert set(offered(path, "")) == set(_COMMANDS)
    assert set(offered(path, "golden", "")) == {"record", "check"}
    assert set(offered(path, "plot", "")) == {"network", "features", "dense", "kernels"}
    assert set(offered(path, "predict", "--device", "")) == {backend.name for backend in BACKENDS}
    assert set(offered(path, "summary", "resnet_")) == set(NETWORKS)
    assert set(offered(path, "selfcheck", "v1")) == {case.name for case in CASES if case.name.startswith("v1")}
    assert {"--device", "--image", "--random", "--json"} <= set(offered(path, "golden", "record", "--"))
    assert "--random" not in offered(path, "golden", "check", "--")
    assert offered(path, "predict", "--top", "") == []


def test_fish_offers_files_where_files_are_wanted(script: Script) -> None:
    path = script("fish")
    assert offered_by_fish(path, "predict", "pic") == ["picture.png"]
    assert offered_by_fish(path, "predict", "--weights", "n") == ["net.ckpt"]
    assert "net.ckpt" not in offered_by_fish(path, "predict", "--device", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in _COMMANDS:
        assert main([command, "--help"]) == 0
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", capsys.readouterr().out))
    assert main(["completion", shell]) == 0
    words = set(re.findall(r"[a-z][a-z-]+", capsys.readouterr().out))
    assert {"device", "weights", "end-points"} <= flags <= words


def test_words_need_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    texts = re.findall(r'words="(.*?)"', capsys.readouterr().out)
    assert len(texts) > 20
    assert all(re.fullmatch(r"[\w.=-]+", word) for text in texts for word in text.split())


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh", "--json"]) == 2
    assert "tcsh" in json.loads(capsys.readouterr().out)["error"]["message"]
