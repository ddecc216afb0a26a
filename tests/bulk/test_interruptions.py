"""A job that is killed, interrupted or terminated goes on by the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import refnet
from tests.bulk.inputs import WEIGHTS, expected, hash_of, write_images
from tests.support.needed import missing

try:
    from tests.bulk.kills import kills
except ImportError:
    missing("pyarrow is missing")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_kills() -> None:
    assert kills(8, 200, 0.3).count == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_kills() -> None:
    assert kills(200, 5000, 0.6).count == 200


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "refnet", "batch", str(folder / "in"), "--weights", str(folder / "w.npz"),
            "--out", str(folder / "out"), "--batch", "1", "--shard-rows", "7", *more]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_batch_in_hand(number: signal.Signals, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 150)
    # Large enough that the job lasts.
    refnet.save_weights(tmp_path / "w.npz", refnet.Weights(WEIGHTS, recipe=refnet.Recipe(140, 140, 1.0)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen(command(tmp_path), env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    job.send_signal(number)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130, stderr
    assert "interrupted after" in stderr
    assert "the same command goes on" in stderr
    status = json.loads(run(["batch", "--status", str(tmp_path / "out"), "--json"]))
    assert 0 < status["rows"] < 154
    assert (status["sha256"], status["running"]) == (None, False)
    *events, done = map(json.loads, run(command(tmp_path, "--json")[3:]).splitlines())
    assert {event["event"] for event in events} == {"progress"}
    assert done["made"] == 154 - status["rows"]
    assert done["sha256"] == refnet.batch(tmp_path / "in", tmp_path / "w.npz", tmp_path / "again").sha256


def run(arguments: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-m", "refnet", *arguments]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_second_ctrl_c_ends_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 30)
    seen = []

    def twice(now: object) -> None:
        seen.append(now)
        if len(seen) in (3, 4):
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refnet.bulk.job._TELL_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "out", progress=twice, batch_size=8)
    assert len(seen) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "out")
    assert (done.rows - done.made, done.sha256) == (4, hash_of(expected(tmp_path / "in")))
