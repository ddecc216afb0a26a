"""timm's ResNetV2, with batch norm or group norm, written once in terms of a few operations, by its state dict's names.

The operations are those of PyTorch, or TensorFlow's with PyTorch's padding made explicit: no refnet, no SAME.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from tests.slim.oracle import BlockSpec
from tests.support.tensorflow import tensorflow

#: Units of each stage of the published networks.
STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
#: The same of the networks of basic units.
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
#: Channels of the three convolutions of a deep stem.
DEEP = (32, 32, 64)


class Description(NamedTuple):
    """Stages as (width of the 3x3 kernels, units) each, and classes.

    ``deep``: the variants d; ``basic``: units of two 3x3 kernels; ``grouped``: group norm in place of batch norm;
    ``epsilon``: BiT, whose kernels are standardised with it; ``root``: channels of a root of one convolution.
    """

    stages: tuple[tuple[int, int], ...]
    classes: int
    deep: bool = False
    basic: bool = False
    grouped: bool = False
    epsilon: float | None = None
    root: int = 64

    @property
    def pool_mode(self) -> str:
        """pool1's padding: zeros in BiT, else what never wins."""
        return "torch" if self.epsilon is None else "keras"

    @property
    def unit(self) -> str:
        """TF-Slim's kind of name for a unit."""
        return "basic_v2" if self.basic else "bottleneck_v2"

    def depth(self, width: int) -> int:
        """Channels of a unit's output."""
        return width if self.basic else 4 * width

    def kernels(self, channels: int, width: int) -> list[tuple[int, int, int, int]]:
        """A unit's kernels, OIHW."""
        if self.basic:
            return [(width, channels, 3, 3), (width, width, 3, 3)]
        return [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]

    def projects(self, stage: int, unit: int, channels: int) -> bool:
        """Whether a unit's shortcut is a convolution: where it strides, or its depth changes."""
        return unit == 0 and (stage > 0 or channels != self.depth(self.stages[stage][0]))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The state dict's names and shapes, without the counters of batches."""
        shapes: dict[str, tuple[int, ...]] = {}

        def norm(name: str, channels: int) -> None:
            statistics = () if self.grouped else ("running_mean", "running_var")
            shapes.update({f"{name}.{r}": (channels,) for r in ("weight", "bias", *statistics)})

        channels = DEEP[-1] if self.deep else self.root
        if self.deep:
            shapes["stem.conv1.weight"] = (DEEP[0], 3, 3, 3)
            norm("stem.norm1", DEEP[0])
            shapes["stem.conv2.weight"] = (DEEP[1], DEEP[0], 3, 3)
            norm("stem.norm2", DEEP[1])
            shapes["stem.conv3.weight"] = (DEEP[2], DEEP[1], 3, 3)
        else:
            shapes["stem.conv.weight"] = (self.root, 3, 7, 7)
        for stage, (width, units) in enumerate(self.stages):
            for unit in range(units):
                place = f"stages.{stage}.blocks.{unit}"
                if self.projects(stage, unit, channels):
                    shapes[f"{place}.downsample.conv.weight"] = (self.depth(width), channels, 1, 1)
                for i, kernel in enumerate(self.kernels(channels, width), 1):
                    norm(f"{place}.norm{i}", kernel[1])
                    shapes[f"{place}.conv{i}.weight"] = kernel
                channels = self.depth(width)
        norm("norm", channels)
        return {**shapes, "head.fc.weight": (self.classes, channels, 1, 1), "head.fc.bias": (self.classes,)}

    def blocks(self) -> list[BlockSpec]:
        """TF-Slim's blocks of the same function: the first unit of each stage but the first one strides."""
        blocks = []
        for stage, (width, units) in enumerate(self.stages):
            unit = {"depth": self.depth(width), "depth_bottleneck": width, "stride": 1}
            first = unit | {"stride": 1 if stage == 0 else 2}
            blocks.append((f"block{stage + 1}", [first] + [unit] * (units - 1)))
        return blocks


def published(depth: int, classes: int = 1000, deep: bool = False) -> Description:
    """resnetv2_18, 34, 50, 101 or 152; deep: resnetv2_50d and so on."""
    stages = tuple(zip((64, 128, 256, 512), (BASIC | STAGES)[depth], strict=True))
    return Description(stages, classes, deep, depth in BASIC)


def draw_state(description: Description, seed: int) -> dict[str, np.ndarray]:
    """A state dict of float32 whose values keep their size along the network."""
    rng = np.random.default_rng(seed)

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape)
        if len(shape) == 4:
            he = np.sqrt(2 / np.prod(shape[1:]))
            if description.epsilon is not None:
                # Of some outputs, so that any epsilon matters; and of a mean of its own.
                noise[::5] *= 1e-4
                noise += 0.5 * rng.standard_normal((shape[0], 1, 1, 1))
            last = f".conv{2 if description.basic else 3}."
            return np.asarray(noise * he * (1 / 3 if last in name and "stages" in name else 1))
        if name.endswith("running_var"):
            return np.asarray(rng.uniform(0.5, 2, shape))
        return 0.2 * noise + (name.endswith(".weight"))

    return {name: one(name, shape).astype(np.float32) for name, shape in description.shapes().items()}


class Operations(Protocol):
    """What a framework does to its own images; `array` makes NumPy's NHWC of them."""

    def images(self, array: np.ndarray) -> Any: ...
    def array(self, x: Any) -> np.ndarray: ...
    def conv(self, x: Any, kernel: np.ndarray, stride: int) -> Any:
        """Of an OIHW kernel, padded by half of it all round."""

    def bias(self, x: Any, bias: np.ndarray) -> Any: ...
    def norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
        """``relu((x - mean) / sqrt(variance + 1e-5) * weight + bias)``."""

    def group_norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        """The same of 32 groups, each with the mean and the variance of its channels in one image."""

    def standardized(self, kernel: np.ndarray, epsilon: float) -> np.ndarray:
        """An OIHW kernel, of each output ``(w - mean) / sqrt(variance + epsilon)``."""

    def max_pool(self, x: Any, border: float = -np.inf) -> Any:
        """3 x 3, stride 2, one row and column of ``border`` all round."""

    def avg_pool(self, x: Any) -> Any:
        """2 x 2, stride 2; windows that are cut off at the border are means of what they hold."""

    def mean(self, x: Any) -> Any: ...


class Torch:
    """PyTorch's own functions, NCHW."""

    def __init__(self, dtype: str) -> None:
        import torch

        self.torch, self.functional = torch, torch.nn.functional
        self.dtype = getattr(torch, dtype)

    def _tensor(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(np.array(array)).to(self.dtype)

    def images(self, array: np.ndarray) -> Any:
        return self._tensor(array.transpose(0, 3, 1, 2))

    def array(self, x: Any) -> np.ndarray:
        return np.asarray(x.numpy().transpose(0, 2, 3, 1))

    def conv(self, x: Any, kernel: np.ndarray, stride: int) -> Any:
        return self.functional.conv2d(x, self._tensor(kernel), None, stride, kernel.shape[2] // 2)

    def bias(self, x: Any, bias: np.ndarray) -> Any:
        return x + self._tensor(bias)[:, None, None]

    def norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
        gamma, beta, mean, variance = map(self._tensor, (weight, bias, mean, variance))
        return self.functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, 1e-5).relu()

    def group_norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        return self.functional.group_norm(x, 32, self._tensor(weight), self._tensor(bias), 1e-5).relu()

    def standardized(self, kernel: np.ndarray, epsilon: float) -> np.ndarray:
        rows = self._tensor(kernel).reshape(1, len(kernel), -1)
        rows = self.functional.batch_norm(rows, None, None, training=True, momentum=0.0, eps=epsilon)
        return np.asarray(rows.numpy().reshape(kernel.shape))

    def max_pool(self, x: Any, border: float = -np.inf) -> Any:
        return self.functional.max_pool2d(self.functional.pad(x, (1, 1, 1, 1), value=border), 3, 2)

    def avg_pool(self, x: Any) -> Any:
        return self.functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)

    def mean(self, x: Any) -> Any:
        return x.mean((2, 3), keepdim=True)


class TensorFlow:
    """TensorFlow's functions without SAME, NHWC."""

    def __init__(self, dtype: str) -> None:
        self.tf, self.dtype = tensorflow(), dtype

    def images(self, array: np.ndarray) -> Any:
        return self.tf.constant(array, self.dtype)

    def array(self, x: Any) -> np.ndarray:
        return np.asarray(x.numpy())

    def _padded(self, x: Any, pad: int, value: float) -> Any:
        return self.tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]], constant_values=value)

    def conv(self, x: Any, kernel: np.ndarray, stride: int) -> Any:
        padded = self._padded(x, kernel.shape[2] // 2, 0)
        return self.tf.nn.conv2d(padded, self.images(kernel.transpose(2, 3, 1, 0)), stride, "VALID")

    def bias(self, x: Any, bias: np.ndarray) -> Any:
        return x + self.images(bias)

    def norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
        gamma, beta, mean, variance = map(self.images, (weight, bias, mean, variance))
        return self.tf.nn.relu((x - mean) * (gamma / self.tf.sqrt(variance + 1e-5)) + beta)

    def group_norm_relu(self, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        n, height, width, channels = x.shape
        groups = self.tf.reshape(x, (n, height, width, 32, channels // 32))
        mean, variance = self.tf.nn.moments(groups, (1, 2, 4), keepdims=True)
        normalized = self.tf.reshape((groups - mean) / self.tf.sqrt(variance + 1e-5), x.shape)
        return self.tf.nn.relu(normalized * self.images(weight) + self.images(bias))

    def standardized(self, kernel: np.ndarray, epsilon: float) -> np.ndarray:
        rows = self.images(kernel)
        mean, variance = self.tf.nn.moments(rows, (1, 2, 3), keepdims=True)
        return np.asarray(((rows - mean) / self.tf.sqrt(variance + epsilon)).numpy())

    def max_pool(self, x: Any, border: float = -np.inf) -> Any:
        return self.tf.nn.max_pool2d(self._padded(x, 1, border), 3, 2, "VALID")

    def avg_pool(self, x: Any) -> Any:
        pads = [[0, 0], *([0, size % 2] for size in x.shape[1:3]), [0, 0]]
        sums, counts = (self.tf.nn.avg_pool2d(self.tf.pad(a, pads), 2, 2, "VALID") for a in (x, self.tf.ones_like(x)))
        return sums / counts

    def mean(self, x: Any) -> Any:
        return self.tf.reduce_mean(x, (1, 2), keepdims=True)


def run(
    operations: Operations, description: Description, state: Mapping[str, np.ndarray], images: np.ndarray, scope: str
) -> dict[str, np.ndarray]:
    """Every layer's output, NHWC, by the name of TF-Slim's end point, in network order.

    Kernels that are standardised are rounded to float32, as data of both sides.
    """
    ops, seen, epsilon = operations, {}, description.epsilon

    def record(name: str, x: Any) -> Any:
        seen[f"{scope}/{name}"] = ops.array(x)
        return x

    def norm(name: str, x: Any) -> Any:
        if description.grouped:
            return ops.group_norm_relu(x, state[f"{name}.weight"], state[f"{name}.bias"])
        return ops.norm_relu(x, *(state[f"{name}.{r}"] for r in ("weight", "bias", "running_mean", "running_var")))

    def conv(x: Any, kernel: np.ndarray, stride: int) -> Any:
        standard = kernel if epsilon is None else ops.standardized(kernel, epsilon).astype(np.float32)
        return ops.conv(x, standard, stride)

    if description.deep:
        x = record("conv1_1", norm("stem.norm1", conv(ops.images(images), state["stem.conv1.weight"], 2)))
        x = record("conv1_2", norm("stem.norm2", conv(x, state["stem.conv2.weight"], 1)))
        x = record("conv1_3", conv(x, state["stem.conv3.weight"], 1))
    else:
        x = record("conv1", conv(ops.images(images), state["stem.conv.weight"], 2))
    x = record("pool1", ops.max_pool(x, -np.inf if epsilon is None else 0.0))
    for stage, (_, units) in enumerate(description.stages):
        for unit in range(units):
            place, slim = f"stages.{stage}.blocks.{unit}", f"block{stage + 1}/unit_{unit + 1}/{description.unit}"
            stride = 2 if stage > 0 and unit == 0 else 1
            preact = record(f"{slim}/preact", norm(f"{place}.norm1", x))
            if f"{place}.downsample.conv.weight" in state:
                kernel = state[f"{place}.downsample.conv.weight"]
                pooled = description.deep and stride > 1
                x = record(f"{slim}/avg_pool", ops.avg_pool(preact)) if pooled else preact
                x = record(f"{slim}/shortcut", conv(x, kernel, 1 if pooled else stride))
            strides = (stride, 1) if description.basic else (1, stride, 1)
            inner = preact
            for i, s in enumerate(strides, 1):
                inner = conv(inner, state[f"{place}.conv{i}.weight"], s)
                inner = record(f"{slim}/conv{i}", norm(f"{place}.norm{i + 1}", inner) if i < len(strides) else inner)
            x = record(slim, inner + x)
    x = record("postnorm", norm("norm", x))
    x = record("pool5", ops.mean(x))
    record("logits", ops.bias(ops.conv(x, state["head.fc.weight"], 1), state["head.fc.bias"]))
    return seen


def run_timm(
    depth: int,
    state: Mapping[str, np.ndarray],
    images: np.ndarray,
    scope: str,
    dtype: str,
    deep: bool = False,
    **options: Any,
) -> dict[str, np.ndarray]:
    """The same from timm's own modules, each layer's output taken by a hook; strict about the names."""
    import timm  # type: ignore[import-not-found]

    net = timm.create_model(f"resnetv2_{depth}{'d' if deep else ''}", **options).eval()
    names = {"stem.pool": "pool1", "norm": "postnorm", "head.fc": "logits"}
    names |= (
        {"stem.norm1": "conv1_1", "stem.norm2": "conv1_2", "stem.conv3": "conv1_3"} if deep else {"stem.conv": "conv1"}
    )
    names["head.global_pool"] = "pool5"
    basic = depth in BASIC
    layers = {"": "", ".norm1": "/preact", ".downsample": "/shortcut", ".norm2": "/conv1"}
    layers |= {".conv2": "/conv2"} if basic else {".norm3": "/conv2", ".conv3": "/conv3"}
    layers[".downsample.pool"] = "/avg_pool"
    for stage, units in enumerate((BASIC | STAGES)[depth]):
        for unit in range(units):
            absent = {".downsample": unit > 0 or (basic and stage == 0)}
            absent[".downsample.pool"] = unit > 0 or stage == 0 or not deep
            for layer, slim in layers.items():
                if not absent.get(layer, False):
                    place = f"block{stage + 1}/unit_{unit + 1}/{'basic' if basic else 'bottleneck'}_v2"
                    names[f"stages.{stage}.blocks.{unit}{layer}"] = place + slim
    outputs = {module: [slim] for module, slim in names.items()}
    return record(net, state, outputs, images, scope, dtype)


def record(
    net: Any,
    state: Mapping[str, np.ndarray],
    outputs: Mapping[str, list[str]],
    images: np.ndarray,
    scope: str,
    dtype: str,
) -> dict[str, np.ndarray]:
    """Load a state into a PyTorch module, run it, and take the outputs of its parts: of each call the next name."""
    import torch

    counters = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    net.load_state_dict({**{name: torch.from_numpy(value) for name, value in state.items()}, **counters})
    net = net.to(getattr(torch, dtype))
    seen: dict[str, np.ndarray] = {}

    def keep(names: list[str]) -> Callable[..., None]:
        left = iter(names)

        def hook(module: Any, inputs: Any, output: Any) -> None:
            output = output[:, :, None, None] if output.ndim == 2 else output
            seen[f"{scope}/{next(left)}"] = output.numpy().transpose(0, 2, 3, 1).copy()

        return hook

    modules = dict(net.named_modules())
    for module, names in outputs.items():
        modules[module].register_forward_hook(keep(names))
    with torch.inference_mode():
        net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(getattr(torch, dtype)))
    return seen
