"""The shortest loop that a user would write with Daft's UDF and ONNX Runtime, beside one with `refnet.Predictor`.

Both read the same JPEGs and keep the best class and its probability; ONNX Runtime's loop has no error rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import refnet
from benchmarks.common import Case
from benchmarks.models import write_onnx
from tests.bulk.speed import write_photos
from tests.reliability.figures import Row, child_environment

WITH_ONNX_RUNTIME = """
import io
import daft
import numpy as np
import onnxruntime
from PIL import Image

TYPE = daft.DataType.struct({"class": daft.DataType.int32(), "p": daft.DataType.float32()})

@daft.cls
class Classes:
    def __init__(self):
        self.session = onnxruntime.InferenceSession("w.onnx")

    @daft.method.batch(return_dtype=TYPE, batch_size=16)
    def __call__(self, image):
        opened = [Image.open(io.BytesIO(content)).convert("RGB").resize((224, 224)) for content in image.to_pylist()]
        pixels = np.stack([np.asarray(one, np.float32) for one in opened]) / 127.5 - 1
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: pixels.transpose(0, 3, 1, 2)})
        logits = logits.reshape(len(logits), -1)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return [{"class": int(one.argmax()), "p": float(one.max())} for one in p]

photos = daft.from_glob_path("photos/*")
photos.select(photos["path"], Classes()(photos["path"].download())).write_parquet("rows_onnx")
"""

WITH_REFNET = """
import daft
import refnet

predictor = refnet.Predictor("w.safetensors", top=1)

@daft.cls
class Rows:
    @daft.method.batch(return_dtype=daft.DataType.from_arrow_type(predictor.type), unnest=True, batch_size=16)
    def __call__(self, image, id):
        return predictor(image.to_arrow(), id.to_arrow())

photos = daft.from_glob_path("photos/*")
photos.select(Rows()(photos["path"].download(), photos["path"])).write_parquet("rows_refnet")
"""

WITH_ONE_CALL = """
import refnet

refnet.batch("photos", "w.safetensors", "rows_batch", top=1)
"""


def write_model(weights: refnet.Weights, path: Path) -> None:
    """The network in ONNX, for batches of any size."""
    import onnx

    write_onnx(Case("resnet_v2_50", 224, 1, 2, None, 1001), weights, path)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, path)


def seconds(program: str, folder: Path) -> float:
    command = [sys.executable, "-W", "ignore", "-c", program]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=child_environment(DO_NOT_TRACK="1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - start


def peers(count: int, rounds: int) -> list[Row]:
    programs = {
        "Daft and ONNX Runtime": WITH_ONNX_RUNTIME,
        "Daft and refnet": WITH_REFNET,
        "refnet.batch": WITH_ONE_CALL,
    }
    missing = [name for name in ("daft", "onnxruntime", "onnx") if find_spec(name) is None]
    if missing:
        print(f"peers: without {', '.join(missing)}, which is not installed")
        return []
    found: dict[str, list[float]] = {name: [] for name in programs}
    weights = refnet.random_weights("resnet_v2_50", 1001, seed=0).replace(recipe=refnet.Recipe(224, 224, 1.0))
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            write_photos(folder / "photos", count)
            refnet.save_weights(folder / "w.safetensors", weights)
            write_model(weights, folder / "w.onnx")
            for name, program in programs.items():
                found[name].append(seconds(program, folder))
    return [
        Row(
            name,
            count,
            f"{min(times):.1f} s, from start to end; {len([*filter(None, programs[name].splitlines())])} lines",
        )
        for name, times in found.items()
    ]


def long() -> list[Row]:
    return peers(500, 2)
