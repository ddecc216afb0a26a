"""What the executors of compiled kernels share: values in one arena, and how each step becomes its launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from refnet.errors import WeightsError
from refnet.graph.plan import NormNames, Plan, Step, for_images
from refnet_kernels.contract import FloatArray, Norm, norm_scale

Variables = Mapping[str, Any]
#: What is told the least and the largest pixel, NaN if one is NaN.
Look = Callable[[float, float], None]


def norm_of(names: NormNames, variables: Variables, dtype: np.dtype[Any]) -> Norm:
    """The batch norm that these variables define (rule A3), in a dtype.

    Raises
    ------
    WeightsError
        A variance plus epsilon is 0 or negative: its square root does not exist.
    """
    variance = variables[names.variance]
    bad = int(np.sum(variance.astype(np.float64) + names.epsilon <= 0))
    if bad:
        raise WeightsError(
            f"{names.variance} plus epsilon ({names.epsilon}) is 0 or negative in {bad} of {variance.size} channels.",
            tensor=names.variance,
        )
    gamma = None if names.gamma is None else variables[names.gamma]
    scale = norm_scale(variance, gamma, names.epsilon, dtype)
    return Norm(variables[names.mean].astype(dtype), scale, variables[names.beta].astype(dtype))


class CompiledExecutor:
    """The way from a plan's steps to launches; a device says where things lie and how its kernels are launched.

    Parameters
    ----------
    plan : Plan
    variables : mapping of str to array
    packed : dict
        Where packed weights are kept, to be shared by all plans of an engine. Where ``variables`` is a plain dict,
        it belongs to the engine, and kernels leave it once they are packed.
    dtype : numpy.dtype
        Of the images, of the outputs and of all between them.

    Attributes
    ----------
    plan : Plan
    """

    #: Where the arena starts, and each value in it.
    _start: int
    _offsets: dict[int, int]
    #: Bytes from one image's value to the next one's, where those of all images lie there and not only a part's.
    _apart: Mapping[int, int] = MappingProxyType({})

    def __init__(self, plan: Plan, variables: Variables, packed: dict[Any, Any], dtype: np.dtype[Any]) -> None:
        self.plan = plan
        self._variables = variables
        self._packed = packed
        self._dtype = dtype
        self._kept: list[Any] = []

    def _launch(self, op: str, *arguments: Any) -> Any:
        """The launch of a kernel."""
        raise NotImplementedError

    def _conv_operands(self, step: Step) -> tuple[Any, dict[str, int]]:
        """The geometry of a convolution's image as it lies there, and the addresses that only this device asks for."""
        raise NotImplementedError

    def _pack_channels(self, values: FloatArray) -> FloatArray:
        """One value a channel, as the kernels read them."""
        raise NotImplementedError

    def _store(self, values: np.ndarray) -> Any:
        """An array in the device's memory."""
        raise NotImplementedError

    def _locate(self, stored: Any) -> int:
        """The address of what `_store` made."""
        raise NotImplementedError

    def _scratch(self, channels: int) -> int:
        """The address of memory for one value a channel, as long as this object lives."""
        raise NotImplementedError

    def _launches(self, step: Step, images: range) -> list[Any]:
        """The launches of a step for some images; their operands' addresses are valid as long as this object lives."""
        step = for_images(step, len(images))
        at = partial(self._address, image=images.start)
        addresses = {"x": at(step.inputs[0]), "out": at(step.out)}
        if step.next_norm is not None:
            addresses |= self._norm(step.next_norm, "next_") | {"preact": at(step.preact)}
        _, *sides, channels = self.plan.shapes[step.inputs[0]]
        pixels = len(images), *sides
        count = int(np.prod(pixels))
        if step.op == "conv":
            geometry, operands = self._conv_operands(step)
            addresses |= operands | self._epilogue(step) | {"shortcut": at(step.shortcut)}
            return [self._launch("conv", geometry, addresses, step.relu, step.sum_relu)]
        if step.op == "batch_norm":
            return [self._launch("batch_norm", count, channels, addresses | self._norm(NormNames.of(step)), step.relu)]
        if step.op == "batch_norm_training":
            return self._batch_norm_training(step, addresses, count, channels)
        if step.op in ("max_pool", "avg_pool"):
            return [self._launch(step.op, step.geometry, addresses)]
        if step.op == "subsample":
            return [self._launch("subsample", *pixels, channels, step.geometry, addresses)]
        if step.op == "residual":
            shortcut, x = (at(index) for index in step.inputs)
            return [self._launch("residual", count * channels, addresses | {"shortcut": shortcut, "x": x}, step.relu)]
        if step.op == "mean":
            return [self._launch("mean", pixels[0], pixels[1] * pixels[2], channels, addresses)]
        return [self._launch(step.op, count, channels, addresses)]  # softmax

    def _epilogue(self, step: Step) -> dict[str, int]:
        operands = {}
        if step.bias is not None:
            operands["bias"] = self._channels((step.bias,), self._variables[step.bias])
        return operands if step.norm is None else operands | self._norm(step.norm)

    def _batch_norm_training(self, step: Step, addresses: dict[str, int], count: int, channels: int) -> list[Any]:
        names = step.variables
        statistics = {"mean": self._scratch(channels), "scale": self._scratch(channels)}
        gamma = self._channels((names["gamma"],), self._variables[names["gamma"]]) if "gamma" in names else 0
        beta = self._channels((names["beta"],), self._variables[names["beta"]])
        gather = {"x": addresses["x"], "gamma": gamma} | statistics
        return [
            self._launch("batch_statistics", count, channels, gather, step.geometry),
            self._launch("batch_norm", count, channels, addresses | statistics | {"beta": beta}, step.relu),
        ]

    def _norm(self, names: NormNames, prefix: str = "") -> dict[str, int]:
        if (names, Norm._fields[-1]) not in self._packed:
            for role, values in norm_of(names, self._variables, self._dtype)._asdict().items():
                self._channels((names, role), values)
        return {f"{prefix}{role}": self._locate(self._packed[names, role]) for role in Norm._fields}

    def _channels(self, key: Any, values: FloatArray) -> int:
        return self._constant(key, lambda: self._pack_channels(values.astype(self._dtype)))

    def _constant(self, key: Any, make: Callable[[], np.ndarray]) -> int:
        """The address of what is packed under this key; made the first time."""
        if key not in self._packed:
            self._packed[key] = self._store(make())
        return self._locate(self._packed[key])

    def _let_go(self, name: str) -> None:
        """Forget a kernel that is packed, where it is the engine's own copy; its shape is asked for from now on."""
        if isinstance(self._variables, dict):
            self._variables[name] = np.broadcast_to(np.float32(0), self._variables[name].shape)

    def _address(self, index: int | None, image: int = 0) -> int:
        """Where a value lies, from that image on; where only a part's images do, from the part's first."""
        if index is None:
            return 0
        value = self.plan.aliases.get(index, index)
        return self._start + self._offsets[value] + image * self._apart.get(value, 0)
