"""How many cores a process may use, by the system's own files and by what Python is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refnet_kernels.system import cores
from refnet_kernels.system.cores import count_cores, granted

GROUPS = "sys/fs/cgroup"


def write(root: Path, file: str, content: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(content)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("100000 100000\n", 1),
        ("100001 100000\n", 2),
        ("1000 100000\n", 1),
        ("50000 10000\n", 5),
    ],
)
def test_version_2(tmp_path: Path, limit: str, expected: int | None) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a\n")
    write(tmp_path, f"{GROUPS}/a/cpu.max", limit)
    assert granted(str(tmp_path)) == expected


@pytest.mark.parametrize("least", ["", "a", "a/b", "a/b/c"])
def test_each_group_on_the_way_limits(tmp_path: Path, least: str) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a/b/c\n")
    write(tmp_path, f"{GROUPS}/a/cpu.max", "max 100000\n")  # the root group itself has no such file
    for group in ("a/b", "a/b/c"):
        write(tmp_path, f"{GROUPS}/{group}/cpu.max", "900000 100000\n")
    write(tmp_path, f"{GROUPS}/{least}/cpu.max", "300000 100000\n")
    write(tmp_path, f"{GROUPS}/a/other/cpu.max", "100000 100000\n")
    assert granted(str(tmp_path)) == 3


@pytest.mark.parametrize("folder", ["docker/c0ffee", ""], ids=["outside", "within a container"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 3), ("400000", 4), ("20000", 1)])
def test_version_1(tmp_path: Path, folder: str, quota: str, expected: int | None) -> None:
    write(tmp_path, "proc/self/cgroup", "9:memory:/x\n4:cpu,cpuacct:/docker/c0ffee\n3:cpuset:/y\n0::/\n")
    write(tmp_path, f"{GROUPS}/cpu/{folder}/cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path, f"{GROUPS}/cpu/{folder}/cpu.cfs_period_us", "100000\n")
    assert granted(str(tmp_path)) == expected


@pytest.mark.parametrize(
    "content", ["", "\n", "max", "max max", "1 2 3", "100000 0", "-5 100000", "0 100000", "0.5 1", "\xff", "a:b"]
)
def test_files_of_another_kind_grant_all(tmp_path: Path, content: str) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a\n1:cpu:/\n")
    for file in ("a/cpu.max", "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"):
        write(tmp_path, f"{GROUPS}/{file}", content)
    assert granted(str(tmp_path)) is None
    write(tmp_path, "proc/self/cgroup", content)
    assert granted(str(tmp_path)) is None


def test_without_the_files(tmp_path: Path) -> None:
    assert granted(str(tmp_path)) is None
    write(tmp_path, "proc/self/cgroup", "0::/a\n")
    assert granted(str(tmp_path)) is None


@pytest.mark.parametrize(("quota", "affinity", "expected"), [(None, 4, 4), (2, 4, 2), (9, 4, 4), (1, 4, 1), (3, 1, 1)])
def test_the_least_counts(monkeypatch: pytest.MonkeyPatch, quota: int | None, affinity: int, expected: int) -> None:
    monkeypatch.setattr(cores, "_granted", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    assert count_cores() == expected
    # What Python is told can be less, and cannot make cores.
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    assert count_cores() == min(expected, 2)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    assert count_cores() == expected
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    assert count_cores() == expected


def test_the_child_of_a_fork_counts_the_same_and_reads_nothing_again() -> None:
    code = """
import builtins, os
from refnet_kernels.system import cores
cores.granted = lambda root="/": calls.append(root) or 1
calls = []
assert cores.count_cores() == 1
child = os.fork()
if not child:
    os._exit(0 if cores.count_cores() == 1 and len(calls) == 1 else 1)
_, status = os.waitpid(child, 0)
assert status == 0
assert cores.count_cores() == 1 and calls == ["/"], calls
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python knows PYTHON_CPU_COUNT from 3.13 on")
def test_python_is_told() -> None:
    code = "from refnet_kernels.system.cores import count_cores; print(count_cores())"
    command = [sys.executable, "-X", "cpu_count=1", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
