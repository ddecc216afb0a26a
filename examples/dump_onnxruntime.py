"""Save what every node of an ONNX ResNet gives, for ``refnet compare``.

python dump_onnxruntime.py resnet50.onnx pixels.npy theirs.npz
refnet compare theirs.npz --weights resnet50.onnx --image pixels.npy
"""

import sys

import numpy as np
import onnx
import onnxruntime


def activations(model, pixels, nchw=True):
    """Every node's output by its name; ``pixels`` are normalised floats, [N, H, W, C]."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    there = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    options = onnxruntime.SessionOptions()
    # Fused nodes would have no values of their own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if nchw else pixels)}
    found = dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True))
    return {name: found[name] for name in dict.fromkeys([*names, *there]) if found[name].dtype.kind == "f"}


if __name__ == "__main__":
    np.savez(sys.argv[3], **activations(onnx.load(sys.argv[1]), np.load(sys.argv[2])))
