"""Mistakes between the last unit and the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from refnet.diagnosis.mistake import Context, Edit, Ending, Hypothesis, Mend, Mistake, anywhere, fixed, in_graph
from refnet.diagnosis.patched import Around, Call
from refnet.graph.graph import Graph, Tensor

#: By how many classes outputs can be off.
OFFSETS = (1, -1, 2)


def _offsets(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    for value in OFFSETS:
        yield Hypothesis(mistake, "logits", value, end=_shifted(value))


def _shifted(value: int) -> Callable[[Ending], Ending]:
    return lambda ending: ending._replace(offset=ending.offset + value)


def _softmax(change: int) -> Callable[[Mistake, Context], Iterator[Hypothesis]]:
    def propose(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
        yield Hypothesis(mistake, "predictions", end=lambda ending: ending._replace(softmax=ending.softmax + change))

    return propose


def _pooled_by(op: str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor) -> Tensor:
        batch, _, _, channels = inputs.shape
        return call.graph.host(op, inputs, (batch, 1, 1, channels))

    return around


def _after_norm(call: Call) -> bool:
    inputs: Tensor = call.arguments[0]
    return inputs.op == "relu" and inputs.inputs[0].op.startswith("batch_norm")


def _pool_first(call: Call, proceed: Callable[..., Tensor], inputs: Tensor) -> Tensor:
    graph = call.graph
    return Graph.relu(graph, Graph.batch_norm(graph, proceed(inputs.inputs[0].inputs[0]), "postnorm"))


_CLASSES = Mend(
    pytorch="TF-Slim's checkpoints have 1001 classes, of which class 0 is the background: compare logits[:, 1:].",
    keras="Compare with logits[:, 1:] where the background class is left out.",
    tensorflow="labels_offset=1 where the data set has 1000 classes and the checkpoint 1001.",
    onnx="Slice the logits by [1:] where the labels have no background class.",
)

_SOFTMAX = Mend(
    pytorch="Apply torch.softmax(logits, 1) exactly once; CrossEntropyLoss takes logits.",
    keras='classifier_activation="softmax" or a Softmax layer: exactly one of them.',
    tensorflow="end_points['predictions'] are probabilities already.",
    onnx="Count the Softmax nodes: exactly one.",
)

_POOL = Mend(
    pytorch="x.mean((2, 3)), or nn.AdaptiveAvgPool2d(1), after the last norm and ReLU.",
    keras="layers.GlobalAveragePooling2D() after post_relu.",
    tensorflow="tf.reduce_mean(net, [1, 2]) after postnorm.",
    onnx="GlobalAveragePool after the last Relu.",
)

_DENSE = Mend(
    pytorch="fc.weight = logits_kernel[0, 0].T.",
    keras="Dense's kernel is [inputs, outputs]: logits_kernel[0, 0].",
    tensorflow="tf.matmul(features, logits_kernel[0, 0]).",
    onnx="Gemm with transB=0 takes logits_kernel[0, 0]; with transB=1 its transpose.",
)

MISTAKES = (
    Mistake(
        "class-offset",
        "gives the classes with an offset of {value}",
        "give each class at its own index",
        _CLASSES,
        ("mlcommons/inference#550", "mlcommons/inference#548", "tensorflow#7370"),
        _offsets,
    ),
    Mistake(
        "head-order",
        "flattens the features in another order of axes than the dense layer has",
        "keep the features' order in the dense layer",
        _DENSE,
        ("MMdnn#250", "MMdnn#595", "mgeconvert#78"),
        in_graph(
            Edit("reduce_mean", anywhere, lambda value: _pooled_by(value or "NHWC as NCHW")),
            values=(None, "NCHW as NHWC"),
        ),
    ),
    Mistake(
        "softmax-twice",
        "takes the softmax of probabilities",
        "take the softmax once, of the logits",
        _SOFTMAX,
        ("tflearn#562",),
        _softmax(1),
    ),
    Mistake(
        "softmax-missing",
        "gives logits where probabilities are meant",
        "take the softmax of the logits",
        _SOFTMAX,
        ("tflearn#562",),
        _softmax(-1),
    ),
    Mistake(
        "pool5-max",
        "takes the maximum over height and width at the end",
        "take the mean",
        _POOL,
        (),
        in_graph(Edit("reduce_mean", anywhere, fixed(_pooled_by("max")))),
    ),
    Mistake(
        "pool5-sum",
        "takes the sum over height and width at the end",
        "take the mean",
        _POOL,
        (),
        in_graph(Edit("reduce_mean", anywhere, fixed(_pooled_by("sum")))),
    ),
    Mistake(
        "pool5-before-postnorm",
        "pools over height and width before the last batch norm",
        "normalise first, then pool",
        _POOL,
        (),
        in_graph(Edit("reduce_mean", _after_norm, fixed(_pool_first)), versions=(2,)),
    ),
)
