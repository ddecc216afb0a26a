"""Files that hold no weights that refnet reads are named, and directories and indices lead to those that do."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import refnet
from refnet.errors import CorruptError, FormatError, RefnetError
from refnet.weights.formats import read, write
from tests.refnet.formats.bad_files import BadFile, check_refused, content
from tests.support.nets import lively_weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>Not found</title></head></html>"


def _picture(folder: Path) -> Path:
    Image.new("RGB", (4, 4)).save(folder / "a.npz", "PNG")
    return folder / "a.npz"


def _index(places: object, *names: str, end: str = "") -> Callable[[Path], Path]:
    """An index with a text behind it, beside shards with one tensor each."""

    def save(folder: Path) -> Path:
        for name in names:
            save_file({name: np.ones(2, np.float32)}, folder / f"{name}.safetensors")
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(places) + end)
        return path

    return save


def _of(places: object) -> dict[str, object]:
    return {"metadata": {}, "weight_map": places}


BAD: dict[str, BadFile] = {
    "a pointer of Git LFS": content(LFS, FormatError, "Git LFS.*git lfs pull", "a.ckpt"),
    "a web page": content(PAGE, FormatError, "a web page.*download the file again", "a.safetensors"),
    "a web page with a mark": content(b"\xef\xbb\xbf<html>", FormatError, "a web page", "a.pth"),
    "MXNet's .params": content(struct.pack("<QQQ", 0x112, 0, 3), FormatError, "MXNet's .params.*ONNX", "a.params"),
    "TFLite": content(struct.pack("<I", 28) + b"TFL3", FormatError, "TFLite.*checkpoint or SavedModel", "a.tflite"),
    "Caffe": content(b"\x0a\x09ResNet-50\xa2\x06\x05", FormatError, "a Caffe model", "a.caffemodel"),
    "OpenVINO's XML": content(b'<?xml version="1.0"?>\n<net name="a">', FormatError, "graph in XML", "a.xml"),
    "ncnn's graph": content(b"7767517\n75 83\n", FormatError, "ncnn", "a.param"),
    "JSON": content(b'{"architectures": []}', FormatError, "JSON, which holds no weights", "config.json"),
    "a picture": BadFile(_picture, FormatError, "an image: pass it where images belong"),
    "a PDF": content(b"%PDF-1.7", FormatError, "a PDF document", "a.h5"),
    "GGUF": content(b"GGUF\x03\0\0\0", FormatError, "GGUF", "a.gguf"),
    "bzip2": content(b"BZh91AY", FormatError, "bunzip2", "a.tar.bz2"),
    "xz": content(b"\xfd7zXZ\0\0", FormatError, "unxz", "a.xz"),
    "7z": content(b"7z\xbc\xaf\x27\x1c\0", FormatError, "7z or RAR", "a.7z"),
    "MATLAB": content(b"MATLAB 5.0 MAT-file", FormatError, "loadmat", "a.mat"),
    "an index without a map": BadFile(_index({"metadata": {}}), FormatError, "no 'weight_map'"),
    "an index of numbers": BadFile(_index(_of({"a": 1})), FormatError, "no 'weight_map'"),
    "an index that is cut off": BadFile(_index({}, end="{"), FormatError, "not valid JSON"),
    "an index of a file elsewhere": BadFile(_index(_of({"a": "../a.safetensors"})), FormatError, "beside the index"),
    "an index of an absolute path": BadFile(_index(_of({"a": "/etc/passwd"})), FormatError, "beside the index"),
    "an index of its own directory": BadFile(_index(_of({"a": ".."})), FormatError, "beside the index"),
    "an index of itself": BadFile(
        _index(_of({"a": "model.safetensors.index.json"})), FormatError, "names another index"
    ),
    "an index with a tensor that is not there": BadFile(
        _index(_of({"a": "a.safetensors", "b": "a.safetensors"}), "a"), CorruptError, "missing in the files.*: b"
    ),
    "an index with a tensor too few": BadFile(
        _index(_of({"a": "a.safetensors", "c": "b.safetensors"}), "a", "b"), FormatError, "does not place there: b"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


def test_tensorflows_own_graph(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.placeholder(tf.float32, (1, 224, 224, 3), "input")
        tf.constant(np.ones((3, 3, 3, 3), np.float32), name="weights")
    (tmp_path / "a.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(FormatError, match=r"a TensorFlow graph \(frozen.*tf2onnx"):
        read(tmp_path / "a.pb")


def shards(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """As Hugging Face has them: three files and an index."""
    places = {}
    for part in range(3):
        names = sorted(tensors)[part::3]
        shard = f"model-0000{part + 1}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        places |= dict.fromkeys(names, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_shards_are_one_network(tmp_path: Path) -> None:
    tensors = lively_weights()
    for path in (shards(tmp_path, tensors), tmp_path):
        loaded = refnet.load_weights(path, strict=True)
        assert loaded.keys() == tensors.keys()
        assert all(loaded[name].tobytes() == tensors[name].tobytes() for name in tensors)


def test_all_missing_shards_are_named(tmp_path: Path) -> None:
    index = shards(tmp_path, lively_weights())
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    words = "2 of the 3 files that .*index.json names are missing: model-00002-of-00003.safetensors, model-00003-of-.*"
    for path in (index, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{words}; put them beside it"):
            refnet.load_weights(path)


@pytest.mark.parametrize("damage", [b"", b"{", b"not a shard"])
def test_a_damaged_shard_is_named(damage: bytes, tmp_path: Path) -> None:
    index = shards(tmp_path, lively_weights())
    (tmp_path / "model-00003-of-00003.safetensors").write_bytes(damage)
    with pytest.raises(RefnetError, match=r"index\.json: .*model-00003-of-00003"):
        read(index)


def test_a_directory_leads_to_its_weights(tmp_path: Path) -> None:
    tensors = lively_weights()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert refnet.load_weights(tmp_path).keys() == tensors.keys()


def test_the_state_file_leads_to_the_latest_checkpoint(tmp_path: Path) -> None:
    tensors = lively_weights()
    for step in (1, 2):
        write(tmp_path / f"model.ckpt-{step}", {name: value * step for name, value in tensors.items()}, {})
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-2"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
    )
    loaded = refnet.load_weights(tmp_path / "checkpoint")
    assert all(loaded[name].tobytes() == (tensors[name] * 2).tobytes() for name in tensors)
    # A checkpoint can have this name too.
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    write(tmp_path / "x.npz", tensors, {})
    (tmp_path / "x.npz").rename(tmp_path / "checkpoint")
    assert refnet.load_weights(tmp_path / "checkpoint").keys() == tensors.keys()
