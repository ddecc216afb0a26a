"""ONNX files: what the reader and the recognition of graphs accept, and what they refuse. Layers: tests/onnx."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import refnet
from refnet.errors import CorruptError, FormatError, LimitError, RefnetError, ShapeMismatchError, WeightsError
from refnet.weights.formats import Loaded, read
from tests.onnx.models import Style, model
from tests.refnet.formats.bad_files import BadFile, check_refused, flip, read_or_refuse

V1 = Style(1, norm="folded", deep=True, stages=((2, 1), (3, 2)), classes=3)
V2 = Style(2, deep=True, stages=((2, 1), (3, 2)), classes=3)
TF = V2._replace(place="last_unit", pool="slim", nhwc=True, head="conv", deep=False)

Edit = Callable[[onnx.ModelProto], Any]


def proto(style: Style, *edits: Edit, size: tuple[int, int] | None = None) -> onnx.ModelProto:
    made = onnx.ModelProto.FromString(model(style, 3, size).proto.SerializeToString())
    for edit in edits:
        edit(made)
    return made


def written(folder: Path, made: onnx.ModelProto) -> Path:
    (folder / "a.onnx").write_bytes(made.SerializeToString())
    return folder / "a.onnx"


def loaded(folder: Path, made: onnx.ModelProto) -> Loaded:
    onnx.checker.check_model(made)
    return read(written(folder, made))


def same_tensors(found: Loaded, expected: Loaded) -> None:
    assert list(found.tensors) == list(expected.tensors)
    for name, array in found.tensors.items():
        np.testing.assert_array_equal(array, expected.tensors[name], strict=True)


def nodes(made: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in made.graph.node if node.op_type == op]


def attribute(op: str, index: int, name: str, value: Any) -> Edit:
    """Give a node another value of an attribute."""

    def edit(made: onnx.ModelProto) -> None:
        node = nodes(made, op)[index]
        for old in [old for old in node.attribute if old.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return edit


def tensor(made: onnx.ModelProto, index: int) -> onnx.TensorProto:
    return made.graph.initializer[index]


def of_tensor(change: Callable[[onnx.TensorProto], Any], index: int = 0) -> Edit:
    return lambda made: change(tensor(made, index))


def constant(made: onnx.ModelProto, array: np.ndarray) -> str:
    name = f"new{len(made.graph.initializer)}"
    made.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def after(op: str, index: int, *more: tuple[str, dict[str, Any]], inputs: tuple[np.ndarray, ...] = ()) -> Edit:
    """Put nodes behind a node; the constants are further inputs of each."""

    def edit(made: onnx.ModelProto) -> None:
        node = nodes(made, op)[index]
        place = list(made.graph.node).index(node) + 1
        last = node.output[0]
        node.output[0] = f"{last}_before_0"
        names = [constant(made, array) for array in inputs]
        for i, (kind, attributes) in enumerate(more):
            output = last if i == len(more) - 1 else f"{last}_before_{i + 1}"
            domain = attributes.pop("domain", "")
            new = helper.make_node(kind, [f"{last}_before_{i}", *names], [output], domain=domain, **attributes)
            made.graph.node.insert(place + i, new)

    return edit


# What is read.


def test_options_names_and_recipe(tmp_path: Path) -> None:
    weights = refnet.load_weights(written(tmp_path, proto(V2)), strict=True)
    assert weights.source == "ONNX"
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit", "batch_norm_epsilon": 1e-5}
    assert weights.architecture.num_classes == 3
    renamed = weights.conversion.renamed
    assert renamed.keys() | set(weights.conversion.added) == weights.keys()
    stored = {each.name: numpy_helper.to_array(each) for each in proto(V2).graph.initializer}
    for slim, name in renamed.items():
        array = stored[name]
        if slim.endswith("/weights"):
            # The classifier's is [outputs, inputs].
            array = array.reshape(*array.shape, *(1,) * (4 - array.ndim)).transpose(2, 3, 1, 0)
        assert weights[slim].tobytes() == array.tobytes(), slim
    assert all(not weights[name].any() for name in weights.conversion.added)


def external(made: onnx.ModelProto, *, location: str = "a.onnx.data", checksum: bool = False) -> bytes:
    """Move all values to another file, with gaps between them, and give its content."""
    content = b"gap"
    for each in made.graph.initializer:
        values = each.raw_data
        each.ClearField("raw_data")
        each.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": len(content), "length": len(values)}
        for key, value in entries.items():
            each.external_data.add(key=key, value=str(value))
        content += values + b"gap"
    if checksum:
        for each in made.graph.initializer:
            each.external_data.add(key="checksum", value=hashlib.sha1(content).hexdigest())
    return content


@pytest.mark.parametrize("checksum", [False, True])
def test_values_in_another_file(tmp_path: Path, checksum: bool, watch: Any) -> None:
    expected = loaded(tmp_path, proto(V2))
    made = proto(V2)
    (tmp_path / "a.onnx.data").write_bytes(external(made, checksum=checksum))
    path = written(tmp_path, made)
    with watch(str(path), str(tmp_path / "a.onnx.data")):
        found = read(path)
    same_tensors(found, expected)


def test_what_changes_nothing_is_passed_over(tmp_path: Path) -> None:
    expected = loaded(tmp_path, proto(V1))
    made = proto(
        V1,
        after("Relu", 1, ("Identity", {}), ("Dropout", {})),
        after("Relu", 3, ("Dropout", {}), inputs=(np.array(0.5, np.float32), np.array(False))),
        after("Flatten", 0, ("Cast", {"to": TensorProto.DOUBLE}), ("Cast", {"to": TensorProto.FLOAT})),
        after("Gemm", 0, ("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1})),
    )
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    # A node for a value that no output depends on, and a constant that no node reads.
    made.graph.node.append(helper.make_node("Sigmoid", [made.graph.node[0].output[0]], ["unused"]))
    constant(made, np.ones(3, np.float32))
    found = loaded(tmp_path, made)
    same_tensors(found, expected)
    assert list(found.conversion.left_out.values()) == ["no layer of the network reads it"]


def test_equal_kernels_may_be_one_tensor(tmp_path: Path) -> None:
    """Each use has a copy, which kernels can be packed in: the bits are those of the file with all of them."""
    made = proto(Style(2, stages=((2, 3), (3, 3)), merged=True, classes=3))
    apart = onnx.ModelProto.FromString(made.SerializeToString())
    stored = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    del apart.graph.initializer[:]
    for node in apart.graph.node:
        for i, name in enumerate(node.input):
            if name in stored:
                node.input[i] = constant(apart, stored[name])
    assert len(apart.graph.initializer) > len(made.graph.initializer) + 20
    found, expected = refnet.load_weights(written(tmp_path, made), strict=True), read(written(tmp_path, apart))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.tensors.items()
    }
    arrays = list(found.values())
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_several_outputs_on_one_way(tmp_path: Path) -> None:
    expected = loaded(tmp_path, proto(V1))
    made = proto(V1)
    logits = made.graph.output[0].name
    made.graph.node.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=1))
    made.graph.node.append(helper.make_node("ArgMax", [logits], ["class"], axis=1))
    features = [nodes(made, "Flatten")[0].output[0], nodes(made, "Relu")[-1].output[0]]
    for name in ("probabilities", "class", *features):
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    same_tensors(read(written(tmp_path, made)), expected)


def test_features_without_a_classifier(tmp_path: Path) -> None:
    made = proto(V2)
    made.graph.node.remove(nodes(made, "Gemm")[0])
    made.graph.output[0].name = nodes(made, "Flatten")[0].output[0]
    weights = refnet.load_weights(written(tmp_path, made))
    assert weights.architecture.num_classes is None
    assert not any("logits" in name for name in weights)
    assert len(weights.conversion.left_out) == 2


def _constants_as_nodes(made: onnx.ModelProto) -> None:
    for i, each in enumerate(list(made.graph.initializer)):
        made.graph.node.insert(i, helper.make_node("Constant", [], [each.name], value=each))
    del made.graph.initializer[:]


def _constants_among_the_inputs(made: onnx.ModelProto) -> None:
    for each in made.graph.initializer:
        made.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))


def _values_as_floats(made: onnx.ModelProto) -> None:
    for each in made.graph.initializer:
        values = numpy_helper.to_array(each)
        each.CopyFrom(helper.make_tensor(each.name, each.data_type, values.shape, values.ravel()))


def _pads_in_nodes(made: onnx.ModelProto) -> None:
    node = nodes(made, "Conv")[0]
    pads = constant(made, np.array([0, 0, 1, 1] * 2, np.int64))
    made.graph.node.insert(0, helper.make_node("Pad", [node.input[0], pads], ["padded"]))
    node.input[0] = "padded"
    attribute("Conv", 0, "pads", [0] * 4)(made)


def _lowest_pads_of_the_pool(made: onnx.ModelProto) -> None:
    node = nodes(made, "MaxPool")[0]
    more = [constant(made, np.array([0, 0, 1, 1] * 2, np.int64)), constant(made, np.array(-np.inf, np.float32))]
    place = list(made.graph.node).index(node)
    made.graph.node.insert(place, helper.make_node("Pad", [node.input[0], *more], ["padded"]))
    nodes(made, "MaxPool")[0].input[0] = "padded"
    attribute("MaxPool", 0, "pads", [0] * 4)(made)


def _mean_in_nhwc(made: onnx.ModelProto) -> None:
    node = nodes(made, "GlobalAveragePool")[0]
    place = list(made.graph.node).index(node)
    made.graph.node.insert(place, helper.make_node("Transpose", [node.input[0]], ["nhwc"], perm=[0, 2, 3, 1]))
    made.graph.node[place + 1].CopyFrom(
        helper.make_node("ReduceMean", ["nhwc"], [node.output[0]], axes=[1, 2], keepdims=0)
    )


def _mxnets_first_norms(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 7
    for i in range(len(nodes(made, "BatchNormalization"))):
        attribute("BatchNormalization", i, "spatial", 0)(made)


def _sum_in_place_of_add(made: onnx.ModelProto) -> None:
    nodes(made, "Add")[0].op_type = "Sum"


def _sum_of_biases(made: onnx.ModelProto) -> None:
    node = nodes(made, "Conv")[1]
    biases = node.input.pop()
    values = next(numpy_helper.to_array(each) for each in made.graph.initializer if each.name == biases)
    after("Conv", 1, ("Add", {}), inputs=(values.reshape(1, -1, 1, 1),))(made)
    made.graph.initializer.remove(next(each for each in made.graph.initializer if each.name == biases))


@pytest.mark.parametrize(
    "edit",
    [
        _constants_as_nodes, _constants_among_the_inputs, _values_as_floats, _pads_in_nodes, _lowest_pads_of_the_pool,
        _sum_in_place_of_add, _sum_of_biases, _mean_in_nhwc, _mxnets_first_norms,
    ],
)  # fmt: skip
def test_other_ways_to_write_the_same(tmp_path: Path, edit: Edit) -> None:
    style = V1._replace(norm="kept" if edit is _mxnets_first_norms else "folded")
    expected = loaded(tmp_path, proto(style))
    found = loaded(tmp_path, proto(style, edit))
    same_tensors(found, expected)
    assert found.metadata == expected.metadata


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(tmp_path: Path, dtype: str) -> None:
    made = proto(V1)
    for each in made.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(dtype), each.name))
    weights = refnet.load_weights(written(tmp_path, made))
    assert set(weights.conversion.converted.values()) == {dtype}
    stored = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    for slim, name in weights.conversion.renamed.items():
        np.testing.assert_array_equal(np.sort(weights[slim], None), np.sort(stored[name].astype(np.float32), None))


def test_bfloat16(tmp_path: Path) -> None:
    made = proto(V1)
    for each in made.graph.initializer:
        bits = numpy_helper.to_array(each).view(np.uint32) >> 16
        each.raw_data, each.data_type = bits.astype("<u2").tobytes(), TensorProto.BFLOAT16
    weights = refnet.load_weights(written(tmp_path, made))
    assert set(weights.conversion.converted.values()) == {"bfloat16"}
    assert all(not np.any(array.view(np.uint32) & 0xFFFF) for array in weights.values())


def test_a_fixed_odd_size_leaves_pads_open(tmp_path: Path) -> None:
    """conv1's 49 x 49 values: SAME pads one on each side, as PyTorch does."""
    pads = attribute("MaxPool", 0, "pads", [1] * 4)
    for style, mode in ((V1, "torch"), (TF._replace(pool="torch"), "slim")):
        found = loaded(tmp_path, proto(style, pads, size=(97, 97)))
        assert found.metadata["options"]["pool_mode"] == mode
        assert any("the file fixes the images' size" in remark for remark in found.conversion.remarks)
        found = loaded(tmp_path, proto(style, pads, size=(96, 97)))
        assert found.metadata["options"]["pool_mode"] == "torch"
        assert not found.conversion.remarks
        found = loaded(tmp_path, proto(style, pads))
        assert found.metadata["options"]["pool_mode"] == "torch"


@pytest.mark.parametrize(("size", "pads"), [((96, 96), [0, 0, 1, 1]), ((96, 97), [0, 1, 1, 1])])
def test_pads_of_same_at_a_fixed_size(tmp_path: Path, size: tuple[int, int], pads: list[int]) -> None:
    made = proto(V1, attribute("MaxPool", 0, "pads", pads), size=size)
    assert loaded(tmp_path, made).metadata["options"]["pool_mode"] == "slim"


def test_an_average_of_a_fixed_size_is_the_mean(tmp_path: Path) -> None:
    made = proto(V1, size=(33, 48))
    expected = loaded(tmp_path, made)
    node = nodes(made, "GlobalAveragePool")[0]
    node.op_type = "AveragePool"
    # 33 x 48 by 2, by 2 and by 2.
    node.attribute.append(helper.make_attribute("kernel_shape", [5, 6]))
    same_tensors(loaded(tmp_path, made), expected)


def test_a_model_is_no_saved_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x01\x12\x02\x0a\x00")
    with pytest.raises(FormatError, match="has 0 graphs"):
        read(tmp_path / "a.onnx")
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x02\x0a\x00")
    with pytest.raises(FormatError, match=r"unknown format|SavedModel"):
        read(tmp_path / "saved_model.pb")


def test_norms_in_other_forms_are_remarked(tmp_path: Path) -> None:
    """What stands in their place is none of the zeros that are added."""
    for style, words in (
        (V2._replace(norm="scaled"), "a scale and a shift"),
        (V2._replace(norm="folded", active_root=True), "ReLU follows conv1_3"),
    ):
        found = loaded(tmp_path, proto(style))
        assert any(words in remark for remark in found.conversion.remarks)
        assert not any(found.tensors[name].any() for name in found.conversion.added)


# What is refused.


def bad(
    edit: Edit, error: type[RefnetError], message: str, style: Style = V1, size: tuple[int, int] | None = None
) -> BadFile:
    return BadFile(lambda folder: written(folder, proto(style, edit, size=size)), error, message)


def raw(content: Callable[[bytes], bytes], error: type[RefnetError], message: str) -> BadFile:
    def write(folder: Path) -> Path:
        path = written(folder, proto(V1))
        path.write_bytes(content(path.read_bytes()))
        return path

    return BadFile(write, error, message)


def beside(
    error: type[RefnetError],
    message: str,
    edit: Edit = lambda made: None,
    put: Callable[[Path, bytes], Any] = Path.write_bytes,
) -> BadFile:
    """Values in another file, which ``put`` makes."""

    def write(folder: Path) -> Path:
        made = proto(V1)
        content = external(made)
        edit(made)
        put(folder / "a.onnx.data", content)
        return written(folder, made)

    return BadFile(write, error, message)


def entry(key: str, value: str, index: int = 1) -> Edit:
    """Say something else about a tensor's place in another file."""

    def edit(made: onnx.ModelProto) -> None:
        found = next((pair for pair in tensor(made, index).external_data if pair.key == key), None)
        (found or tensor(made, index).external_data.add(key=key)).value = value

    return edit


def _link(path: Path, content: bytes) -> None:
    (path.parent / "blob").write_bytes(content)
    path.symlink_to(path.parent / "blob")


def _second_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.link(path, path.parent / "blob")


def _holes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.truncate(path, 2**42)


def _cycle(made: onnx.ModelProto) -> None:
    nodes(made, "Conv")[2].input[0] = nodes(made, "Relu")[4].output[0]


def _second_branch(made: onnx.ModelProto) -> None:
    """A branch beside a shortcut, whose sum is the logits' output."""
    last = made.graph.output[0].name
    made.graph.node.append(helper.make_node("GlobalAveragePool", [nodes(made, "Relu")[3].output[0]], ["beside"]))
    made.graph.node.append(helper.make_node("Flatten", ["beside"], ["flat"]))
    made.graph.node.append(helper.make_node("Gemm", [last, "flat"], ["end"], transB=0))
    made.graph.output[0].name = "end"


def _stride_in_the_last(made: onnx.ModelProto) -> None:
    """A unit's stride in its last convolution."""
    strided = [i for i, node in enumerate(nodes(made, "Conv")) if 2 in helper.get_node_attr_value(node, "strides")]
    # After the root's come a unit's shortcut and its 3x3; the last one follows.
    attribute("Conv", strided[2], "strides", [1, 1])(made)
    attribute("Conv", strided[2] + 1, "strides", [2, 2])(made)


def _many_fields(made: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["image"] * 100, ["y"])
    made.graph.node.extend([node] * 3000)


def _no_pool(made: onnx.ModelProto) -> None:
    node = nodes(made, "MaxPool")[0]
    node.op_type = "Relu"
    del node.attribute[:]


def _other_input(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    after("Relu", 0, ("Add", {}))(made)
    nodes(made, "Add")[0].input.append("more")


def _raw_fewer(each: onnx.TensorProto) -> None:
    each.raw_data = each.raw_data[:-4]


def _of_dims(*dims: int) -> Edit:
    def edit(made: onnx.ModelProto) -> None:
        del tensor(made, 0).dims[:]
        tensor(made, 0).dims.extend(dims)

    return edit


def _half_in_integers(each: onnx.TensorProto) -> None:
    each.CopyFrom(helper.make_tensor(each.name, TensorProto.FLOAT16, each.dims, numpy_helper.to_array(each).ravel()))


def _norm_of_the_shortcut(made: onnx.ModelProto) -> None:
    """A norm of its own for a shortcut of the second version."""
    norm, relu = nodes(made, "BatchNormalization")[2], nodes(made, "Relu")[2]
    assert relu.input[0] == norm.output[0]
    place = list(made.graph.node).index(relu) + 1
    other = helper.make_node("BatchNormalization", [*norm.input[:1], norm.input[3], *norm.input[2:]], ["other norm"])
    made.graph.node.insert(place, helper.make_node("Relu", ["other norm"], ["other"]))
    made.graph.node.insert(place, other)
    shortcut = next(node for node in nodes(made, "Conv") if relu.output[0] in node.input)
    shortcut.input[0] = "other"


def _without(op: str, index: int) -> Edit:
    """Take a node out of its chain."""

    def edit(made: onnx.ModelProto) -> None:
        node = nodes(made, op)[index]
        for other in made.graph.node:
            for i, name in enumerate(other.input):
                if name == node.output[0]:
                    other.input[i] = node.input[0]
        made.graph.node.remove(node)

    return edit


def _both(*edits: Edit) -> Edit:
    return lambda made: [edit(made) for edit in edits]


def _indices(made: onnx.ModelProto) -> None:
    nodes(made, "MaxPool")[0].output.append("indices")
    for node in nodes(made, "Conv"):
        if node.input[0] == nodes(made, "MaxPool")[0].output[0]:
            node.input[0] = "indices"


def _output_of_features(made: onnx.ModelProto) -> None:
    made.graph.node.append(
        helper.make_node("Softmax", [nodes(made, "GlobalAveragePool")[0].output[0]], ["more"], axis=1)
    )
    made.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))


def _kernel(index: int, *shape: int) -> Edit:
    """Another kernel for a convolution, and no biases."""

    def edit(made: onnx.ModelProto) -> None:
        node = nodes(made, "Conv")[index]
        del node.input[1:], node.attribute[:]
        node.input.append(constant(made, np.ones(shape, np.float32)))
        node.attribute.append(helper.make_attribute("pads", [shape[-1] // 2] * 4))

    return edit


def _basic_unit(made: onnx.ModelProto) -> None:
    """The last unit, of three convolutions, as one of two."""
    _both(_kernel(-3, 3, 12, 3, 3), _kernel(-2, 12, 3, 3, 3))(made)
    _without("Conv", -1)(made)
    _without("Relu", -2)(made)


def _pads_of_ones(made: onnx.ModelProto) -> None:
    _pads_in_nodes(made)
    nodes(made, "Pad")[0].input.append(constant(made, np.ones((), np.float32)))


SUBSAMPLED = TF._replace(stages=((2, 2), (3, 1)))
POOLED = V1._replace(avg_down=True, stages=((2, 1), (3, 1), (2, 1)))
BAD: dict[str, BadFile] = {
    "cut off": raw(lambda content: content[:-100], FormatError, "runs past the end|cut off"),
    "nothing after the version": raw(lambda _: b"\x08\x08\x3a\x00\x42\x02\x10\x11", WeightsError, "no single input"),
    "a group": raw(lambda content: content + b"\x1b", FormatError, "wire type 3"),
    "two graphs": raw(lambda content: content + b"\x3a\x00", FormatError, "has 2 graphs"),
    "early operations": bad(
        lambda made: setattr(made.opset_import[0], "version", 6), FormatError, r"versions \[6\] .* 7 or later"
    ),
    "no version of operations": bad(lambda made: made.ClearField("opset_import"), FormatError, r"versions \[\]"),
    "no graph": raw(lambda _: b"\x08\x08\x12\x01a", FormatError, "has 0 graphs"),
    "many fields": bad(_many_fields, LimitError, "more than 262144 fields"),
    "many nodes": bad(
        lambda made: made.graph.node.extend([helper.make_node("Relu", ["image"], ["y"])] * 20000),
        LimitError,
        "20034 nodes|2.... nodes",
    ),
    "a long name": bad(
        lambda made: setattr(made.graph.node[0], "name", "n" * 5000), LimitError, "takes 5000 bytes"
    ),
    "a name that is no UTF-8": raw(
        lambda content: content.replace(b"GlobalAveragePool", b"GlobalAveragePoo\xff"), FormatError, "not UTF-8"
    ),
    "sparse constants": bad(lambda made: made.graph.sparse_initializer.add(), FormatError, "sparse constants"),
    "one name for two constants": bad(
        lambda made: setattr(tensor(made, 0), "name", tensor(made, 1).name), FormatError, "2 constants have the name"
    ),
    "a constant without a name": bad(lambda made: setattr(tensor(made, 0), "name", ""), FormatError, "1 constants"),
    "a value made twice": bad(
        lambda made: made.graph.node.append(made.graph.node[3]), FormatError, "gives .* there already"
    ),
    "a cycle": bad(_cycle, FormatError, "reads .* before it is made"),
    "a node without outputs": bad(lambda made: made.graph.node.add(op_type="Relu"), FormatError, "has no output"),
    "too few values": bad(of_tensor(_raw_fewer), FormatError, "takes 432 bytes, but there are 428"),
    "values of two kinds": bad(
        of_tensor(lambda each: each.float_data.append(1)), FormatError, "in float_data, raw_data"
    ),
    "float16 as integers": bad(of_tensor(_half_in_integers), FormatError, "must be in raw_data"),
    "a segment": bad(of_tensor(lambda each: each.segment.SetInParent()), FormatError, "segments"),
    "a negative dimension": bad(_of_dims(4, -3, 3, 3), FormatError, "negative dimension"),
    "2**66 values": bad(_of_dims(2**33, 2**33), LimitError, "more bytes than a computer can address"),
    "forty dimensions": bad(_of_dims(*[1] * 40), FormatError, "40 dimensions"),
    "a list of numbers of 1 MB": bad(
        attribute("Conv", 0, "pads", [1] * 200_000), LimitError, "more than 131072 fields|list of numbers"
    ),
    # In another file.
    "a missing file": beside(CorruptError, "a.onnx.data, which is not there", put=lambda path, content: None),
    "a link": beside(FormatError, "which is a link.*cp --dereference", put=_link),
    "a file with two names": beside(FormatError, "not a regular file with a single name", put=_second_name),
    "a directory": beside(FormatError, "regular file", put=lambda path, content: path.mkdir()),
    "a FIFO": beside(FormatError, "regular file", put=lambda path, content: os.mkfifo(path)),
    "4 TiB of holes": beside(LimitError, "are holes", put=_holes),
    "a file that is cut off": beside(
        CorruptError, "is cut off, or belongs to another", put=lambda path, content: path.write_bytes(content[:-9])
    ),
    **{
        f"in {location!r}": beside(FormatError, "in the model's own directory", entry("location", location))
        for location in ("../a.onnx.data", "/etc/passwd", "x/../a.onnx.data", "", ".", "..", "a\\b", "n" * 300)
    },
    **{
        f"at {offset!r}": beside(FormatError, "offset in another file is .* whole number", entry("offset", offset))
        for offset in ("-1", "1e3", "", " 3", "0x3", "1_0", "\u0663", "9" * 30)
    },
    "at the end of the file": beside(CorruptError, "its values end at", entry("offset", "9" * 12)),
    "another length": beside(FormatError, r"takes \d+ bytes, but 5 in another file", entry("length", "5")),
    "overlapping": beside(FormatError, "two tensors overlap", entry("offset", "4")),
    "an unknown key": beside(FormatError, "'basepath'", entry("basepath", "/")),
    "a wrong checksum": beside(CorruptError, "has the SHA-1", entry("checksum", "00")),
    "two checksums": beside(
        FormatError, "different checksums", lambda made: (entry("checksum", "0")(made), entry("checksum", "1", 2)(made))
    ),
    "a place and values": beside(
        FormatError, "in another file, and in raw_data too", of_tensor(lambda each: setattr(each, "raw_data", b"1234"))
    ),
    # Graphs that are no ResNet of refnet's.
    "quantized": bad(
        after("Relu", 0, ("QuantizeLinear", {}), inputs=(np.ones((), np.float32),)), WeightsError, "quantized"
    ),
    "an operation of its own domain": bad(
        after("Relu", 0, ("FusedConv", {"domain": "com.microsoft"})), WeightsError, r"com\.microsoft\.FusedConv"
    ),
    "another operation": bad(after("Relu", 2, ("Sigmoid", {})), WeightsError, r"\(Sigmoid\) is not an operation"),
    "an activation too many": bad(after("Conv", 5, ("Relu", {})), WeightsError, r"\(Relu\) .*"),
    "groups": bad(attribute("Conv", 4, "group", 2), WeightsError, "has 2 groups"),
    "dilations": bad(attribute("Conv", 4, "dilations", [2, 2]), WeightsError, r"dilations \[2, 2\]"),
    "an unknown attribute": bad(attribute("Conv", 4, "axis", 2), WeightsError, "attribute 'axis'"),
    "an attribute of another kind": bad(attribute("Conv", 4, "group", 1.0), WeightsError, "1.0 for its attribute"),
    "strides of 3": bad(attribute("Conv", 4, "strides", [3, 3]), WeightsError, r"strides \[3, 3\]"),
    "TensorFlow's padding with a stride": bad(
        lambda made: (nodes(made, "Conv")[0].ClearField("attribute"), [
            nodes(made, "Conv")[0].attribute.append(helper.make_attribute(name, value))
            for name, value in {"auto_pad": "SAME_UPPER", "strides": [2, 2]}.items()
        ]),
        WeightsError,
        "padding SAME_UPPER",
    ),
    "pads on one side": bad(attribute("Conv", 0, "pads", [0, 0, 1, 1]), WeightsError, r"pads \[0, 0, 1, 1\]"),
    "pads of pool1 on one side": bad(attribute("MaxPool", 0, "pads", [0, 0, 1, 1]), WeightsError, r"\(MaxPool\) has"),
    "a pool that rounds up": bad(attribute("MaxPool", 0, "ceil_mode", 1), WeightsError, "ceil_mode"),
    "a pool of 2 x 2": bad(attribute("MaxPool", 0, "kernel_shape", [2, 2]), WeightsError, "it must be 3 x 3 by 2"),
    "no pool": bad(_no_pool, WeightsError, "it has no max pool"),
    "two inputs": bad(_other_input, WeightsError, "no single input"),
    "epsilons": bad(attribute("BatchNormalization", 2, "epsilon", 1e-3), WeightsError, "1e-05 in .* 0.001 in", V2),
    "training": bad(attribute("BatchNormalization", 1, "training_mode", 1), WeightsError, "for inference", V2),
    "a stride in the last convolution": bad(_stride_in_the_last, WeightsError, "stride in another convolution"),
    "a kernel for many nodes": bad(
        lambda made: None,
        LimitError,
        "take .* bytes, and share the .* that the file holds",
        Style(1, "basic", merged=True, root=128, stages=((128, 20),)),
    ),
    "kernels of other channels": bad(
        lambda made: nodes(made, "Conv")[1].input.__setitem__(1, nodes(made, "Conv")[0].input[1]),
        ShapeMismatchError,
        "it must be",
    ),
    "a second way to an output": bad(_second_branch, WeightsError, "reads several values"),
    "a norm of the shortcut's own": bad(_norm_of_the_shortcut, WeightsError, "does not begin with the norm", V2),
    "a shortcut with another stride": bad(
        attribute("Conv", 7, "strides", [1, 1]), WeightsError, "with stride 1 to a residual of 12 with strides"
    ),
    "a shortcut of 3 x 3": bad(_kernel(3, 8, 6, 3, 3), WeightsError, "is a shortcut of 3 x 3"),
    "a sum without an activation": bad(
        lambda made: setattr(nodes(made, "Relu")[-1], "op_type", "Softmax"), WeightsError, "followed by Relu alone"
    ),
    "indices of a pool": bad(_indices, WeightsError, "has a second output that is read"),
    "an average pool that drops the last window": bad(
        attribute("AveragePool", 0, "ceil_mode", 0), WeightsError, "whose last windows are cut off", POOLED
    ),
    "an average pool in one shortcut of two": bad(
        _both(_without("AveragePool", 0), attribute("Conv", 7, "strides", [2, 2])),
        WeightsError,
        "others do not",
        POOLED,
    ),
    "no activation before pool1": bad(_without("Relu", 2), WeightsError, "and a Relu must follow it"),
    "a norm without an activation before pool1": bad(
        _without("Relu", 2), WeightsError, "that no Relu follows", V2._replace(active_root=True)
    ),
    "a subsample that rounds up": bad(
        attribute("MaxPool", 1, "ceil_mode", 1), WeightsError, "rounds its size up", SUBSAMPLED
    ),
    "a softmax of features": bad(_output_of_features, WeightsError, r"\(Softmax\) has no place"),
    "units of both versions": bad(
        _both(_without("Relu", -4), _without("BatchNormalization", -4), after("Add", -1, ("Relu", {}))),
        WeightsError,
        "another version",
        V2,
    ),
    "units of two kinds": bad(_basic_unit, WeightsError, "another number of convolutions"),
    "an active dropout": bad(
        after("Relu", 1, ("Dropout", {}), inputs=(np.array(0.5, np.float32), np.array(True))), WeightsError, "Dropout"
    ),
    "pads of ones": bad(_pads_of_ones, WeightsError, "pads a convolution with 1"),
    "a mean over channels": bad(
        lambda made: attribute("ReduceMean", 0, "axes", [1, 2])(made),
        WeightsError,
        r"axes \[1, 2\]",
        V2._replace(head="mean"),
    ),
    "a flattened batch": bad(attribute("Flatten", 0, "axis", 0), WeightsError, "mixes images"),
    "axes that are a number": bad(after("Flatten", 0, ("Squeeze", {"axes": 3})), WeightsError, "which is a list"),
    "a permutation that is a number": bad(
        after("Flatten", 0, ("Transpose", {"perm": 3})), WeightsError, "which is a list"
    ),
    "an average with pads": bad(
        lambda made: (setattr(nodes(made, "GlobalAveragePool")[0], "op_type", "AveragePool"), [
            nodes(made, "AveragePool")[0].attribute.append(helper.make_attribute(name, value))
            for name, value in {"kernel_shape": [5, 6], "auto_pad": "SAME_UPPER"}.items()
        ]),
        WeightsError,
        "does not average all",
        size=(33, 48),
    ),
    "scaled logits": bad(attribute("Gemm", 0, "alpha", 2.0), WeightsError, "scales or transposes"),
    "two layers at the end": bad(
        after("Gemm", 0, ("Gemm", {}), inputs=(np.ones((3, 3), np.float32),)), WeightsError, "has no place"
    ),
    "no mean": bad(
        lambda made: made.graph.output[0].CopyFrom(
            helper.make_tensor_value_info(nodes(made, "Relu")[-1].output[0], TensorProto.FLOAT, None)
        ),
        WeightsError,
        "ends within",
    ),
    "an output of nothing": bad(
        lambda made: setattr(made.graph.output[0], "name", "nothing"), WeightsError, "no single input"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)
fuzzed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@fuzzed
@given(style=st.sampled_from([V1, V2]), flips=FLIPS, keep=st.just(1.0) | st.floats(0, 1), more=st.binary(max_size=9))
def test_damage(style: Style, flips: Any, keep: float, more: bytes, tmp_path: Path, watch: Any) -> None:
    """There is no checksum: only the kind of the answer is certain."""
    content = proto(style).SerializeToString()
    # The nodes come first. Most of the rest are values.
    stop = content.rindex(b"Gemm")
    damaged = flip(content[:stop], flips) + content[stop:]
    path = tmp_path / "a.onnx"
    path.write_bytes(damaged[: int(keep * len(damaged))] + (more if keep < 1 else b""))
    with watch(str(path)):
        read_or_refuse(path)


@fuzzed
@given(data=st.data())
def test_forged_graphs(data: st.DataObject, tmp_path: Path, watch: Any) -> None:
    """Nodes with other operations, inputs or attributes: a network or a refusal, and nothing else."""
    made = proto(data.draw(st.sampled_from([V1, V2, TF])))
    values = [name for node in made.graph.node for name in (*node.input, *node.output)] + ["", "image"]
    ops = [*sorted({node.op_type for node in made.graph.node}), "Pad", "AveragePool", "Identity", "Reshape", "Mul"]
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(made.graph.node)))
        kind = data.draw(st.sampled_from(["op", "input", "drop", "attribute", "output"]))
        if kind == "op":
            node.op_type = data.draw(st.sampled_from(ops))
        elif kind == "input" and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(values))
        elif kind == "drop" and node.input:
            node.input.pop()
        elif kind == "output":
            made.graph.output.add(name=data.draw(st.sampled_from(values)))
        elif node.attribute:
            one = data.draw(st.sampled_from(list(node.attribute)))
            numbers = st.lists(st.integers(-1, 3), max_size=5)
            value = data.draw(numbers.filter(bool) | st.integers(-1, 2) | st.floats(width=32) | st.just("VALID"))
            one.CopyFrom(helper.make_attribute(one.name, value))
    path = written(tmp_path, made)
    with watch(str(path)):
        read_or_refuse(path)
