"""What a Python in a browser can do: no compiler, no threads, none of the packages that have no wheels there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import refnet
from refnet.evidence.selfcheck import published
from tests.support.nets import lively_weights

#: As Pyodide is: its platform, the modules and functions of the standard library that it lacks, one core, no threads or
#: processes.
BROWSER = """
import os, sys, threading

PACKAGES = "numba llvmlite crc32c cramjam safetensors PIL rich"
LIBRARY = "_multiprocessing _posixshmem _sqlite3 _ssl curses dbm fcntl grp lzma pwd readline resource ssl termios"
FUNCTIONS = (
    "copy_file_range eventfd forkpty get_terminal_size getegid geteuid getgroups getrandom getresuid getxattr lchown "
    "link listxattr memfd_create mkfifo mknod nice openpty pidfd_open pipe2 posix_fallocate posix_spawn posix_spawnp "
    "preadv pwritev removexattr sched_getaffinity sched_getparam sched_setaffinity sendfile setegid seteuid setxattr "
    "splice wait4"
)
MISSING = {*PACKAGES.split(), *LIBRARY.split()}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def start(*_, **__):
    raise RuntimeError("can't start new thread")

def fork(*_, **__):
    raise OSError("Function not implemented")

sys.meta_path.insert(0, Missing())
for name in MISSING & set(sys.modules):
    del sys.modules[name]
threading.Thread.start = threading._start_new_thread = start
os.fork = os.execv = fork
for name in FUNCTIONS.split():
    delattr(os, name)
del threading.get_native_id
os.cpu_count = lambda: 1
import numpy as np
sys.platform = "emscripten"
for name in MISSING:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported")
"""


def in_browser(program: str, folder: Path) -> str:
    """What a program prints in such a Python."""
    root = Path(refnet.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BROWSER + program], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


FORWARD = """
import hashlib, pathlib
import refnet

for name in ("fetched.npz", "fetched.safetensors"):
    copy = pathlib.Path("copy-of-" + name)
    copy.write_bytes(pathlib.Path(name).read_bytes())  # as a page stores what it fetched
    weights = refnet.load_weights(copy)
    images = refnet.seeded.random_images((2, 17, 19, 3))
    print(hashlib.sha256(refnet.forward(weights, images, device="reference").tobytes()).hexdigest())
refnet.forward(weights, np.zeros((30, 40, 3), np.uint8), device="reference")
refnet.save_weights("again.npz", weights)
again = refnet.load_weights("again.npz")
assert all(again[name].tobytes() == weights[name].tobytes() for name in weights)
try:
    refnet.forward(weights, images)
except refnet.errors.DeviceError as error:
    print(error)
"""


def test_the_definitions_run_in_a_browser(tmp_path: Path) -> None:
    weights = lively_weights()
    for name in ("fetched.npz", "fetched.safetensors"):
        refnet.save_weights(tmp_path / name, weights)
    expected = refnet.forward(weights, refnet.seeded.random_images((2, 17, 19, 3)))
    *digests, error = in_browser(FORWARD, tmp_path).splitlines()
    assert digests == [hashlib.sha256(expected.tobytes()).hexdigest()] * 2
    assert "device='reference'" in error


SELFCHECK = """
import refnet.cli
from refnet.evidence.selfcheck import CASES, hashes

(case,) = [case for case in CASES if case.name == "v1"]
print(hashes(case, case.weights(), case.images(), device="reference")["net"])
sys.exit(refnet.cli.main(["selfcheck", "nominal", "--device", "reference", "--json"]))
"""


def test_the_selfcheck_has_the_published_hashes_in_a_browser(tmp_path: Path) -> None:
    digest, answer = in_browser(SELFCHECK, tmp_path).splitlines()
    assert digest == published()["cases"]["v1"]["end_points"]["net"]
    found = json.loads(answer)
    assert found["same"] is True
    assert found["checks"][0]["end_points"] == len(published()["cases"]["nominal"]["end_points"])
    assert found["environment"]["numpy"]
