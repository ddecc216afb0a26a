"""The way of an image: check it once, plan once a shape, run."""

from __future__ import annotations

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet.errors import ConfigError, InputError, RefnetWarning, WeightsError
from refnet.graph.fuse import make_plan
from refnet.graph.graph import ArgScope, Graph, Tensor
from refnet.images import doubts
from refnet.images.preprocess import preprocess
from refnet.network.architecture import Architecture, infer_architecture
from refnet.network.networks import resnet_of
from refnet.network.resnet_utils import Block
from refnet.run.constants import Constants
from refnet.run.devices import check_device, check_dtype, check_stream, check_threads
from refnet.run.executor import Executor, make_executor
from refnet.run.inputs import _as_array, _on_cuda, images_of
from refnet.run.variables import as_variables
from refnet.weights.files import load_weights
from refnet.weights.weights import Weights, slim_recipe
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.forks import Lock

#: Plans that an engine keeps; the one used longest ago makes room.
KEPT_PLANS = 8


class _Compiled(NamedTuple):
    """A plan that is ready to run: which outputs it has, and under which names."""

    executor: Executor
    names: list[str]


class Engine:
    """A ResNet with its weights, ready to run on images of any size.

    Safe to call from several threads at once; the calls of one shape wait for each other.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
    blocks : sequence of Block, optional
        By default as the weights' names and shapes have them, with the strides by ``stride_place``.
    num_classes : int, None or "from_weights"
        None: the features, no logits. A number must agree with the weights.
    is_training : bool
        True: batch norm uses the batch's own statistics, as TF-Slim's *default* does. Here the default is False.
    global_pool, output_stride, include_root_block, spatial_squeeze, store_non_strided_activations, multi_grid
        As `refnet.network.resnet_v2.resnet_v2` explains them.
    batch_norm_epsilon, pool_mode, avg_down, bias_before_batch_norm : optional
        As `refnet.graph.graph.ArgScope` explains them; None: what the weights' file says, else TF-Slim's.
    stride_place : {"last_unit", "first_unit"}, optional
        As `refnet.network.architecture.infer_architecture` explains it.
    batch_norm_scale, activation_fn, use_batch_norm
        As `refnet.graph.graph.ArgScope` explains them.
    scope : str, optional
        Which network, if the weights hold several.
    device : {"cpu", "reference", "cuda", "cuda:1", ...}
        "reference" computes by the NumPy definitions, very slowly, and gives the same bits. CUDA needs ``refnet[cuda]``
        and an NVIDIA GPU; where one is missing the error says which, and no other device takes its place.
    threads : int, optional
        None: as many as the process has cores. The bits do not depend on it.
    dtype : {"float32", "float64"} or as NumPy has them
        Of the images, the outputs and all between them. "float64": the same sums in the same order in binary64, the
        truth that float32 is measured against (rule A8); the weights are the float32 ones.

    Raises
    ------
    WeightsError, ConfigError, DeviceError
    """

    def __init__(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str],
        *,
        blocks: Sequence[Block] | None = None,
        num_classes: int | Literal["from_weights"] | None = "from_weights",
        is_training: bool = False,
        global_pool: bool = True,
        output_stride: float | None = None,
        include_root_block: bool = True,
        spatial_squeeze: bool | None = None,
        store_non_strided_activations: bool = False,
        multi_grid: Sequence[int] | None = None,
        batch_norm_epsilon: float | None = None,
        pool_mode: str | None = None,
        avg_down: bool | None = None,
        stride_place: str | None = None,
        bias_before_batch_norm: bool | None = None,
        batch_norm_scale: bool = True,
        activation_fn: str | None = "relu",
        use_batch_norm: bool = True,
        scope: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        self._device = check_device(device)
        self._threads = check_threads(threads)
        self._dtype = check_dtype(dtype, self._device)
        own = isinstance(weights, str | os.PathLike)
        if isinstance(weights, str | os.PathLike):
            weights = load_weights(weights)
        self._recipe = weights.recipe if isinstance(weights, Weights) else None
        self._image_size = weights.image_size if isinstance(weights, Weights) else None
        self._sizes: set[tuple[int, ...]] = set()
        variables: Mapping[str, Float32Array] = (
            weights if isinstance(weights, Weights) else as_variables(weights).arrays
        )
        self._constants = Constants(variables, owned=own or not isinstance(weights, Weights))
        said = {
            "batch_norm_epsilon": batch_norm_epsilon,
            "pool_mode": pool_mode,
            "avg_down": avg_down,
            "bias_before_batch_norm": bias_before_batch_norm,
        }
        options = dict(weights.options) if isinstance(weights, Weights) else {}
        options |= {name: value for name, value in said.items() if value is not None}
        told = options.pop("stride_place", None)
        place = told if stride_place is None else stride_place
        if "batch_norm_epsilon" in options:
            options["batch_norm_epsilon"] = _check_epsilon(options["batch_norm_epsilon"])
        self._arg_scope = ArgScope(is_training, **options)._replace(
            batch_norm_scale=batch_norm_scale, activation_fn=activation_fn, use_batch_norm=use_batch_norm
        )
        self._architecture = _architecture(variables, scope, blocks, num_classes, include_root_block, place)
        self._options: dict[str, Any] = {
            "global_pool": global_pool,
            "output_stride": output_stride,
            "include_root_block": include_root_block,
            "spatial_squeeze": spatial_squeeze,
            "store_non_strided_activations": store_non_strided_activations,
            "multi_grid": multi_grid,
            "root_depths": self._architecture.root_depths,
        }
        # What float images should have been normalised by.
        self._mode = (self._recipe or slim_recipe(variables)).mode
        self._compiled: OrderedDict[Any, _Compiled] = OrderedDict()
        self._lock = Lock()

    def __call__(self, images: Any, end_points: bool | Sequence[str] = False, stream: Any = None) -> Any:
        """Run the network.

        Parameters
        ----------
        images : array [H, W, C] or [N, H, W, C]
            Floats are normalised pixels; uint8 are raw ones, and go through the weights' recipe. With a CUDA engine
            also a C-contiguous float32 array on its device (PyTorch's, CuPy's, Numba's, JAX's: whatever has DLPack or
            ``__cuda_array_interface__``), of whose values nothing is checked.
        end_points : bool or sequence of str
            True: every end point; or the names of some.
        stream : optional
            A CUDA stream to run on: an object with ``__cuda_stream__``, or its handle, an int (PyTorch's
            ``stream.cuda_stream``, CuPy's ``stream.ptr``). None: a stream of the device's own, which keeps the order
            of what is done on the legacy default stream.

        Returns
        -------
        net : float array
            Logits [classes] or [N, classes]; dense logits [.., h, w, classes]; or features [.., h, w, channels].
            In NumPy, and complete. Where the images lie on a CUDA device, a `refnet_kernels.gpu.arrays.DeviceArray`
            there, which other libraries take without a copy: the call returns when all is on the stream, and those
            who read it wait, by the protocols' own rules.
        end_points : dict of str to float array
            If asked for, in network order.

        Raises
        ------
        InputError
            The images cannot be used.
        WeightsError
            Tensors are missing or have other shapes; the message lists them all.
        ConfigError
            The engine's device has no streams, or ``stream`` is none.
        DeviceError
            The device's memory is too small, or the device failed.
        """
        on = None if stream is None else check_stream(stream, self._device)
        single, batch, normalised = self._gate(images, on)
        if isinstance(end_points, str):
            end_points = [end_points]
        wanted = end_points if isinstance(end_points, bool) else tuple(end_points)
        compiled = self._compile(batch.shape, wanted)
        outputs, extremes = compiled.executor.run(batch, on)
        if normalised and extremes is not None:
            doubt = doubts.pixels(batch, *extremes, self._mode)
            if doubt:
                warnings.warn(doubt, RefnetWarning, stacklevel=2)
        net, *values = [value.reshape(value.shape[1:]) for value in outputs] if single else outputs
        if end_points is False:
            return net
        return net, dict(zip(compiled.names, values, strict=True))

    @property
    def num_classes(self) -> int | None:
        """Of the logits; None without them."""
        return self._architecture.num_classes

    def __reduce__(self) -> Any:
        raise TypeError("An Engine holds threads and machine code and cannot be pickled; make one where it is needed.")

    def _gate(self, images: Any, stream: Any) -> tuple[bool, Any, bool]:
        """The images at the edge.

        Returns
        -------
        single : bool
            Whether there was but one, without a batch's axis.
        batch : array [N, H, W, C]
            Of the engine's dtype.
        normalised : bool
            Whether these are pixels that the caller says are normalised, so that it is worth a look.
        """
        if self._device.startswith("cuda") and _on_cuda(images):
            from refnet.run.cuda_images import device_images

            view = device_images(images, self._device, stream)
            single = self._is_single(view)
            self._check_size(view.shape[-3:-1])
            return single, view.batch(), False
        array = _as_array(images)
        single = self._is_single(array)
        raw = array.dtype == np.uint8
        if raw:
            if self._recipe is None:
                raise InputError(
                    "uint8 images are raw pixels, and these weights name no recipe for them: "
                    "use load_weights, or pass normalised floats."
                )
            array = preprocess(array, self._recipe).astype(self._dtype)
        else:
            array = images_of(array, self._dtype)
        self._check_size(array.shape[-3:-1])
        return single, array[None] if single else array, not raw and self._options["include_root_block"]

    def _check_size(self, size: tuple[int, ...]) -> None:
        """Warn, once a size, of images on which a classifier was not trained."""
        options = self._options
        classifies = self._architecture.num_classes is not None and options["global_pool"]
        if not classifies or not options["include_root_block"] or options["output_stride"] is not None:
            return
        doubt = doubts.size(size, self._image_size)
        if doubt and size not in self._sizes:
            self._sizes.add(size)
            warnings.warn(doubt, RefnetWarning, stacklevel=4)

    def _is_single(self, array: Any) -> bool:
        """Whether this is one image, without a batch's axis; its shape is checked."""
        channels = self._architecture.channels
        if array.ndim not in (3, 4):
            raise InputError(
                f"Images have shape [H, W, {channels}] or [N, H, W, {channels}], not {array.shape}.", found=array.shape
            )
        if array.shape[-1] != channels:
            hint = " It looks like CHW: move the channels to the end." if array.shape[-3] == channels else ""
            raise InputError(
                f"Images of shape {array.shape} have {array.shape[-1]} channels; the network takes {channels}.{hint}",
                expected=channels,
                found=array.shape[-1],
            )
        if 0 in array.shape[-3:-1]:
            raise InputError(f"Images of shape {array.shape} have no pixels.", found=array.shape)
        return bool(array.ndim == 3)

    def _compile(self, shape: tuple[int, ...], wanted: bool | tuple[str, ...]) -> _Compiled:
        key = (shape, wanted)
        with self._lock.held():
            if key not in self._compiled:
                self._compiled[key] = self._make(shape, wanted)
                while len(self._compiled) > KEPT_PLANS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def trace(self, shape: tuple[int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """The network as operations, for images [N, H, W, C] of this shape.

        Returns
        -------
        net : Tensor
        end_points : dict of str to Tensor
            In network order.

        Raises
        ------
        WeightsError
            Tensors are missing or have other shapes; the message lists them all.
        """
        graph = Graph(self._constants.shapes, self._arg_scope)
        traced: tuple[Tensor, dict[str, Tensor]] = resnet_of(self._architecture.blocks)(
            graph.placeholder(shape),
            self._architecture.blocks,
            self._architecture.num_classes,
            scope=self._architecture.scope,
            **self._options,
        )
        graph.check_variables()
        return traced

    def _make(self, shape: tuple[int, ...], wanted: bool | tuple[str, ...]) -> _Compiled:
        net, end_points = self.trace(shape)
        names = list(end_points) if wanted is True else list(wanted or ())
        unknown = [name for name in names if name not in end_points]
        if unknown:
            raise ConfigError(f"There is no end point {', '.join(unknown)}; there are {', '.join(end_points)}.")
        outputs = [net, *(end_points[name] for name in names)]
        plan = make_plan(net.graph, outputs)
        executor = make_executor(plan, self._constants, self._device, self._threads, self._dtype)
        return _Compiled(executor, names)


def forward(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: Any,
    *,
    end_points: bool | Sequence[str] = False,
    stream: Any = None,
    **options: Any,
) -> Any:
    """Run a ResNet on images.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
        With `Weights`, the engine is kept for the next call; a plain mapping may change between calls, so that its
        engine is made anew each time.
    images : array [H, W, C] or [N, H, W, C]
        Floats are normalised pixels; uint8 are raw ones, and go through the weights' recipe.
    end_points : bool or sequence of str
        True: also return every end point; or the names of some.
    stream : optional
        A CUDA stream, see `Engine.__call__`.
    **options
        As for `Engine`.

    Returns
    -------
    net, or (net, end_points)
        See `Engine.__call__`.
    """
    if not isinstance(weights, Weights):
        return Engine(weights, **options)(images, end_points, stream)
    key = tuple(sorted((name, repr(value)) for name, value in options.items()))
    with _engines_lock.held():
        if key not in weights.engines:
            weights.engines[key] = Engine(weights, **options)
        engine = weights.engines[key]
    return engine(images, end_points, stream)


_engines_lock = Lock()


def _check_epsilon(epsilon: object) -> float:
    if not isinstance(epsilon, int | float | np.floating) or not 0 <= epsilon < np.inf:
        raise ConfigError(f"batch_norm_epsilon is {epsilon!r}; it is a number of 0 or more.", found=epsilon)
    return float(epsilon)


def _architecture(
    variables: Mapping[str, Any],
    scope: str | None,
    blocks: Sequence[Block] | None,
    num_classes: int | Literal["from_weights"] | None,
    include_root_block: bool,
    stride_place: str | None,
) -> Architecture:
    """What the weights say, and the caller's own word where there is one."""
    found = infer_architecture(variables, scope, stride_place)
    if include_root_block and not found.include_root_block:
        raise WeightsError("The weights have no root block (conv1/weights): pass include_root_block=False.")
    channels = found.channels
    if not include_root_block and found.include_root_block:
        root = re.compile(re.escape(f"{found.scope}/" if found.scope else "") + r"conv1(_\d+)?/")
        rest = {name: value for name, value in variables.items() if not root.match(name)}
        channels = infer_architecture(rest, scope).channels
    classes = found.num_classes if num_classes == "from_weights" else num_classes
    if classes is not None and classes != found.num_classes:
        raise ConfigError(
            f"num_classes is {classes!r}, but the weights have {found.num_classes}"
            + (" (one of them is a background class)." if {classes, found.num_classes} == {1000, 1001} else "."),
            expected=found.num_classes,
            found=classes,
        )
    return found._replace(blocks=list(blocks) if blocks else found.blocks, num_classes=classes, channels=channels)
