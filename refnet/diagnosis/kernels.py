"""Mistakes in the weights of convolutions, and in the arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from refnet.diagnosis.host import ROUNDED
from refnet.diagnosis.mistake import Context, Edit, Hypothesis, Mend, Mistake, anywhere, in_graph, substitute
from refnet.diagnosis.patched import Around, Call, Patch
from refnet.graph.graph import Tensor


def _shape(call: Call) -> tuple[int, ...]:
    shape: tuple[int, ...] = call.arguments[1]
    return shape


def _has_window(call: Call) -> bool:
    return _shape(call)[0] > 1


def _is_square(call: Call) -> bool:
    return _shape(call)[2] == _shape(call)[3]


def _axes_swapped(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(1, 0, 2, 3)


def _flipped(kernel: np.ndarray) -> np.ndarray:
    return kernel[::-1, ::-1]


def _channels_swapped(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(0, 1, 3, 2)


def _as_oihw(kernel: np.ndarray) -> np.ndarray:
    """HWIO, reshaped to OIHW, and used as that."""
    height, width, inputs, outputs = kernel.shape
    return kernel.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)


def _as_hwio(kernel: np.ndarray) -> np.ndarray:
    """OIHW, reshaped to HWIO."""
    return kernel.transpose(3, 2, 0, 1).reshape(kernel.shape)


_RESHAPED: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {None: _as_oihw, "OIHW as HWIO": _as_hwio}


def _reshaped(value: str | None) -> Around:
    return substitute(["weights"], value or "HWIO as OIHW", _RESHAPED[value]).around(value)


def _int8(array: np.ndarray) -> np.ndarray:
    """Whole numbers from -127 to 127, times a scale per array."""
    scale = np.abs(array).max(initial=0) / 127
    return np.rint(array / scale) * scale if scale > 0 else array


def _int8_by_channel(array: np.ndarray) -> np.ndarray:
    scale = np.abs(array).max(axis=tuple(range(array.ndim - 1)), keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1)
    return np.rint(array / scale) * scale


_STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float16": ROUNDED["float16"],
    "bfloat16": ROUNDED["bfloat16"],
    "int8": _int8,
    "int8 by channel": _int8_by_channel,
}


def _stored(value: str) -> Around:
    return substitute(["weights"], value, _STORED[value]).around(value)


def _is_kernel(call: Call) -> bool:
    return bool(call.arguments[0] == "weights")


def _rounded(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    """All variables, batch norm's and biases too; or the kernels alone, for which int8 has scales."""
    everything = Edit("variable", anywhere, lambda value: substitute([], value, _STORED[value]).around(value))
    yield from in_graph(everything, values=("float16", "bfloat16"), seldom_narrow=True)(mistake, context)
    kernels = Edit("variable", _is_kernel, _stored)
    for value in _STORED:
        for hypothesis in in_graph(kernels, values=(value,), seldom_narrow=True)(mistake, context):
            yield hypothesis if value.startswith("int8") else replace(hypothesis, value=f"{value} kernels")


def _swapped_layers(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    """Pairs of layers of equal shape, in a unit or in neighbouring ones."""
    kernels: dict[str, tuple[int, ...]] = {}
    norms: dict[str, tuple[int, ...]] = {}
    for call in context.calls:
        if call.method == "variable" and call.unit:
            leaf, shape = call.arguments
            if leaf == "weights":
                kernels[call.site] = shape
            elif leaf == "beta":
                norms[call.site] = shape
    for what, shapes in (("kernels", kernels), ("batch norms", norms)):
        leaves = ("weights",) if what == "kernels" else ("gamma", "beta", "moving_mean", "moving_variance")
        for one, other in combinations(shapes, 2):
            if shapes[one] == shapes[other] and _are_near(one, other):
                patches = [_read_from(one, other, leaves), _read_from(other, one, leaves)]
                yield Hypothesis(mistake, f"{one} <-> {other}", what, tuple(patches))
                if what == "kernels" and norms.get(one) == norms.get(other):
                    every = (*leaves, "biases", "gamma", "beta", "moving_mean", "moving_variance")
                    patches = [_read_from(one, other, every), _read_from(other, one, every)]
                    yield Hypothesis(mistake, f"{one} <-> {other}", None, tuple(patches))


def _are_near(one: str, other: str) -> bool:
    """Whether two layers are in the same unit, or in neighbouring ones of a block."""
    (block, unit, *_), (other_block, other_unit, *_) = one.split("/"), other.split("/")
    return block == other_block and abs(int(unit.rsplit("_", 1)[1]) - int(other_unit.rsplit("_", 1)[1])) <= 1


def _read_from(site: str, other: str, leaves: tuple[str, ...]) -> Patch:
    def around(call: Call, proceed: Callable[..., str], leaf: str, shape: tuple[int, ...]) -> str:
        name = proceed(leaf, shape)
        return name.replace(f"{site}/", f"{other}/", 1)

    return Patch("variable", around, site, lambda call: call.arguments[0] in leaves)


def _arithmetic(value: str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, *arguments: Any) -> Tensor:
        made = proceed(call.graph.host(f"round:{value}", inputs), *arguments)
        name = call.graph.derive(made.variables["weights"], value, ROUNDED[value])
        return call.graph.changed(made, variables={"weights": name})

    return around


_TRANSPOSE = Mend(
    pytorch="torch.from_numpy(kernel).permute(3, 2, 0, 1): HWIO to OIHW, without flip or reshape.",
    keras="Conv2D's kernel is HWIO, as TF-Slim's; from PyTorch weight.permute(2, 3, 1, 0).",
    tensorflow="tf.nn.conv2d takes HWIO; from PyTorch np.transpose(weight, (2, 3, 1, 0)).",
    onnx="Conv takes OIHW: np.transpose(kernel, (3, 2, 0, 1)).",
)

_BITS = Mend(
    pytorch="Load the float32 weights, and do not call .half() or .bfloat16() on the way.",
    keras='keras.config.set_floatx("float32"), and no mixed precision policy.',
    tensorflow="Load the float32 checkpoint, not a quantised conversion.",
    onnx="Export without convert_float_to_float16 and without quantisation.",
)

_ORDER = Mend(
    pytorch="Map tensors by name, and print both names of each pair.",
    keras="Map layers by name: model.get_layer(name).set_weights(...).",
    tensorflow="Map variables by name, not by their order in the checkpoint.",
    onnx="Map initialisers by the names of the nodes that read them.",
)

MISTAKES = (
    Mistake(
        "kernel-axes-swapped",
        "exchanges height and width of the kernels in {site}",
        "keep their order",
        _TRANSPOSE,
        ("FCN.tensorflow#47", "keras#6295"),
        in_graph(substitute(["weights"], "axes", _axes_swapped, _has_window)),
    ),
    Mistake(
        "kernel-flipped",
        "flips the kernels of {site}: a true convolution",
        "correlate, without a flip",
        _TRANSPOSE,
        ("keras#6658",),
        in_graph(substitute(["weights"], "flipped", _flipped, _has_window)),
    ),
    Mistake(
        "kernel-channels-swapped",
        "exchanges inputs and outputs of the kernels in {site}",
        "keep their order",
        _TRANSPOSE,
        (),
        in_graph(substitute(["weights"], "channels", _channels_swapped, _is_square)),
    ),
    Mistake(
        "kernel-reshaped",
        "reshapes the kernels of {site} to the other order of axes ({value})",
        "transpose them",
        _TRANSPOSE,
        ("lpips-tensorflow#2",),
        in_graph(Edit("variable", _is_kernel, _reshaped), values=tuple(_RESHAPED)),
    ),
    Mistake(
        "layers-swapped",
        "has {value} of {site} in each other's place",
        "assign weights by name, not by order",
        _ORDER,
        ("tensorflow#33459",),
        _swapped_layers,
    ),
    Mistake(
        "weights-rounded",
        "has weights of {value} in {site}",
        "keep the weights in float32",
        _BITS,
        (),
        _rounded,
    ),
    Mistake(
        "arithmetic",
        "rounds what its convolutions multiply to {value}",
        "compute in float32",
        Mend(
            pytorch='torch.backends.cudnn.allow_tf32 = False, torch.set_float32_matmul_precision("highest").',
            keras='keras.mixed_precision.set_global_policy("float32").',
            tensorflow="tf.config.experimental.enable_tensor_float_32_execution(False).",
            onnx="Set the CUDA provider's use_tf32=0, and run the float32 model.",
        ),
        ("onnxruntime#19288", "pytorch#107514", "tensorflow#127346"),
        in_graph(Edit("conv", anywhere, _arithmetic), values=tuple(ROUNDED), only_everywhere=True),
        coarse=True,
    ),
)
