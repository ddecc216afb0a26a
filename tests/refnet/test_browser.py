"""What a Python in a browser can do: no compiler, no threads, none of the packages that have no wheels there."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import refnet
from tests.support.nets import lively_weights

#: As Pyodide is: its platform, the modules of the standard library that it lacks, and no threads.
BROWSER = """
import sys, threading

MISSING = {"numba", "llvmlite", "crc32c", "cramjam", "safetensors", "PIL", "rich", "fcntl", "resource"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ImportError(f"{name} is missing")

def start(self):
    raise RuntimeError("can't start new thread")

sys.meta_path.insert(0, Missing())
sys.modules.pop("fcntl", None), sys.modules.pop("resource", None)
threading.Thread.start = start
import numpy as np
sys.platform = "emscripten"
"""

PROGRAM = """
import hashlib
import refnet

weights = refnet.load_weights("net.npz")
images = refnet.seeded.random_images((2, 17, 19, 3))
print(hashlib.sha256(refnet.forward(weights, images, device="reference").tobytes()).hexdigest())
refnet.forward(weights, np.zeros((30, 40, 3), np.uint8), device="reference")
refnet.save_weights("again.npz", refnet.random_weights([refnet.resnet_v2_block("block1", 4, 1, 1)]))
try:
    refnet.forward(weights, images)
except refnet.errors.DeviceError as error:
    print(error)
"""


def test_the_definitions_run_in_a_browser(tmp_path: Path) -> None:
    weights, root = lively_weights(), Path(refnet.__file__).parents[1]
    refnet.save_weights(tmp_path / "net.npz", weights)
    expected = refnet.forward(weights, refnet.seeded.random_images((2, 17, 19, 3)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BROWSER + PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digest, error = done.stdout.splitlines()
    assert digest == hashlib.sha256(expected.tobytes()).hexdigest()
    assert "device='reference'" in error
