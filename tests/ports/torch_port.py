"""ResNet v1 and V2 as somebody would port them to PyTorch: channels first, padding by numbers, the same switches.

Written apart from the port to TensorFlow, by PyTorch's habits; the two agree where both have a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tests.ports.loading import loaded
from tests.ports.mistakes import Mistake, Planted
from tests.slim.oracle import Net
from tests.support.tensorflow import quiet

#: The mistakes of the catalogue that this port has no switch for: those of dilation and of strides' places.
LEFT_OUT = ("stride-place", "dilation-early", "dilation-first-only", "dilation-missing", "pool-counts-padding")


def same(size: int, window: int, stride: int) -> tuple[int, int]:
    """What a port of TensorFlow's SAME pads."""
    pad = max((-(-size // stride) - 1) * stride + window - size, 0)
    return pad // 2, pad - pad // 2


class TorchPort:
    """The port.

    Parameters
    ----------
    variables, net, mistakes
        As for `tests.ports.tensorflow_port.TensorFlowPort`.
    dtype : str
    channels_last : bool
        Whether the layout in memory is NHWC.
    """

    def __init__(
        self,
        variables: Mapping[str, np.ndarray],
        net: Net,
        mistakes: Iterable[Mistake | tuple[Any, ...]] = (),
        dtype: str = "float32",
        channels_last: bool = False,
    ) -> None:
        import torch

        self.torch, self.functional = torch, torch.nn.functional
        self.net, self.dtype = net, getattr(torch, dtype)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.planted = Planted(mistakes)
        self.state = loaded(variables, net, self.planted.mistakes)
        self.seen: dict[str, Any] = {}

    def tensor(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(np.array(array)).to(self.dtype)

    def parameter(self, name: str) -> Any:
        return self.tensor(self.state[f"{self.net.scope}/{name}"])

    def record(self, path: str, x: Any) -> Any:
        self.seen[path] = x
        return x

    def rounded(self, x: Any) -> Any:
        torch, kind = self.torch, self.planted.value("arithmetic")
        if kind in ("float16", "bfloat16"):
            return x.to(getattr(torch, kind)).to(x.dtype)
        if kind == "tf32":
            raw = x.contiguous().view(torch.int32)
            return ((raw + 0xFFF + ((raw >> 13) & 1)) & ~0x1FFF).view(torch.float32)
        return x

    def conv(self, path: str, x: Any, stride: int = 1, bias: bool = False) -> Any:
        weight = self.parameter(f"{path}/weights").permute(3, 2, 0, 1).contiguous(memory_format=self.format)
        pad, wanted = weight.shape[2] // 2, {"conv1": "conv1-same"}.get(path, "conv2-same")
        if stride > 1 and pad and self.planted.has(wanted, path):
            (top, bottom), (left, right) = (same(size, weight.shape[2], stride) for size in x.shape[2:])
            x, pad = self.functional.pad(x, (left, right, top, bottom)), 0
        bias = self.parameter(f"{path}/biases") if bias else None
        return self.functional.conv2d(self.rounded(x), self.rounded(weight), bias, stride, pad)

    def norm(self, path: str, x: Any) -> Any:
        inner = "" if path.endswith("preact") or path == "postnorm" else "/BatchNorm"
        gamma, beta, mean, variance = (
            self.parameter(f"{path}{inner}/{leaf}") for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        epsilon = self.planted.value("epsilon", path, self.net.batch_norm_epsilon)
        statistics = self.planted.value("batch-statistics", path)
        if statistics == "unbiased":
            # The variance that PyTorch keeps while it trains, from a momentum of 1.
            kept = self.torch.zeros_like(mean), self.torch.ones_like(variance)
            self.functional.batch_norm(x, *kept, None, None, True, 1.0, epsilon)
            mean, variance = kept
        if self.planted.has("variance-as-deviation", path):
            variance = (variance + epsilon) ** 2
            epsilon = 0.0
        return self.functional.batch_norm(x, mean, variance, gamma, beta, statistics == "biased", 0.0, epsilon)

    def relu(self, path: str, x: Any) -> Any:
        return x if self.planted.has("relu-missing", path) else x.relu()

    def conv_norm_relu(self, path: str, x: Any, stride: int = 1) -> Any:
        return self.record(path, self.relu(path, self.norm(path, self.conv(path, x, stride))))

    def pool1(self, x: Any) -> Any:
        kind, functional = self.planted.value("pool1", "", self.net.pool_mode), self.functional
        if kind == "slim":
            (top, bottom), (left, right) = (same(size, 3, 2) for size in x.shape[2:])
            return functional.max_pool2d(functional.pad(x, (left, right, top, bottom), value=-np.inf), 3, 2)
        if kind == "keras":
            return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
        return functional.max_pool2d(x, 3, 2, 0 if kind == "valid" else 1, ceil_mode=kind == "ceil")

    def strided(self, path: str, x: Any, stride: int) -> Any:
        """A shortcut's subsampling."""
        kind = self.planted.value("shortcut-pool", path)
        if kind is None or stride == 1:
            return x[:, :, ::stride, ::stride]
        if kind.startswith("average"):
            return self.functional.avg_pool2d(x, 2, stride, ceil_mode=True, count_include_pad=False)
        window = int(kind[-1])
        (top, bottom), (left, right) = (same(size, window, stride) for size in x.shape[2:])
        return self.functional.max_pool2d(
            self.functional.pad(x, (left, right, top, bottom), value=-np.inf), window, stride
        )

    def unit(self, path: str, x: Any, stride: int) -> Any:
        planted, first = self.planted, self.net.version == 1
        preact = (
            x if first else self.record(f"{path}/preact", self.relu(f"{path}/preact", self.norm(f"{path}/preact", x)))
        )
        if f"{self.net.scope}/{path}/shortcut/weights" in self.state:
            source = x if planted.has("shortcut-from-input", path) else preact
            shortcut = self.conv(f"{path}/shortcut", self.strided(path, source, stride), bias=not first)
            shortcut = self.norm(f"{path}/shortcut", shortcut) if first else shortcut
            self.record(f"{path}/shortcut", shortcut)
        else:
            shortcut = self.strided(path, preact if planted.has("identity-from-preact", path) else x, stride)
        out = self.conv_norm_relu(f"{path}/conv2", self.conv_norm_relu(f"{path}/conv1", preact), stride)
        out = self.conv(f"{path}/conv3", out, bias=not first)
        out = self.record(f"{path}/conv3", self.norm(f"{path}/conv3", out) if first else out)
        out = shortcut + (out.relu() if planted.has("relu-before-add", path) else out)
        if first:
            out = self.relu(path, out)
        elif planted.has("relu-after-add", path):
            out = out.relu()
        return self.record(path, out)

    def postnorm(self, x: Any) -> Any:
        if self.net.version == 1 or self.planted.has("postnorm-missing"):
            return x
        return self.record("postnorm", self.relu("postnorm", self.norm("postnorm", x)))

    def pool5(self, x: Any) -> Any:
        planted = self.planted
        if planted.has("head-order"):
            # A flatten of channels last into what a mean over the last axis takes for channels first.
            count, depth, height, width = x.shape
            flat = x.permute(0, 2, 3, 1).reshape(count, depth, height * width)
            return flat.mean(2)[:, :, None, None]
        if planted.has("pool5-max"):
            return x.amax((2, 3), keepdim=True)
        return x.sum((2, 3), keepdim=True) if planted.has("pool5-sum") else x.mean((2, 3), keepdim=True)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        net, planted = self.net, self.planted
        self.seen = {}
        x = self.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=self.format)
        if net.version == 1:
            x = self.conv_norm_relu("conv1", x, 2)
        else:
            x = self.record("conv1", self.conv("conv1", x, 2, bias=True))
            x = x.relu() if planted.has("root-activated") else x
        x = self.record("pool1", self.pool1(x))
        for scope, args in net.blocks:
            for i, unit in enumerate(args):
                path = f"{scope}/unit_{i + 1}/{net.unit_name}"
                for _ in range(
                    0 if planted.has("unit-missing", path) else 2 if planted.has("unit-doubled", path) else 1
                ):
                    x = self.unit(path, x, unit["stride"])
            self.record(scope, x)
        if planted.has("pool5-before-postnorm"):
            x = self.record("pool5", self.postnorm(self.pool5(x)))
        else:
            x = self.record("pool5", self.pool5(self.postnorm(x)))
        if net.num_classes is not None:
            logits = self.conv("logits", x, bias=True)
            logits = self.record("logits", logits.roll(planted.value("class-offset", "", 0), 1))
            predictions = logits if planted.has("softmax-missing") else logits.softmax(1)
            self.record("predictions", predictions.softmax(1) if planted.has("softmax-twice") else predictions)
        return {
            path if path == "predictions" else f"{net.scope}/{path}": value.numpy().transpose(0, 2, 3, 1).copy()
            for path, value in self.seen.items()
        }


def run(
    variables: Mapping[str, np.ndarray],
    images: np.ndarray,
    net: Net,
    mistakes: Iterable[Mistake | tuple[Any, ...]] = (),
    *,
    dtype: str = "float32",
    channels_last: bool = False,
    onednn: bool = True,
) -> dict[str, np.ndarray]:
    """Every layer's output by TF-Slim's names, NHWC, in network order; the logits and predictions among them.

    Parameters
    ----------
    variables, images, net, mistakes
        As for `tests.ports.tensorflow_port.run`.
    dtype, channels_last
        As `TorchPort` explains them.
    onednn : bool
        Whether oneDNN may compute.
    """
    port = TorchPort(variables, net, mistakes, dtype, channels_last)
    torch = port.torch
    # PyTorch warns of its own flags.
    with quiet(), torch.inference_mode(), torch.backends.mkldnn.flags(enabled=onednn):
        return port(images)
