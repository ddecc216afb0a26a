"""The network as a list of operations with one value each, as TF-Slim's functions build it.

Nothing is computed here: a `Tensor` knows its shape and where it comes from. `refnet.graph.fuse` turns the list into
steps for the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import MOST, check_bool, check_choice, check_mapping, check_number, check_text, listed
from refnet.errors import ConfigError, InputError, MissingTensorError, ShapeMismatchError, WeightsError
from refnet.graph.nearest import nearest
from refnet_kernels.contract import (
    ConvGeometry,
    Geometry,
    GroupNormGeometry,
    ImageGeometry,
    NormGeometry,
    PoolGeometry,
    SubsampleGeometry,
    border_padding,
    same_padding,
    valid_padding,
)

Shape = tuple[int, int, int, int]

#: The groups of a group norm, as in the paper, in ``slim.group_norm`` and in every network that was released with it.
GROUPS = 32

# The most problems that one error lists.
_LISTED = 20


class ArgScope(NamedTuple):
    """The options of TF-Slim's ``resnet_arg_scope``, and ``is_training``.

    Where the variables themselves show what a convolution has, they decide: biases without a batch norm are those of a
    batch norm that was folded into the kernel, and biases beside one are added before it. ``GroupNorm`` in place of
    ``BatchNorm`` is group norm.

    Attributes
    ----------
    is_training : bool
        Whether batch norm uses the batch's own mean and biased variance, not the moving ones.
    batch_norm_epsilon : float
        Added to the variance, in group norm too.
    batch_norm_scale : bool
        Whether batch norm multiplies by gamma, and group norm too.
    activation_fn : {"relu", None}
        The activation after conv1 and conv2 of each unit, and in the first version's root; all other ReLUs are always
        there.
    use_batch_norm : bool
        False: the convolutions that would have a batch norm (conv1 and conv2 of each unit; in the first version all
        except the logits) have biases instead.
    pool_mode : {"slim", "keras", "torch", "valid"}
        pool1's padding: TF-Slim's "SAME", which never wins; Keras Applications' border of one zero on each side,
        which wins if everything else is negative; PyTorch's border of one on each side, which never wins; or none,
        TensorFlow's "VALID".
    avg_down : bool
        Whether the shortcut of a unit that strides is the 1x1 convolution of a 2x2 average pool, as in ResNet-D (He et
        al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2019).
    bias_before_batch_norm : bool, optional
        Whether convolutions with batch norm have biases too, as in Keras Applications' first version. None: each
        convolution as the variables show it.

    Examples
    --------
    >>> import refnet
    >>> options = refnet.resnet_arg_scope(batch_norm_epsilon=1e-3)
    >>> options.batch_norm_epsilon, options.pool_mode
    (0.001, 'slim')
    """

    is_training: bool = False
    batch_norm_epsilon: float = 1e-5
    batch_norm_scale: bool = True
    activation_fn: str | None = "relu"
    use_batch_norm: bool = True
    pool_mode: str = "slim"
    avg_down: bool = False
    bias_before_batch_norm: bool | None = None


_OF_BATCH_NORM = ("beta", "gamma", "moving_mean", "moving_variance")
_BOOLEANS = tuple(name for name, value in ArgScope._field_defaults.items() if isinstance(value, bool))
#: What `ArgScope`'s fields can be that are chosen from some.
POOL_MODES = ("slim", "keras", "torch", "valid")
ACTIVATIONS = (None, "relu")


@dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """A value of the network: NHWC, or [N, classes] after the squeeze.

    ``geometry`` is that of its operation. ``variables`` maps the roles of the weights that the operation reads
    (``weights``, ``biases``, ``gamma``, ...) to their names.
    """

    graph: Graph
    index: int
    op: str
    inputs: tuple[Tensor, ...]
    shape: tuple[int, ...]
    geometry: Geometry
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Number of channels."""
        return self.shape[-1]

    def __repr__(self) -> str:
        names = [name for name, tensor in self.graph.end_points.items() if tensor is self]
        read = next(iter(self.variables.values()), "")
        of = f" {names[0]}" if names else f" of {read}" if read else ""
        return f"<Tensor{of}: {self.op}, shape {list(self.shape)}>"


class Graph:
    """Operations in the order of their creation, and the variables that they read.

    Parameters
    ----------
    variables : mapping of str to array
        Every weight, by TF-Slim's name.
    arg_scope : ArgScope
    """

    def __init__(self, variables: Mapping[str, Any], arg_scope: ArgScope | None = None) -> None:
        self.variables = variables
        self.arg_scope = arg_scope or ArgScope()
        check_mapping(variables=variables)
        check_bool(**{name: getattr(self.arg_scope, name) for name in _BOOLEANS})
        if self.arg_scope.bias_before_batch_norm is not None:
            check_bool(bias_before_batch_norm=self.arg_scope.bias_before_batch_norm)
        check_number(batch_norm_epsilon=self.arg_scope.batch_norm_epsilon)
        check_choice("pool_mode", self.arg_scope.pool_mode, POOL_MODES)
        check_choice("activation_fn", self.arg_scope.activation_fn, ACTIVATIONS)
        self.tensors: list[Tensor] = []
        self.end_points: dict[str, Tensor] = {}
        #: Every problem with the variables, so that one error lists them all.
        self.missing: list[tuple[str, tuple[int, ...]]] = []
        self.misshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self.used: set[str] = set()
        #: The convolutions with biases in place of TF-Slim's batch norm.
        self.folded: list[str] = []
        #: Whether there are group norms: then a norm without moving statistics is one.
        self.grouped = any(isinstance(name, str) and "/GroupNorm/" in f"/{name}" for name in variables)
        self._scopes: list[str] = []

    def __repr__(self) -> str:
        return (
            f"<Graph of {len(self.tensors)} operations, {len(self.end_points)} end points, {len(self.used)} variables>"
        )

    @contextmanager
    def variable_scope(self, name: str | None) -> Iterator[str]:
        """Put ``name`` before the names of the variables and end points made inside, as in TensorFlow."""
        if name is not None:
            check_text(scope=name)
        self._scopes.append(name or "")
        try:
            yield self.name()
        finally:
            self._scopes.pop()

    def name(self, leaf: str = "") -> str:
        """The full name of ``leaf`` in the current scope."""
        return "/".join(part for part in (*self._scopes, leaf) if part)

    def collect(self, name: str, tensor: Tensor) -> Tensor:
        """Make ``tensor`` the end point ``name``."""
        self.end_points[name] = tensor
        return tensor

    def has(self, leaf: str) -> bool:
        """Whether there is a variable ``leaf`` in the current scope."""
        return self.name(leaf) in self.variables

    def depth_of(self, leaf: str, otherwise: int) -> int:
        """The output channels of the kernel ``leaf`` in the current scope, if there is one."""
        shape: tuple[int, ...] = np.shape(self.variables[self.name(leaf)]) if self.has(leaf) else ()
        return shape[3] if len(shape) == 4 and shape[3] > 0 else otherwise

    def has_batch_norm(self, scope: str) -> bool:
        """Whether there is any variable of a batch norm in ``scope``."""
        return any(self.has(f"{scope}/{role}") for role in _OF_BATCH_NORM)

    def has_group_norm(self, scope: str) -> bool:
        """Whether the variables in ``scope`` are those of a group norm: gamma or beta, without moving statistics.

        A batch norm of which only the moving statistics are missing looks the same. So in a network without any
        ``GroupNorm`` there is none.
        """
        if not self.grouped:
            return False
        moving = any(self.has(f"{scope}/{role}") for role in ("moving_mean", "moving_variance"))
        return not moving and any(self.has(f"{scope}/{role}") for role in ("beta", "gamma"))

    def variable(self, leaf: str, shape: tuple[int, ...]) -> str:
        """Note that the network reads the variable, and check its shape. Returns its full name."""
        name = self.name(leaf)
        self.used.add(name)
        if name not in self.variables:
            self.missing.append((name, shape))
        elif (found := _shape_of(name, self.variables[name])) != shape:
            self.misshaped.append((name, shape, found))
        return name

    def check_variables(self) -> None:
        """Raise one error that lists every variable that is missing or has another shape.

        Raises
        ------
        MissingTensorError, ShapeMismatchError
        """
        if self.missing:
            raise self._missing_error()
        if self.misshaped:
            name, expected, found = self.misshaped[0]
            lines = [_shape_line(*entry) for entry in self.misshaped]
            raise ShapeMismatchError("; ".join(lines) + ".", tensor=name, expected=expected, found=found)

    def _missing_error(self) -> MissingTensorError:
        near = self.nearest(self.missing[:_LISTED])
        lines = [
            f"{name} {shape}" + (f" (is it {near[name]}?)" if name in near else "") for name, shape in self.missing
        ]
        text = f"The weights lack {len(self.missing)} of the network's tensors: {listed(lines, _LISTED)}."
        if self.misshaped:
            text += " Also: " + "; ".join(_shape_line(*entry) for entry in self.misshaped[:_LISTED]) + "."
        return MissingTensorError(text, tensor=self.missing[0][0], expected=self.missing[0][1])

    def nearest(self, missing: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
        """For each missing variable, the unused tensor of its shape with the most similar name, if there is one.

        Each unused tensor is proposed once.
        """
        left = {name: _shape_of(name, value) for name, value in self.variables.items() if name not in self.used}
        return nearest(missing, left)

    def _add(
        self,
        op: str,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        geometry: Geometry | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Tensor:
        """Append an operation; by default its geometry is the shape of its first input, or its own."""
        geometry = geometry or ImageGeometry.of(inputs[0].shape if inputs else shape)
        _check_geometry(geometry)
        tensor = Tensor(self, len(self.tensors), op, inputs, shape, geometry, variables or {})
        self.tensors.append(tensor)
        return tensor

    def placeholder(self, shape: tuple[int, ...]) -> Tensor:
        """The input: images, or the output of another network."""
        return self._add("input", (), shape)

    def conv(
        self, inputs: Tensor, num_outputs: int, kernel_size: tuple[int, int], stride: int, rate: int, same: bool
    ) -> Tensor:
        """Convolve, without bias; TensorFlow's "SAME" if ``same``, else `conv2d_same`'s pads, then "VALID".

        The weights are the current scope's ``weights``, [height, width, channels, num_outputs].
        """
        kernel = (*kernel_size, inputs.depth, num_outputs)
        geometry = (ConvGeometry.tensorflow_same if same else ConvGeometry.same)(inputs.shape, kernel, stride, rate)
        weights = self.variable("weights", kernel)
        shape = (geometry.batch, geometry.out_height, geometry.out_width, num_outputs)
        return self._add("conv", (inputs,), shape, geometry, {"weights": weights})

    def bias_add(self, inputs: Tensor) -> Tensor:
        """Add the current scope's ``biases``."""
        biases = self.variable("biases", (inputs.depth,))
        return self._add("bias_add", (inputs,), inputs.shape, variables={"biases": biases})

    def batch_norm(self, inputs: Tensor, scope: str) -> Tensor:
        """Normalise by the moving statistics in ``scope``, or when training by the batch's own."""
        roles = ["beta"]
        if self.arg_scope.batch_norm_scale:
            roles.append("gamma")
        if not self.arg_scope.is_training:
            roles += ["moving_mean", "moving_variance"]
        with self.variable_scope(scope):
            variables = {role: self.variable(role, (inputs.depth,)) for role in roles}
        op = "batch_norm_training" if self.arg_scope.is_training else "batch_norm"
        geometry = NormGeometry.of(inputs.shape, self.arg_scope.batch_norm_epsilon)
        return self._add(op, (inputs,), inputs.shape, geometry, variables)

    def group_norm(self, inputs: Tensor, scope: str, groups: int = GROUPS) -> Tensor:
        """Normalise each image by itself, in groups of neighbouring channels, with ``gamma`` and ``beta`` in ``scope``.

        Raises
        ------
        ConfigError
            The channels cannot be divided into so many groups of the same size.
        """
        channels = inputs.depth
        if not channels or channels % groups:
            raise ConfigError(
                f"{self.name(scope)} is a group norm of {channels} channels, which cannot be divided into {groups} "
                f"groups of the same size: the layer before it needs a multiple of {groups} channels.",
                expected=groups, found=channels,
            )  # fmt: skip
        roles = ["beta", "gamma"] if self.arg_scope.batch_norm_scale else ["beta"]
        with self.variable_scope(scope):
            variables = {role: self.variable(role, (channels,)) for role in roles}
        geometry = GroupNormGeometry.of(inputs.shape, groups, self.arg_scope.batch_norm_epsilon)
        return self._add("group_norm", (inputs,), inputs.shape, geometry, variables)

    def relu(self, inputs: Tensor) -> Tensor:
        """``0 if x < 0 else x``."""
        return self._add("relu", (inputs,), inputs.shape)

    def subsample(self, inputs: Tensor, factor: int) -> Tensor:
        """``x[:, ::factor, ::factor, :]``."""
        batch, *_, channels = inputs.shape
        geometry = SubsampleGeometry.of(inputs.shape, factor)
        return self._add("subsample", (inputs,), (batch, geometry.out_height, geometry.out_width, channels), geometry)

    def add(self, shortcut: Tensor, residual: Tensor) -> Tensor:
        """``shortcut + residual``."""
        if shortcut.shape != residual.shape:
            raise ConfigError(f"A shortcut of shape {shortcut.shape} cannot be added to one of {residual.shape}.")
        return self._add("residual", (shortcut, residual), residual.shape)

    def max_pool(self, inputs: Tensor, window: int, stride: int) -> Tensor:
        """Max pool with the arg scope's ``pool_mode``."""
        mode = self.arg_scope.pool_mode
        padding = {"slim": same_padding, "valid": valid_padding}.get(mode, border_padding)
        geometry = PoolGeometry.padded(inputs.shape, window, stride, padding, int(mode == "keras"))
        shape = (geometry.batch, geometry.out_height, geometry.out_width, geometry.channels)
        if geometry.out_height < 1 or geometry.out_width < 1:
            raise InputError(
                f"A max pool of {window} x {window} without padding (pool_mode='valid') has no place in "
                f"{geometry.height} x {geometry.width} pixels: pass larger images.",
                found=inputs.shape,
            )
        return self._add("max_pool", (inputs,), shape, geometry)

    def avg_pool(self, inputs: Tensor, window: int, stride: int) -> Tensor:
        """The mean of each window that begins inside the image; the last windows end with the image."""
        batch, height, width, channels = inputs.shape
        shape = (batch, -(-height // stride), -(-width // stride), channels)
        geometry = PoolGeometry(batch, height, width, channels, *shape[1:3], window, stride, 0, 0)
        return self._add("avg_pool", (inputs,), shape, geometry)

    def reduce_mean(self, inputs: Tensor) -> Tensor:
        """The mean over height and width, both kept as 1."""
        batch, _, _, channels = inputs.shape
        return self._add("mean", (inputs,), (batch, 1, 1, channels))

    def softmax(self, inputs: Tensor) -> Tensor:
        """Softmax over the last axis."""
        return self._add("softmax", (inputs,), inputs.shape)

    def squeeze(self, inputs: Tensor) -> Tensor:
        """Drop height and width, which are 1."""
        return self._add("squeeze", (inputs,), (inputs.shape[0], inputs.shape[3]))


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError as error:
        raise WeightsError(f"{name} cannot be read as an array: {error}", tensor=name) from error


def _check_geometry(geometry: Geometry) -> None:
    """Refuse numbers whose products kernels cannot hold in 64 bits: rates and strides multiply along a network."""
    largest = max(value for value in geometry if isinstance(value, int))
    if largest > MOST:
        raise ConfigError(
            f"A layer would have the stride, rate or size {largest:,}; it can be up to {MOST:,}.", found=largest
        )


def _shape_line(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    line = f"{name} should have shape {expected}, but has {found}"
    if len(found) == 4 and (found[2], found[3], found[1], found[0]) == expected:
        line += " (an OIHW kernel; transpose it to HWIO)"
    if name.endswith("logits/biases") and len(found) == 1 and abs(expected[0] - found[0]) == 1:
        line += " (one class more or less: is there a background class?)"
    return line
