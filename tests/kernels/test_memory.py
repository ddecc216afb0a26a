"""How much memory is left, by the system's own files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from refnet_kernels.system.memory import Room, room_for_more

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB available, and 1 GiB of swap."""
    write(tmp_path, "proc/meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\nSwapFree: {2**20} kB\n")
    write(tmp_path, "proc/self/statm", "1000 500 100 1 0 300 0\n")
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(root: Path, file: str, content: object) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(f"{content}\n" if isinstance(content, int) else str(content))


def left(root: Path) -> int:
    room = room_for_more(str(root))
    assert room is not None
    return room.nbytes


def test_a_machine_without_limits(root: Path) -> None:
    assert room_for_more(str(root)) == Room(9 * GIB, "the machine's free memory")


def test_a_machine_that_promises_no_more_than_it_has(root: Path) -> None:
    with open(root / "proc/meminfo", "a") as file:
        file.write(f"CommitLimit: {5 * 2**20} kB\nCommitted_AS: {3 * 2**20} kB\n")
    assert left(root) == 9 * GIB
    write(root, "proc/sys/vm/overcommit_memory", 2)
    assert left(root) == 2 * GIB


@pytest.mark.parametrize("group", ["", "a", "a/b"])
def test_version_2_from_the_own_group_up(root: Path, group: str) -> None:
    write(root, "proc/self/cgroup", "0::/a/b\n")
    for other in ("", "a", "a/b"):
        write(root, f"sys/fs/cgroup/{other}/memory.max", "max\n")
        write(root, f"sys/fs/cgroup/{other}/memory.current", 2 * GIB)
    write(root, f"sys/fs/cgroup/{group}/memory.max", 3 * GIB)
    assert room_for_more(str(root)) == Room(GIB, "the memory limit of its control group")
    # Pages of files give way; so does memory that can be swapped out.
    write(root, f"sys/fs/cgroup/{group}/memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert left(root) == GIB * 3 // 2
    write(root, f"sys/fs/cgroup/{group}/memory.swap.max", GIB)
    write(root, f"sys/fs/cgroup/{group}/memory.swap.current", GIB // 2)
    assert left(root) == 2 * GIB


@pytest.mark.parametrize("folder", ["docker/c0ffee", ""], ids=["outside", "within a container"])
def test_version_1(root: Path, folder: str) -> None:
    write(root, "proc/self/cgroup", "9:cpu:/x\n4:hugetlb,memory:/docker/c0ffee\n0::/\n")
    write(root, f"sys/fs/cgroup/memory/{folder}/memory.limit_in_bytes", 3 * GIB)
    write(root, f"sys/fs/cgroup/memory/{folder}/memory.usage_in_bytes", 2 * GIB)
    write(root, f"sys/fs/cgroup/memory/{folder}/memory.stat", f"inactive_file 7\ntotal_inactive_file {GIB // 4}\n")
    assert left(root) == GIB * 5 // 4
    write(root, f"sys/fs/cgroup/memory/{folder}/memory.limit_in_bytes", 9223372036854771712)
    assert left(root) == 9 * GIB


def test_what_is_used_up_is_0(root: Path) -> None:
    write(root, "sys/fs/cgroup/memory.max", GIB)
    write(root, "sys/fs/cgroup/memory.current", 2 * GIB)
    assert left(root) == 0


@pytest.mark.parametrize("content", ["", "\n", "max", "none of it\n", "a b c\n:::\n"])
def test_files_of_another_kind_are_passed_over(root: Path, content: str) -> None:
    for file in ("proc/self/cgroup", "sys/fs/cgroup/memory.max", "proc/sys/vm/overcommit_memory"):
        write(root, file, content)
    assert left(root) == 9 * GIB
    write(root, "proc/meminfo", content)
    room_for_more(str(root))


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_the_process(limit: str) -> None:
    """What is left can be had, and not much more."""
    code = f"""
import mmap, resource
from refnet_kernels.system.memory import room_for_more
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.{limit}, (used + (400 << 20), resource.RLIM_INFINITY))
room = room_for_more()
assert room.limit.startswith("the process's limit"), room
mmap.mmap(-1, room.nbytes - (8 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
try:
    mmap.mmap(-1, room.nbytes + (8 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
except OSError:
    pass
else:
    raise AssertionError(room)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
