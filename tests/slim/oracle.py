"""The oracle: the real tf_slim 1.1.0, run on variables and images that a test hands it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from tests.support.tensorflow import quiet, tf_slim

#: (scope, [{"depth", "depth_bottleneck", "stride", perhaps "unit_rate" or "stride_in_1x1"}, ...]) for each block: what
#: both sides make their ``Block`` of.
BlockSpec = tuple[str, list[dict[str, int]]]

UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


@dataclass(frozen=True)
class Net:
    """A network and its options, under TF-Slim's names; both sides are built from it."""

    blocks: Sequence[BlockSpec]
    num_classes: int | None = None
    is_training: bool = False
    global_pool: bool = True
    output_stride: int | None = None
    include_root_block: bool = True
    batch_norm_epsilon: float = 1e-5
    batch_norm_scale: bool = True
    activation_fn: str | None = "relu"
    use_batch_norm: bool = True
    store_non_strided_activations: bool = False
    multi_grid: Sequence[int] | None = None
    pool_mode: str = "slim"
    avg_down: bool = False
    root_depths: Sequence[int] | None = None
    bias_before_batch_norm: bool | None = None
    scope: str = field(default="resnet", kw_only=True)
    version: int = field(default=2, kw_only=True)
    unit: str = field(default="bottleneck", kw_only=True)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``refnet.forward``, but ``blocks`` and what the variables tell."""
        left_out = ("blocks", "root_depths", "scope", "version", "unit")
        names = [name for name in self.__dataclass_fields__ if name not in left_out]
        return {name: getattr(self, name) for name in names}

    def rated_blocks(self) -> list[BlockSpec]:
        """The blocks with the multi grid as the last one's unit rates."""
        if self.multi_grid is None:
            return list(self.blocks)
        *others, (scope, units) = self.blocks
        return [*others, (scope, [u | {"unit_rate": r} for u, r in zip(units, self.multi_grid, strict=True)])]

    @property
    def unit_name(self) -> str:
        """What stands before the names of a unit's variables."""
        return f"{self.unit}_v{self.version}"

    def replace(self, **changes: Any) -> Net:
        """A copy with other options."""
        return replace(self, **changes)


def block(scope: str, base_depth: int, num_units: int, stride: int) -> BlockSpec:
    """The arguments of ``resnet_v2_block`` and ``resnet_v1_block`` as a specification."""
    unit = {"depth": 4 * base_depth, "depth_bottleneck": base_depth, "stride": 1}
    return scope, [unit] * (num_units - 1) + [unit | {"stride": stride}]


def published_blocks(depth: int) -> list[BlockSpec]:
    """The blocks of resnet_v2_50, 101, 152 or 200, which resnet_v1's are too."""
    strides = (2, 2, 2, 1)
    return [
        block(f"block{i + 1}", 64 * 2**i, units, stride)
        for i, (units, stride) in enumerate(zip(UNITS[depth], strides, strict=True))
    ]


def _stack_blocks_non_strided(
    net: Any, blocks: Sequence[Any], output_stride: float | None = None, outputs_collections: Any = None
) -> Any:
    """``stack_blocks_dense(store_non_strided_activations=True)`` of the models repository, which 1.1.0 lacks.

    A block's stride is taken out of its last unit and applied after the block's output has been collected: by
    subsampling, or as a factor of the rate once the output stride is reached.
    """
    lib = tf_slim()
    current_stride, rate = 1, 1
    for scope, unit_fn, args in blocks:
        with lib.tf.variable_scope(scope, "block", [net]) as block_scope:
            strides = [unit["stride"] for unit in args[:-1]] + [1]
            for i, (unit, stride) in enumerate(zip(args, strides, strict=True)):
                dense = current_stride == output_stride
                with lib.tf.variable_scope(f"unit_{i + 1}", values=[net]):
                    net = unit_fn(net, **unit | {"stride": 1 if dense else stride}, rate=rate if dense else 1)
                current_stride, rate = (current_stride, rate * stride) if dense else (current_stride * stride, rate)
            net = lib.slim.utils.collect_named_outputs(outputs_collections, block_scope.name, net)
            if current_stride == output_stride:
                rate *= args[-1]["stride"]
            else:
                net = lib.resnet_utils.subsample(net, args[-1]["stride"])
                current_stride *= args[-1]["stride"]
    if output_stride is not None and current_stride != output_stride:
        raise ValueError("The target output_stride cannot be reached.")
    return net


def _unit(bottleneck: Any, net: Any, *, unit_rate: int = 1, rate: int = 1, **args: int) -> Any:
    """tf_slim's unit with DeepLab's own factor of the rate."""
    return bottleneck(net, rate=rate * unit_rate, **args)


@contextmanager
def _options(net: Net) -> Iterator[None]:
    """The options of the models repository that tf_slim 1.1.0 has not, made of tf_slim's own parts."""
    lib = tf_slim()
    overrides: dict[str, Any] = {}
    if net.activation_fn is None:
        overrides["activation_fn"] = None
    if not net.use_batch_norm:
        overrides["normalizer_fn"] = None
    arg_scope = lib.resnet_utils.resnet_arg_scope(
        batch_norm_epsilon=net.batch_norm_epsilon, batch_norm_scale=net.batch_norm_scale
    )
    stack = lib.resnet_utils.stack_blocks_dense
    if net.store_non_strided_activations:
        stack = lib.slim.add_arg_scope(_stack_blocks_non_strided)
    with (
        lib.slim.arg_scope(arg_scope),
        lib.slim.arg_scope([lib.slim.conv2d], **overrides),
        mock.patch.object(lib.resnet_utils, "stack_blocks_dense", stack),
    ):
        yield


class Slim:
    """A tf_slim network in a graph of its own.

    Parameters
    ----------
    net : Net
        The network.
    shape : sequence of int
        NHWC shape of the images.
    dtype : {"float32", "float64"}
        The precision of everything; with float64 TF is the truth.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        The variables' names and shapes.
    slim_end_points : list of str
        The keys of tf_slim's end points, in its order.
    """

    def __init__(self, net: Net, shape: Sequence[int], dtype: str = "float32") -> None:
        lib = tf_slim()
        self.graph = lib.tf.Graph()
        with quiet(), self.graph.as_default():
            self.images = lib.tf.placeholder(dtype, shape)
            with _options(net):
                module = lib.resnet_v1 if net.version == 1 else lib.resnet_v2
                unit = partial(_unit, module.bottleneck)
                blocks = [lib.resnet_utils.Block(scope, unit, args) for scope, args in net.rated_blocks()]
                self.net, end_points = getattr(module, f"resnet_v{net.version}")(
                    self.images,
                    blocks,
                    net.num_classes,
                    is_training=net.is_training,
                    global_pool=net.global_pool,
                    output_stride=net.output_stride,
                    include_root_block=net.include_root_block,
                    scope=net.scope,
                )
        self.slim_end_points = list(end_points)
        self.end_points = self._with_extras(end_points, net.scope)
        self.variables = {v.op.name: v for v in self.graph.get_collection(lib.tf.GraphKeys.GLOBAL_VARIABLES)}
        self.shapes = {name: tuple(v.shape.as_list()) for name, v in self.variables.items()}

    def _with_extras(self, end_points: Mapping[str, Any], scope: str) -> OrderedDict[str, Any]:
        """Interleave the activations that tf_slim does not collect, in the order of the graph's operations."""
        position = {op.name: i for i, op in enumerate(self.graph.get_operations())}
        suffixes = {"/preact/Relu": "/Relu", "/postnorm/Relu": "/Relu"}
        found = list(end_points.items())
        for name in position:
            for ending, cut in suffixes.items():
                if name.endswith(ending):
                    found.append((name.removesuffix(cut), self.graph.get_tensor_by_name(f"{name}:0")))
        for name, op in ((f"{scope}/pool1", f"{scope}/pool1/MaxPool"), (f"{scope}/pool5", f"{scope}/pool5")):
            if op in position:
                found.append((name, self.graph.get_tensor_by_name(f"{op}:0")))
        return OrderedDict(sorted(found, key=lambda item: position[item[1].op.name]))

    def run(self, variables: Mapping[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The net and the end points, those that tf_slim lacks among them, in network order.

        One thread, because TensorFlow's bits change with the number of threads.
        """
        lib = tf_slim()
        assert {name: a.shape for name, a in variables.items()} == self.shapes
        tf = lib.tf
        config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1, device_count={"GPU": 0})
        with quiet(), tf.Session(graph=self.graph, config=config) as session:
            assign = [v.initializer for v in self.variables.values()]
            session.run(assign, {v.initial_value: variables[name] for name, v in self.variables.items()})
            results: tuple[np.ndarray, dict[str, np.ndarray]] = session.run(
                (self.net, self.end_points), {self.images: images}
            )
        return results


def run_slim(
    net: Net, variables: Mapping[str, np.ndarray], images: np.ndarray, dtype: str = "float32"
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Build the network in a fresh graph, run it and return the net and the end points."""
    return Slim(net, images.shape, dtype).run(variables, images)


def slim_variables(net: Net, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the variables that tf_slim creates, in its order."""
    return Slim(net, shape).shapes


def draw_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Weights of sensible sizes for the variables of a network, float32.

    They are drawn from the variables' shapes alone, so that the oracle shares no generator with refnet.
    Kernels are scaled as He et al. do; those of conv3 to a third of that, so that the sum over many units stays of the
    size that the batch norms' statistics suppose.
    """
    rng = np.random.default_rng(seed)

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = name.rsplit("/", 1)[1]
        noise = np.asarray(rng.standard_normal(shape))
        match kind:
            case "weights":
                he = np.sqrt(2 / np.prod(shape[:-1]))
                return np.asarray(noise * he * (1 / 3 if name.endswith("conv3/weights") else 1))
            case "gamma":
                return 1 + 0.2 * noise
            case "moving_variance":
                return np.asarray(rng.uniform(0.5, 2, shape))
        return 0.2 * noise

    return {name: one(name, shape).astype(np.float32) for name, shape in shapes.items()}
