"""ResNet v1 and V2 as somebody would port them to TensorFlow's own functions, with switches for what porters get wrong.

Written from the papers and from what TF-Slim does. Nothing of refnet is used: this is what its diagnosis is held to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.ports.loading import loaded
from tests.ports.mistakes import Mistake, Planted
from tests.ports.networks import norm_name
from tests.slim.oracle import BlockSpec, Net
from tests.support.tensorflow import tensorflow

#: Where a network may stride: in a block's last unit, in its first one's 3x3 kernel, or in that unit's first kernel.
PLACES = ("last_unit", "first_unit", "first_conv")


def restrided(blocks: Sequence[BlockSpec], place: str) -> list[BlockSpec]:
    """The same blocks with the strides elsewhere; what strides between two blocks does so on one side of them."""
    products = [int(np.prod([unit["stride"] for unit in units])) for _, units in blocks]
    # Where the first block strides, and has more than one unit, the last units do; the last block's stride is 1 there.
    factors = products[:-1] if products[0] > 1 else products[1:]
    moved = []
    for i, (scope, units) in enumerate(blocks):
        plain = [{name: n for name, n in unit.items() if name != "stride_in_1x1"} | {"stride": 1} for unit in units]
        if place == "last_unit" and i < len(factors):
            plain[-1] = plain[-1] | {"stride": factors[i]}
        elif place != "last_unit" and i > 0:
            plain[0] = plain[0] | {"stride": factors[i - 1]} | ({"stride_in_1x1": 1} if place == "first_conv" else {})
        moved.append((scope, plain))
    return moved


class TensorFlowPort:
    """The port, its mistakes, and how TensorFlow is to compute it.

    Parameters
    ----------
    variables : mapping of str to ndarray
        By TF-Slim's names.
    net : Net
    mistakes : iterable of Mistake or tuple
    norm : {"plain", "fused", "library", "folded"}
        The way to write a batch norm: by its formula, by one of TensorFlow's two functions, or folded into the
        convolution before it, where there is one.
    dtype : str
    """

    def __init__(
        self,
        variables: Mapping[str, np.ndarray],
        net: Net,
        mistakes: Iterable[Mistake | tuple[Any, ...]] = (),
        norm: str = "plain",
        dtype: str = "float32",
    ) -> None:
        self.tf, self.net, self.style, self.dtype = tensorflow(), net, norm, dtype
        self.planted = Planted(mistakes)
        self.variables = loaded(variables, net, self.planted.mistakes)
        self.seen: dict[str, Any] = {}

    def variable(self, name: str) -> Any:
        return self.tf.constant(self.variables[f"{self.net.scope}/{name}"], self.dtype)

    def record(self, path: str, x: Any) -> Any:
        self.seen[path if path == "predictions" else f"{self.net.scope}/{path}"] = x
        return x

    # The layers.

    def multiplied(self, x: Any) -> Any:
        """An input of products, in the arithmetic of the port."""
        tf, kind = self.tf, self.planted.value("arithmetic")
        if kind in ("float16", "bfloat16"):
            return tf.cast(tf.cast(x, kind), x.dtype)
        if kind == "tf32":
            raw = tf.bitcast(x, tf.uint32)
            odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(raw, 13), 1)
            kept = tf.bitwise.bitwise_and(raw + 0xFFF + odd, 0xFFFFE000)
            return tf.bitcast(kept, tf.float32)
        return x

    def padded(self, x: Any, rows: Sequence[int], columns: Sequence[int], value: float = 0.0) -> Any:
        return self.tf.pad(x, [[0, 0], list(rows), list(columns), [0, 0]], constant_values=value)

    def conv2d(self, x: Any, kernel: Any, stride: int = 1, rate: int = 1, same: bool = False) -> Any:
        """``conv2d_same``: what is padded depends on the kernel alone; ``same``: on the image too, as in SAME."""
        extent = (kernel.shape[0] - 1) * rate + 1
        x, kernel = self.multiplied(x), self.multiplied(kernel)
        if same or stride == 1:
            return self.tf.nn.conv2d(x, kernel, stride, "SAME", dilations=rate)
        before = (extent - 1) // 2
        pads = before, extent - 1 - before
        return self.tf.nn.conv2d(self.padded(x, pads, pads), kernel, stride, "VALID", dilations=rate)

    def relu(self, path: str, x: Any) -> Any:
        return x if self.planted.has("relu-missing", path) else self.tf.nn.relu(x)

    def norm_parts(self, path: str) -> tuple[Any, Any, Any, Any, float]:
        name = norm_name(self.net, path)
        vectors = [
            self.tf.constant(self.variables[f"{name}/{leaf}"], self.dtype)
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
        gamma, beta, mean, variance = vectors
        return gamma, beta, mean, variance, self.planted.value("epsilon", path, self.net.batch_norm_epsilon)

    def norm(self, path: str, x: Any) -> Any:
        tf = self.tf
        gamma, beta, mean, variance, epsilon = self.norm_parts(path)
        statistics = self.planted.value("batch-statistics", path)
        if statistics is not None:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            if statistics == "unbiased":
                count = int(np.prod(x.shape[:3]))
                variance *= count / (count - 1)
        if self.planted.has("variance-as-deviation", path):
            return (x - mean) / (variance + epsilon) * gamma + beta
        if self.style == "fused" and epsilon:
            return tf.compat.v1.nn.fused_batch_norm(
                x, gamma, beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
            )[0]
        if self.style == "library":
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
        return (x - mean) / tf.sqrt(variance + epsilon) * gamma + beta

    def layer(
        self, path: str, x: Any, stride: int = 1, rate: int = 1, *, normed: bool, active: bool, same: bool = False
    ) -> Any:
        """A convolution with bias, or with a batch norm and no bias."""
        kernel = self.variable(f"{path}/weights")
        if not normed:
            x = self.conv2d(x, kernel, stride, rate, same) + self.variable(f"{path}/biases")
        elif self.style == "folded":
            gamma, beta, mean, variance, epsilon = self.norm_parts(path)
            scale = gamma / self.tf.sqrt(variance + epsilon)
            x = self.conv2d(x, kernel * scale, stride, rate, same) + (beta - mean * scale)
        else:
            x = self.norm(path, self.conv2d(x, kernel, stride, rate, same))
        return self.record(path, self.relu(path, x) if active else x)

    def max_pool(self, x: Any, mode: str) -> Any:
        """The root's, 3x3 with stride 2.

        "ceil" is PyTorch's padding with Caffe's rounding: whatever begins inside the padded image is a window.
        """
        if mode == "slim":
            return self.tf.nn.max_pool2d(x, 3, 2, "SAME")
        if mode != "valid":
            rows, columns = ((1, 1 + (size - 1) % 2 if mode == "ceil" else 1) for size in x.shape[1:3])
            x = self.padded(x, rows, columns, 0.0 if mode == "keras" else -np.inf)
        return self.tf.nn.max_pool2d(x, 3, 2, "VALID")

    # The unit.

    def subsampled(self, path: str, x: Any, stride: int) -> Any:
        """A shortcut that strides reads every second pixel."""
        kind = self.planted.value("shortcut-pool", path)
        if stride == 1:
            return x
        if kind is None:
            return x[:, ::stride, ::stride]
        pool = self.tf.nn.avg_pool2d if kind.startswith("average") else self.tf.nn.max_pool2d
        return pool(x, int(kind[-1]), stride, "SAME")

    def average_pooled(self, path: str, x: Any, stride: int) -> Any:
        """The shortcut of the variants d: means of 2x2 pixels, at the border of what there is."""
        tf = self.tf
        if not self.planted.has("pool-counts-padding", path):
            return tf.nn.avg_pool2d(x, 2, stride, "SAME")
        return tf.nn.avg_pool2d(self.padded(x, *((0, size % 2) for size in x.shape[1:3])), 2, stride, "VALID")

    def shortcut(self, path: str, x: Any, preact: Any, depth: int, stride: int) -> Any:
        first, planted = self.net.version == 1, self.planted
        if f"{self.net.scope}/{path}/shortcut/weights" not in self.variables:
            return self.subsampled(path, preact if planted.has("identity-from-preact", path) else x, stride)
        source = x if planted.has("shortcut-from-input", path) else preact
        if self.net.avg_down and stride > 1:
            source, stride = self.record(f"{path}/avg_pool", self.average_pooled(path, source, stride)), 1
        elif planted.has("shortcut-pool", path) and stride > 1:
            source, stride = self.subsampled(path, source, stride), 1
        return self.layer(f"{path}/shortcut", source, stride, normed=first, active=False)

    def unit(self, path: str, x: Any, unit: Mapping[str, int], stride: int, rate: int) -> Any:
        first, planted = self.net.version == 1, self.planted
        preact = x
        if not first:
            preact = self.record(f"{path}/preact", self.relu(f"{path}/preact", self.norm(f"{path}/preact", x)))
        shortcut = self.shortcut(path, x, preact, unit["depth"], stride)
        early = bool(unit.get("stride_in_1x1"))
        same = planted.has("conv2-same", f"{path}/conv2")
        residual = self.layer(f"{path}/conv1", preact, stride if early else 1, normed=True, active=True)
        residual = self.layer(
            f"{path}/conv2", residual, 1 if early else stride, rate, normed=True, active=True, same=same
        )
        residual = self.layer(f"{path}/conv3", residual, normed=first, active=False)
        if planted.has("relu-before-add", path):
            residual = self.tf.nn.relu(residual)
        total = shortcut + residual
        if first or planted.has("relu-after-add", path):
            total = self.relu(path, total) if first else self.tf.nn.relu(total)
        return self.record(path, total)

    # The network.

    def stacked(self, x: Any) -> Any:
        """``stack_blocks_dense``."""
        net, planted = self.net, self.planted
        place = planted.value("stride-place")
        blocks = net.blocks if place is None else restrided(net.blocks, place)
        target = None if net.output_stride is None else net.output_stride // 4
        current, rate = 1, 1
        for scope, units in blocks:
            for i, unit in enumerate(units):
                path = f"{scope}/unit_{i + 1}/{net.unit_name}"
                stride, own = unit["stride"], 1
                if current == target:
                    stride, own, later = 1, rate, rate * unit["stride"]
                    if planted.has("dilation-early", path):
                        own = later
                    if planted.has("dilation-missing", path) or (planted.has("dilation-first-only", path) and i > 0):
                        own = 1
                    rate = later
                else:
                    current *= stride
                if planted.has("unit-missing", path):
                    continue
                x = self.unit(path, x, unit, stride, own)
                if planted.has("unit-doubled", path):
                    x = self.unit(path, x, unit, stride, own)
            self.record(scope, x)
        return x

    def root(self, x: Any) -> Any:
        net, planted = self.net, self.planted
        first = net.version == 1
        x = self.layer("conv1", x, 2, normed=first, active=first, same=planted.has("conv1-same"))
        if planted.has("root-activated"):
            x = self.tf.nn.relu(x)
        return self.record("pool1", self.max_pool(x, planted.value("pool1", "", net.pool_mode)))

    def pooled(self, x: Any) -> Any:
        tf = self.tf
        if self.planted.has("pool5-max"):
            return tf.reduce_max(x, [1, 2], keepdims=True)
        if self.planted.has("pool5-sum"):
            return tf.reduce_sum(x, [1, 2], keepdims=True)
        if self.planted.has("head-order"):
            # A flatten, and the pool over what would be pixels if channels came first.
            count, height, width, depth = x.shape
            return tf.reduce_mean(tf.reshape(x, [count, 1, depth, height * width]), 3, keepdims=True)[..., 0][:, None]
        return tf.reduce_mean(x, [1, 2], keepdims=True)

    def postnorm(self, x: Any) -> Any:
        if self.net.version == 1 or self.planted.has("postnorm-missing"):
            return x
        return self.record("postnorm", self.relu("postnorm", self.norm("postnorm", x)))

    def head(self, x: Any) -> Any:
        net, planted, tf = self.net, self.planted, self.tf
        if planted.has("pool5-before-postnorm"):
            x = self.record("pool5", self.postnorm(self.pooled(x)))
        else:
            x = self.postnorm(x)
            x = self.record("pool5", self.pooled(x)) if net.global_pool else x
        if net.num_classes is None:
            return
        logits = self.layer("logits", x, normed=False, active=False)
        offset = planted.value("class-offset")
        if offset is not None:
            logits = self.record("logits", tf.roll(logits, offset, -1))
        predictions = logits if planted.has("softmax-missing") else tf.nn.softmax(logits)
        self.record("predictions", tf.nn.softmax(predictions) if planted.has("softmax-twice") else predictions)

    def __call__(self, images: Any) -> dict[str, Any]:
        """Every layer's output by TF-Slim's names, in network order."""
        self.seen = {}
        self.head(self.stacked(self.root(images)))
        return self.seen


def run(
    variables: Mapping[str, np.ndarray],
    images: np.ndarray,
    net: Net,
    mistakes: Iterable[Mistake | tuple[Any, ...]] = (),
    *,
    how: str = "eager",
    norm: str = "plain",
    dtype: str = "float32",
) -> dict[str, np.ndarray]:
    """Every layer's output by TF-Slim's names, NHWC, in network order; the logits and predictions among them.

    Parameters
    ----------
    variables : mapping of str to ndarray
    images : ndarray
        [N, H, W, 3], normalised.
    net : Net
    mistakes : iterable of Mistake or tuple
    how : {"eager", "function", "xla"}
    norm, dtype
        As `TensorFlowPort` explains them.
    """
    tf = tensorflow()
    port = TensorFlowPort(variables, net, mistakes, norm, dtype)
    call = port if how == "eager" else tf.function(port.__call__, jit_compile=how == "xla", autograph=False)
    with tf.device("CPU"):
        found = call(tf.constant(images, dtype))
        # A function's dictionaries are sorted by their keys.
        return {name: np.asarray(found[name]) for name in port.seen}
