"""Bugs that are in no catalogue: what a diagnosis must be silent about.

Each is a port that is wrong in its own way. A bug that on a network or for one image equals a mistake of the catalogue
is not among them: an instance norm is a batch norm in training mode where the batch is one image, a whole missing unit
is ``unit-missing``, an unscaled softmax is ``softmax-missing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tests.ports.loading import chopped
from tests.ports.networks import Variables, draw_variables
from tests.ports.tensorflow_port import TensorFlowPort
from tests.slim.oracle import Net

Ports = dict[str, Callable[[Variables, np.ndarray, Net], dict[str, np.ndarray]]]


def _some_layer(variables: Mapping[str, np.ndarray], ending: str) -> str:
    """A variable in the middle of the network."""
    names = [name for name in variables if name.endswith(ending)]
    return names[len(names) // 2]


def _with(variables: Variables, ending: str, change: Callable[[np.ndarray], np.ndarray]) -> Variables:
    """One variable changed."""
    name = _some_layer(variables, ending)
    return variables | {name: np.ascontiguousarray(change(variables[name]), np.float32)}


def _with_all(variables: Variables, ending: str, change: Callable[[np.ndarray], np.ndarray]) -> Variables:
    return {
        name: np.ascontiguousarray(change(value), np.float32) if name.endswith(ending) else value
        for name, value in variables.items()
    }


def _with_root(variables: Variables, change: Callable[[np.ndarray], np.ndarray]) -> Variables:
    name = next(name for name in variables if name.split("/")[1:] == ["conv1", "weights"])
    return variables | {name: np.ascontiguousarray(change(variables[name]), np.float32)}


def _without_tap(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel.copy()
    kernel[0, 1] = 0
    return kernel


def _pruned(kernel: np.ndarray) -> np.ndarray:
    return np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.1), 0, kernel)


def _noisy(kernel: np.ndarray) -> np.ndarray:
    return kernel * (1 + 0.01 * np.random.default_rng(1).standard_normal(kernel.shape))


def _truncated(kernel: np.ndarray) -> np.ndarray:
    """To bfloat16, not by rounding."""
    return (np.ascontiguousarray(kernel).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _int4(kernel: np.ndarray) -> np.ndarray:
    scale = np.abs(kernel).max() / 7
    return np.rint(kernel / scale) * scale


def _units_swapped(variables: Variables) -> Variables:
    """All of a block's second and third units, in the first block that has a third one."""
    third = next(name.split("unit_3/")[0] for name in variables if "/unit_3/" in name)
    two, three = f"{third}unit_2/", f"{third}unit_3/"

    def other(name: str) -> str:
        for one, another in ((two, three), (three, two)):
            if name.startswith(one):
                return another + name.removeprefix(one)
        return name

    return {name: variables[other(name)] for name in variables}


#: Of weights.
WEIGHTS: dict[str, Callable[[Variables], Variables]] = {
    "a tap of a kernel is zero": lambda v: _with(v, "conv2/weights", _without_tap),
    "a layer's weights times 1.01": lambda v: _with(v, "conv2/weights", lambda k: k * 1.01),
    "weights with noise of 1 %": lambda v: _with_all(v, "/weights", _noisy),
    "the smallest tenth of the weights is pruned": lambda v: _with_all(v, "/weights", _pruned),
    "weights chopped to bfloat16": lambda v: _with_all(v, "/weights", _truncated),
    "weights in 4 bits": lambda v: _with_all(v, "/weights", _int4),
    "weights rounded to 9 bits": lambda v: _with_all(v, "/weights", lambda k: chopped(k, 14)),
    "gamma squared": lambda v: _with_all(v, "/gamma", np.square),
    "gamma plus 1": lambda v: _with_all(v, "/gamma", lambda gamma: gamma + 1),
    "beta negated": lambda v: _with_all(v, "/beta", np.negative),
    "variances of at least 0.1": lambda v: _with_all(v, "/moving_variance", lambda x: np.maximum(x, 0.1)),
    "biases doubled": lambda v: _with_all(v, "/biases", lambda bias: bias * 2),
    "input channels of a layer rolled": lambda v: _with(v, "conv1/weights", lambda k: np.roll(k, 1, 2)),
    "output channels of a layer rolled": lambda v: _with(v, "conv3/weights", lambda k: np.roll(k, 1, 3)),
    "two output channels of the root exchanged": lambda v: _with_root(v, lambda k: k[..., [1, 0, *range(2, 64)]]),
    "a kernel turned by 90 degrees": lambda v: _with(v, "conv2/weights", lambda k: np.rot90(k, 1, (0, 1))),
    "kernels flipped left to right alone": lambda v: _with_all(v, "conv2/weights", lambda k: k[:, ::-1]),
    "two whole units exchanged": _units_swapped,
    "the root's kernel shifted by a pixel": lambda v: _with_root(v, lambda k: np.roll(k, 1, 1)),
}

#: Of the image, [N, H, W, 3] normalised.
IMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another image": lambda x: np.roll(x[:, ::-1, ::-1] * 0.9, 7, 1),
    "the image flipped left to right": lambda x: x[:, :, ::-1],
    "the image turned by 90 degrees": lambda x: np.rot90(x, 1, (1, 2)),
    "the image shifted by a pixel": lambda x: np.roll(x, 1, 2),
    "a patch of the image transposed": lambda x: _patch_transposed(x),
    "channels rolled": lambda x: np.roll(x, 1, 3),
    "a grey image": lambda x: np.repeat(x.mean(3, keepdims=True), 3, 3),
    "gamma of 2.2 undone": lambda x: ((x + 1) / 2) ** 2.2 * 2 - 1,
    "noise on the image": lambda x: x + 0.05 * np.random.default_rng(2).standard_normal(x.shape),
    "contrast of 0.9": lambda x: x * 0.9,
    "a border of zeros": lambda x: np.pad(x[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4), (0, 0))),
}


def _patch_transposed(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, 8:32, 8:32] = x[:, 8:32, 8:32].transpose(0, 2, 1, 3)
    return x


#: Of the logits.
ENDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "classes in another order": lambda y: y[..., np.random.default_rng(3).permutation(y.shape[-1])],
    "a head with an L2 norm": lambda y: y / np.linalg.norm(y),
    "a temperature of 2": lambda y: y / 2,
    "two classes exchanged": lambda y: y[..., [1, 0, *range(2, y.shape[-1])]],
    "logits in reverse order": lambda y: y[..., ::-1],
    "logits clipped": lambda y: np.clip(y, -1, 1),
    "the sigmoid": lambda y: 1 / (1 + np.exp(-y)),
    "noise of 1e-3": lambda y: y * (1 + 1e-3 * np.random.default_rng(4).standard_normal(y.shape)),
    "another constant": lambda y: y + 0.5,
}


class StrangePort(TensorFlowPort):
    """A port with one of `STRUCTURES`."""

    def __init__(self, variables: Mapping[str, np.ndarray], net: Net, bug: str) -> None:
        super().__init__(variables, net)
        self.bug = bug

    def relu(self, path: str, x: Any) -> Any:
        tf = self.tf
        match self.bug:
            case "a leaky ReLU":
                return tf.nn.leaky_relu(x, 0.01)
            case "ReLU6 cut at 1":
                return tf.minimum(tf.nn.relu(x), 1)
            case "GELU":
                return tf.nn.gelu(x)
            case "ELU":
                return tf.nn.elu(x)
            case "activations in 8 bits":
                x = tf.nn.relu(x)
                scale = tf.reduce_max(x) / 255
                return tf.round(x / scale) * scale
            case "dropout at work":
                return tf.nn.dropout(tf.nn.relu(x), 0.1, seed=1) if path.endswith("conv1") else tf.nn.relu(x)
            case "the absolute value for the ReLU":
                return tf.abs(x)
        return super().relu(path, x)

    def norm(self, path: str, x: Any) -> Any:
        tf = self.tf
        if self.bug == "a layer norm":
            gamma, beta, *_ = self.norm_parts(path)
            mean, variance = tf.nn.moments(x, [3], keepdims=True)
            return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta
        if self.bug == "epsilon outside of the root":
            gamma, beta, mean, variance, _ = self.norm_parts(path)
            return (x - mean) / (tf.sqrt(variance) + 1e-2) * gamma + beta
        if self.bug == "statistics of the middle of the image":
            gamma, beta, *_ = self.norm_parts(path)
            mean, variance = tf.nn.moments(x[:, 1:, 1:], [0, 1, 2])
            return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta
        return super().norm(path, x)

    def conv2d(self, x: Any, kernel: Any, stride: int = 1, rate: int = 1, same: bool = False) -> Any:
        tf, size = self.tf, kernel.shape[0]
        if self.bug == "reflected borders" and size == 3 and stride == 1 and x.shape[1] > 2:
            return tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), kernel, 1, "VALID")
        if self.bug == "a border of 0.5" and size > 1 and stride > 1:
            return tf.nn.conv2d(self.padded(x, *[(size // 2, size // 2)] * 2, 0.5), kernel, stride, "VALID")
        if self.bug == "pads at the wrong end" and size > 1 and stride > 1:
            return tf.nn.conv2d(self.padded(x, *[(size - 1, 0)] * 2), kernel, stride, "VALID")
        if self.bug == "a rate of 2 everywhere" and size == 3 and stride == 1:
            rate = 2
        return super().conv2d(self.odd(x, stride) if size == 1 else x, kernel, stride, rate, same)

    def max_pool(self, x: Any, mode: str) -> Any:
        match self.bug:
            case "a max pool of 2x2":
                return self.tf.nn.max_pool2d(x, 2, 2, "SAME")
            case "an average pool in the root":
                return self.tf.nn.avg_pool2d(x, 3, 2, "SAME")
            case "a max pool of 5x5":
                return self.tf.nn.max_pool2d(x, 5, 2, "SAME")
        return super().max_pool(x, mode)

    def unit(self, path: str, x: Any, unit: Mapping[str, int], stride: int, rate: int) -> Any:
        out = super().unit(path, x, unit, stride, rate)
        match self.bug:
            case "sums clipped at 1.5":
                return self.tf.clip_by_value(out, -1.5, 1.5)
            case "units scaled by 0.9":
                return out * 0.9
            case "a shortcut too many":
                return out + x if out.shape == x.shape else out
        return out

    def shortcut(self, path: str, x: Any, preact: Any, depth: int, stride: int) -> Any:
        found = super().shortcut(path, x, preact, depth, stride)
        if self.bug == "no identity shortcuts" and f"{self.net.scope}/{path}/shortcut/weights" not in self.variables:
            return found * 0
        return found * 0.5 if self.bug == "shortcuts halved" else found

    def subsampled(self, path: str, x: Any, stride: int) -> Any:
        return super().subsampled(path, self.odd(x, stride), stride)

    def odd(self, x: Any, stride: int) -> Any:
        """What a stride without a window reads."""
        is_bug = self.bug == "shortcuts read the odd pixels" and stride > 1
        return self.tf.roll(x, [-1, -1], [1, 2]) if is_bug else x

    def pooled(self, x: Any) -> Any:
        match self.bug:
            case "a global pool over the middle":
                return super().pooled(x[:, 1:-1, 1:-1])
            case "a global pool that reads one pixel":
                return x[:, :1, :1]
            case "a root mean square pool":
                return self.tf.sqrt(self.tf.reduce_mean(x * x, [1, 2], keepdims=True))
        return super().pooled(x)


#: Of the network.
STRUCTURES = [
    "a leaky ReLU", "ReLU6 cut at 1", "GELU", "ELU", "activations in 8 bits", "dropout at work",
    "the absolute value for the ReLU", "a layer norm", "epsilon outside of the root",
    "statistics of the middle of the image", "reflected borders", "a border of 0.5", "pads at the wrong end",
    "a rate of 2 everywhere", "a max pool of 2x2", "an average pool in the root", "a max pool of 5x5",
    "sums clipped at 1.5", "units scaled by 0.9", "a shortcut too many", "no identity shortcuts", "shortcuts halved",
    "shortcuts read the odd pixels", "a global pool over the middle", "a global pool that reads one pixel",
    "a root mean square pool",
]  # fmt: skip


def _run(
    bug: str,
    weights: Callable[[Variables], Variables] | None,
    image: Callable[[np.ndarray], np.ndarray] | None,
    end: Callable[[np.ndarray], np.ndarray] | None,
    variables: Variables,
    images: np.ndarray,
    net: Net,
) -> dict[str, np.ndarray]:
    port = StrangePort(variables if weights is None else weights(variables), net, bug)
    x = images if image is None else np.ascontiguousarray(image(images), np.float32)
    found = {name: np.asarray(value) for name, value in port(port.tf.constant(x)).items()}
    logits = f"{net.scope}/logits"
    if end is not None:
        found[logits] = np.ascontiguousarray(end(found[logits]), np.float32)
        exponentials = np.exp(found[logits] - found[logits].max())
        found["predictions"] = exponentials / exponentials.sum()
    return found


def _other_statistics(variables: Variables, images: np.ndarray, net: Net) -> dict[str, np.ndarray]:
    """The moving averages of another checkpoint."""
    other = draw_variables(net, images.shape[1], seed=99)
    mixed = {name: other[name] if "/moving_" in name else value for name, value in variables.items()}
    return _run("", None, None, None, mixed, images, net)


def _one_other_layer(variables: Variables, images: np.ndarray, net: Net) -> dict[str, np.ndarray]:
    """One layer of another checkpoint."""
    name = _some_layer(variables, "conv2/weights")
    mixed = variables | {name: draw_variables(net, images.shape[1], seed=99)[name]}
    return _run("", None, None, None, mixed, images, net)


def unknown_ports() -> Ports:
    """Each bug by its words, as a function of variables, images and network that gives every layer's output."""
    ports: Ports = {name: partial(_run, "", change, None, None) for name, change in WEIGHTS.items()}
    ports |= {name: partial(_run, "", None, change, None) for name, change in IMAGES.items()}
    ports |= {name: partial(_run, "", None, None, change) for name, change in ENDS.items()}
    ports |= {name: partial(_run, name, None, None, None) for name in STRUCTURES}
    ports["moving averages of another checkpoint"] = _other_statistics
    ports["a layer of another checkpoint"] = _one_other_layer
    return ports
