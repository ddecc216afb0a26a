"""Run a plan: in NumPy, an operation at a time, or with the CPU's fused kernels. The bits are the same.

`refnet.cuda_executor` does it on a CUDA device.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from refnet.errors import ConfigError, DeviceError, InputError, WeightsError
from refnet.plan import NormNames, Plan, Step, assign_slots
from refnet_kernels.catalog import select
from refnet_kernels.contract import BINARY32, BINARY64, ConvGeometry, FloatArray, Norm, norm_scale
from refnet_kernels.forks import Lock, making

Variables = Mapping[str, Any]


class Executor(Protocol):
    """Something that runs one plan."""

    def run(self, images: FloatArray) -> list[FloatArray]:
        """The plan's outputs, as arrays of the caller's own."""


def make_executor(
    plan: Plan, variables: Variables, device: str, threads: int, packed: dict[Any, Any], dtype: np.dtype[Any]
) -> Executor:
    """The executor of a plan on a device.

    Parameters
    ----------
    plan : Plan
    variables : mapping of str to array
    device : {"cpu", "reference", "cuda", "cuda:1", ...}
        As `check_device` accepted it.
    threads : int
        Of the CPU's kernels.
    packed : dict
        Where packed weights are kept, to be shared by all plans of an engine. Where ``variables`` is a plain dict,
        it belongs to the engine, and kernels leave it once they are packed.
    dtype : numpy.dtype
        Of the images, of the outputs and of all between them.

    Raises
    ------
    DeviceError
        The device's memory is too small.
    """
    if device == "reference":
        return ReferenceExecutor(plan, variables, dtype)
    if device.startswith("cuda"):
        from refnet.cuda_executor import CudaExecutor

        return CudaExecutor(plan, variables, _cuda_index(device), packed)
    with making:
        return CpuExecutor(plan, variables, threads, packed, dtype)


def check_device(device: object) -> str:
    """``device`` itself, if it is there.

    Raises
    ------
    DeviceError
        There is no device of that name, or CUDA lacks its package, its driver or the device.
    """
    if device in ("cpu", "reference"):
        return str(device)
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d{1,3})?", device):
        known = "'cpu', 'reference', 'cuda', 'cuda:1' and so on"
        raise DeviceError(f"There is no device {device!r}; the devices are {known}.", found=device)
    from refnet_kernels.gpu.device import missing

    reason = missing(_cuda_index(device))
    if reason is not None:
        raise DeviceError(f"The CUDA device {device!r} cannot be used: {reason}.", found=device)
    return device


def _cuda_index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def check_dtype(dtype: object, device: str = "cpu") -> np.dtype[Any]:
    """The dtype of that name or type.

    Raises
    ------
    ConfigError
        It is neither float32 nor float64.
    DeviceError
        The device does not compute in it.
    """
    with suppress(TypeError, ValueError):
        for known in (BINARY32, BINARY64):
            # NumPy takes None for float64.
            if dtype is not None and np.dtype(dtype) == known:  # type: ignore[call-overload]
                if known == BINARY64 and device.startswith("cuda"):
                    raise DeviceError("The CUDA kernels compute in float32; float64 is for 'cpu' and 'reference'.")
                return known
    raise ConfigError(f"dtype is {dtype!r}; it can be 'float32' or 'float64'.", found=dtype)


def check_threads(threads: object) -> int:
    """How many threads to use: ``threads``, or for None as many as the process has cores.

    Raises
    ------
    ConfigError
        It is no whole number from 1 to 1024.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise ConfigError(f"threads is {threads!r}; it is a whole number from 1 to 1024.", found=threads)
    return threads


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


class ReferenceExecutor:
    """Each operation by its NumPy definition, nothing fused. Slow; for small networks and for doubts."""

    def __init__(self, plan: Plan, variables: Variables, dtype: np.dtype[Any]) -> None:
        self._plan = plan
        self._variables = variables
        self._dtype = dtype

    def run(self, images: FloatArray) -> list[FloatArray]:
        """The plan's outputs."""
        values = {self._plan.input: images.copy()}
        for step in self._plan.steps:
            self._run_step(step, values)
        outputs = []
        for index in self._plan.outputs:
            value = values[self._plan.aliases.get(index, index)]
            outputs.append(value.reshape(self._plan.shapes[index]).copy())
        return outputs

    def _run_step(self, step: Step, values: dict[int, FloatArray]) -> None:
        inputs = [values[index] for index in step.inputs]
        value = self._operation(step, inputs)
        if step.norm is not None:
            value = self._call("batch_norm", value, self._norm(step.norm), step.relu)
        elif step.relu and step.op == "conv":
            value = np.where(value < 0, self._dtype.type(0), value)
        if step.shortcut is not None:
            value = self._call("residual", values[step.shortcut], value, step.sum_relu)
        if step.out is not None:
            values[step.out] = value
        if step.preact is not None and step.next_norm is not None:
            values[step.preact] = self._call("batch_norm", value, self._norm(step.next_norm), True)

    def _operation(self, step: Step, inputs: list[FloatArray]) -> FloatArray:
        names = step.variables
        if step.op == "conv":
            bias = None if step.bias is None else self._variable(step.bias)
            return self._call("conv", inputs[0], self._variable(names["weights"]), step.geometry, bias)
        if step.op == "batch_norm_training":
            gamma = self._variable(names["gamma"]) if "gamma" in names else None
            mean, scale = select("batch_statistics", "reference").call(inputs[0], gamma, step.geometry)
            return self._call("batch_norm", inputs[0], Norm(mean, scale, self._variable(names["beta"])), step.relu)
        if step.op in ("subsample", "max_pool"):
            return self._call(step.op, inputs[0], step.geometry)
        if step.op == "batch_norm":
            return self._call("batch_norm", inputs[0], self._norm(NormNames.of(step)), step.relu)
        if step.op == "residual":
            return self._call("residual", *inputs, step.relu)
        return self._call(step.op, *inputs)

    def _variable(self, name: str) -> FloatArray:
        value: FloatArray = self._variables[name].astype(self._dtype)
        return value

    def _norm(self, names: NormNames) -> Norm:
        return norm_of(names, self._variables, self._dtype)

    def _call(self, op: str, *arguments: Any) -> FloatArray:
        result: FloatArray = select(op, "reference").call(*arguments)
        return result


class CpuExecutor:
    """The plan as one program of compiled kernels over one arena of memory."""

    def __init__(
        self, plan: Plan, variables: Variables, threads: int, packed: dict[Any, Any], dtype: np.dtype[Any]
    ) -> None:
        self._plan = plan
        self._variables = variables
        self._packed = packed
        self._dtype = dtype
        self._kept: list[np.ndarray] = []
        self._padded = _padded_input(plan)
        sizes = {index: self._bytes(shape) for index, shape in plan.shapes.items()}
        sizes[plan.input] = self._bytes(self._input_shape())
        self._offsets, total = assign_slots(plan, sizes)
        _check_memory(total, plan.shapes[plan.input])
        from refnet_kernels.team import Program, aligned_zeros

        self._arena = aligned_zeros(total, np.uint8)
        longest = max((s.geometry.kernel_width * s.geometry.channels for s in plan.steps if s.op == "conv"), default=0)
        self._zeros = aligned_zeros(max(longest, 1), dtype)
        self._pack_kernels(threads)
        self._program = Program([launch for step in plan.steps for launch in self._launches(step)], threads)
        self._lock = Lock()

    def run(self, images: FloatArray) -> list[FloatArray]:
        """The plan's outputs. One caller at a time; others wait."""
        with self._lock.held():
            self._fill_input(images)
            self._program.run()
            outputs = []
            for index in self._plan.outputs:
                shape = self._plan.shapes[index]
                outputs.append(self._view(self._plan.aliases.get(index, index), shape).copy())
            return outputs

    def _bytes(self, shape: Sequence[int]) -> int:
        return self._dtype.itemsize * int(np.prod(shape))

    def _input_shape(self) -> tuple[int, ...]:
        if self._padded is None:
            return self._plan.shapes[self._plan.input]
        g = self._padded
        return (g.batch, g.height, g.width, g.channels)

    def _fill_input(self, images: FloatArray) -> None:
        target = self._view(self._plan.input, self._input_shape())
        if self._padded is not None:
            (_, height, width, _), (top, left) = images.shape, _pads(self._plan)
            target[...] = 0
            target = target[:, top : top + height, left : left + width]
        np.copyto(target, images)

    def _view(self, index: int, shape: Sequence[int]) -> FloatArray:
        offset = self._offsets[index]
        return self._arena[offset : offset + self._bytes(shape)].view(self._dtype).reshape(shape)

    def _address(self, index: int | None) -> int:
        return 0 if index is None else self._arena.ctypes.data + self._offsets[self._plan.aliases.get(index, index)]

    def _pack_kernels(self, threads: int) -> None:
        """Pack the kernels that no other plan has packed: the engine's own where they lie, if they may stay there.

        All others go into one block of memory, which is kind to the TLB.
        """
        from refnet_kernels.conv.cpu import pack, packed_shape, packs_in_place
        from refnet_kernels.team import aligned_zeros

        names = [step.variables["weights"] for step in self._plan.steps if step.op == "conv"]
        missing = [name for name in dict.fromkeys(names) if name not in self._packed]
        own = isinstance(self._variables, dict)
        stay = [name for name in missing if own and packs_in_place(self._variables[name], self._dtype)]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self._pack_in_place, [stay[i::threads] for i in range(threads)]):
                pass
        go = [name for name in missing if name not in self._packed]
        shapes = {name: packed_shape(self._variables[name].shape, self._dtype) for name in go}
        block = aligned_zeros(sum(int(np.prod(shape)) for shape in shapes.values()), self._dtype)
        start = 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            self._packed[name] = pack(self._variables[name], block[start:stop].reshape(shape))
            start = stop
        if isinstance(self._variables, dict):
            # The packed kernel takes the place of the engine's own; only its shape is asked for from now on.
            for name in missing:
                self._variables[name] = np.broadcast_to(np.float32(0), self._variables[name].shape)

    def _pack_in_place(self, names: list[str]) -> None:
        from refnet_kernels.conv.cpu import pack_in_place

        spare = np.empty(max((self._variables[name].size for name in names), default=0), self._dtype)
        for name in names:
            self._variables[name].flags.writeable = True
            self._packed[name] = pack_in_place(self._variables[name], spare)

    def _launches(self, step: Step) -> list[Any]:
        """The launches of a step; their operands' addresses stay valid as long as this object lives."""
        make: dict[str, Callable[[Step, dict[str, int]], list[Any]]] = {
            "conv": self._conv,
            "batch_norm": self._batch_norm,
            "batch_norm_training": self._batch_norm_training,
            "max_pool": self._max_pool,
        }
        addresses = {"x": self._address(step.inputs[0]), "out": self._address(step.out)}
        if step.op in make:
            return make[step.op](step, addresses)
        shape = self._plan.shapes[step.inputs[0]]
        launch = select(step.op, "cpu").launch
        if step.op == "subsample":
            return [launch(*shape, step.geometry, addresses, self._dtype)]
        if step.op == "residual":
            shortcut, x = (self._address(index) for index in step.inputs)
            return [launch(int(np.prod(shape)), {**addresses, "shortcut": shortcut, "x": x}, step.relu, self._dtype)]
        if step.op == "mean":
            return [launch(shape[0], shape[1] * shape[2], shape[3], addresses, self._dtype)]
        return [launch(int(np.prod(shape[:-1])), shape[-1], addresses, self._dtype)]  # softmax

    def _conv(self, step: Step, addresses: dict[str, int]) -> list[Any]:
        geometry = step.geometry
        if self._padded is not None and step.inputs[0] == self._plan.input:
            geometry = self._padded
        name = step.variables["weights"]
        addresses["zeros"] = self._zeros.ctypes.data
        addresses["weights"] = self._packed[name].ctypes.data
        addresses["shortcut"] = self._address(step.shortcut)
        if step.bias is not None:
            addresses["bias"] = self._channels((step.bias,), self._variables[step.bias])
        if step.norm is not None:
            addresses |= self._norm(step.norm, "")
        addresses |= self._next(step)
        return [select("conv", "cpu").launch(geometry, addresses, step.relu, self._dtype, step.sum_relu)]

    def _max_pool(self, step: Step, addresses: dict[str, int]) -> list[Any]:
        return [select("max_pool", "cpu").launch(step.geometry, addresses | self._next(step), self._dtype)]

    def _batch_norm(self, step: Step, addresses: dict[str, int]) -> list[Any]:
        *pixels, channels = self._plan.shapes[step.inputs[0]]
        addresses |= self._norm(NormNames.of(step), "")
        launch = select("batch_norm", "cpu").launch
        return [launch(int(np.prod(pixels)), channels, addresses, step.relu, self._dtype)]

    def _batch_norm_training(self, step: Step, addresses: dict[str, int]) -> list[Any]:
        *pixels, channels = self._plan.shapes[step.inputs[0]]
        names = step.variables
        statistics = np.zeros((2, channels), self._dtype)
        self._kept.append(statistics)
        mean, scale = (row.ctypes.data for row in statistics)
        gamma = self._channels((names["gamma"],), self._variables[names["gamma"]]) if "gamma" in names else 0
        beta = self._channels((names["beta"],), self._variables[names["beta"]])
        count = int(np.prod(pixels))
        gather = {"x": addresses["x"], "gamma": gamma, "mean": mean, "scale": scale}
        apply = {**addresses, "mean": mean, "scale": scale, "beta": beta}
        return [
            select("batch_statistics", "cpu").launch(count, channels, gather, step.geometry, self._dtype),
            select("batch_norm", "cpu").launch(count, channels, apply, step.relu, self._dtype),
        ]

    def _next(self, step: Step) -> dict[str, int]:
        if step.next_norm is None:
            return {}
        return self._norm(step.next_norm, "next_") | {"preact": self._address(step.preact)}

    def _norm(self, names: NormNames, prefix: str) -> dict[str, int]:
        norm = self._pack(names, lambda: norm_of(names, self._variables, self._dtype))
        return {f"{prefix}{role}": self._channels((names, role), getattr(norm, role)) for role in Norm._fields}

    def _channels(self, key: Any, values: FloatArray) -> int:
        from refnet_kernels.conv.cpu import pack_channels

        return int(self._pack(key, lambda: pack_channels(values.astype(self._dtype))).ctypes.data)

    def _pack(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._packed:
            self._packed[key] = make()
        return self._packed[key]


def _pads(plan: Plan) -> tuple[int, int]:
    geometry = next(step for step in plan.steps if plan.input in step.reads).geometry
    return geometry.pad_top, geometry.pad_left


def _padded_input(plan: Plan) -> ConvGeometry | None:
    """The first convolution's geometry on an explicitly padded image, where the input can be stored so.

    Then each row of the kernel is one contiguous stretch, which counts where an image has three channels.
    """
    readers = [step for step in plan.steps if plan.input in step.reads]
    if len(readers) != 1 or readers[0].op != "conv" or plan.input in plan.outputs:
        return None
    g: ConvGeometry = readers[0].geometry
    if g.rate != 1 or g.kernel_width == 1:
        return None
    height = max((g.out_height - 1) * g.stride + g.kernel_height, g.pad_top + g.height)
    width = max((g.out_width - 1) * g.stride + g.kernel_width, g.pad_left + g.width)
    return g._replace(height=height, width=width, pad_top=0, pad_left=0)


def _check_memory(total: int, shape: tuple[int, ...]) -> None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > physical:
        raise InputError(
            f"Images of shape {shape} need {total / 2**30:.1f} GiB for the values between the layers, but the "
            f"machine has {physical / 2**30:.1f} GiB; pass fewer images at a time, the bits are the same."
        )
