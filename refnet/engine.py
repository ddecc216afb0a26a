"""Run a network on images: check them once, plan once per shape, run the plan."""

from __future__ import annotations

import os
import re
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from refnet.checks import as_int, check_positive, names_of, shape_of
from refnet.errors import ConfigError, InputError, RefnetWarning, WeightsError
from refnet.graph.fuse import make_plan
from refnet.graph.graph import ArgScope, Graph, Tensor
from refnet.images import doubts
from refnet.images.preprocess import Recipe, is_raw_list, preprocessing
from refnet.network.architecture import Architecture, infer_architecture
from refnet.network.names import full_names
from refnet.network.options import KEYWORDS, Options
from refnet.network.resnet_utils import Block
from refnet.resources import for_images, for_weights, is_want
from refnet.run.backends import Executor
from refnet.run.constants import Constants
from refnet.run.devices import check_dtype, check_stream, check_threads, device_named
from refnet.run.inputs import as_array, check_floats, converted
from refnet.signatures import shows
from refnet.summary import Summary, summary_of
from refnet.weights.files import weights_of
from refnet.weights.weights import Weights
from refnet_kernels.contract import FloatArray
from refnet_kernels.system.forks import Lock

#: Plans that an engine keeps; the least recently used one makes room.
KEPT_PLANS = 8
#: Engines that `forward` keeps, with their packed weights; the least recently used one makes room.
KEPT_ENGINES = 4
#: What to do, by the number of channels that images have, and by the number that the network takes.
_GREY_HINTS = {
    (3, 1): " Read files as grey, by refnet.load_image(path, channels=1).",
    (1, 3): " To take grey images as coloured ones, repeat the channel: numpy.repeat(images, 3, axis=-1).",
}


class _Compiled(NamedTuple):
    """A plan that is ready to run, and the names of its end points."""

    executor: Executor
    names: list[str]


class Engine:
    """A ResNet with its weights, ready to run on images of any size.

    Safe to call from several threads at once; the calls of one shape wait for each other.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
    **options
        The fields of `refnet.network.options.Options`, which explains them.

    Raises
    ------
    WeightsError
        The weights cannot be used.
    ConfigError
        An option has a value that it cannot have, or that does not fit the weights.
    DeviceError
        The device is missing.

    Notes
    -----
    A pickle or a copy of an engine holds its weights, or the path that it was given, and its options. The engine is
    built again from these, with the threads of the process that loads it.

    Examples
    --------
    With the files that ``refnet demo --save play`` writes:

    >>> import refnet
    >>> engine = refnet.Engine("digits.ckpt", threads=2)
    >>> engine.architecture
    <Architecture of resnet_v2_digits: 6 units in 3 blocks, 10 classes>
    >>> engine.num_classes, engine.options.batch_norm_epsilon
    (10, 1e-05)
    >>> image = refnet.load_image("digit3.png")
    >>> int(engine(image).argmax())
    3
    >>> logits, end_points = engine([image, image], end_points=["predictions"])
    >>> logits.shape, end_points["predictions"].shape
    ((2, 10), (2, 10))
    """

    @for_weights
    @shows(KEYWORDS)
    def __init__(self, weights: Mapping[str, Any] | str | os.PathLike[str], **options: Any) -> None:
        self._given = Options(**options)
        loaded = weights_of(weights, self._given.scope)
        # A plain mapping has no recipe for raw pixels.
        self._recipe: Recipe | None = loaded.recipe
        #: What a copy of this engine is made from.
        self._source: Mapping[str, Any] | str = loaded
        if own := isinstance(weights, str | os.PathLike):
            self._source = os.path.abspath(os.fsdecode(weights))
        elif loaded is not weights:
            self._recipe, self._source = None, dict(loaded)
        self._image_size = loaded.image_size
        self._sizes: set[tuple[int, ...]] = set()
        self._constants = Constants(loaded, owned=own)
        self._options = self._given.resolved(loaded.options)
        if loaded is not weights:
            # Of several networks, these are the weights of the one below the scope, perhaps by other names.
            self._options = replace(self._options, scope=None)
        self._device = device_named(self._options.device)
        self._threads, self._dtype = check_threads(self._options.threads), check_dtype(self._options.dtype)
        self._architecture = _architecture(loaded, self._options)
        # How float images should have been normalised.
        self._mode, self._range = loaded.recipe.mode, doubts.value_range(loaded.recipe)
        self._compiled: OrderedDict[Any, _Compiled] = OrderedDict()
        self._lock = Lock()

    @overload
    def __call__(
        self, images: npt.NDArray[Any], end_points: Literal[False] = False, stream: Any = None
    ) -> FloatArray: ...
    @overload
    def __call__(
        self, images: npt.NDArray[Any], end_points: Literal[True] | Sequence[str], stream: Any = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]: ...
    @overload
    def __call__(self, images: Any, end_points: bool | Sequence[str] = False, stream: Any = None) -> Any: ...
    @for_images
    def __call__(self, images: Any, end_points: bool | Sequence[str] = False, stream: Any = None) -> Any:
        """Run the network.

        Parameters
        ----------
        images : array [H, W, C] or [N, H, W, C], or a list of uint8 arrays [H, W, C]
            Floats are normalised pixels; uint8 are raw ones, and go through the weights' recipe, which makes those of a
            list equally large. With a CUDA engine
            also a C-contiguous float32 array on its device (PyTorch's, CuPy's, Numba's, JAX's: whatever has DLPack or
            ``__cuda_array_interface__``); its values are not checked.
        end_points : bool or sequence of str
            True: every end point; or the names of some, in full or their last parts: "block4", under which they are
            then returned.
        stream : optional
            A CUDA stream to run on: an object with ``__cuda_stream__``, or its handle, an int (PyTorch's
            ``stream.cuda_stream``, CuPy's ``stream.ptr``). None: the device's own stream, which keeps the order of the
            legacy default stream.

        Returns
        -------
        net : float array
            Logits [classes] or [N, classes]; dense logits [.., h, w, classes]; or features [.., h, w, channels].
            A NumPy array, complete when the call returns. For images on a CUDA device, a
            `refnet_kernels.gpu.arrays.DeviceArray` there, which other libraries take without a copy: the call returns
            once all work is on the stream, and readers wait by the protocols' own rules.
        end_points : dict of str to float array
            If asked for, in network order.

        Raises
        ------
        InputError
            The images cannot be used.
        WeightsError
            Tensors are missing or have other shapes; the message lists them all.
        ConfigError
            The engine's device has no streams, ``stream`` is not a stream, or there is no such end point.
        DeviceError
            The device's memory is too small, or the device failed.
        """
        on = None if stream is None else check_stream(stream, self._options.device)
        single, shape, batch_of, normalised = self._gate(images, on)
        # Before the images are converted: the plan knows whether there is memory for all.
        compiled = self._compile(shape, names_of(end_points))
        try:
            batch = batch_of()
            outputs, extremes = compiled.executor.run(batch, on)
        except MemoryError:
            # A smaller batch can have the memory of the plans.
            self._compiled.clear()
            raise
        if normalised and extremes is not None:
            doubt = doubts.pixels(batch, *extremes, self._mode, self._range)
            if doubt:
                # The decorator stands between this and the caller.
                warnings.warn(doubt, RefnetWarning, stacklevel=3)
        net, *values = [value.reshape(value.shape[1:]) for value in outputs] if single else outputs
        if isinstance(end_points, bool | np.bool_) and not end_points:
            return net
        return net, dict(zip(compiled.names, values, strict=True))

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if there are no logits."""
        return self._architecture.num_classes

    @property
    def options(self) -> Options:
        """The options, with the weights' values for those that the caller left open."""
        return self._options

    @property
    def architecture(self) -> Architecture:
        """The architecture of the network, with what the options change."""
        return self._architecture

    @for_images
    def prepared(self, shape: Sequence[int], end_points: bool | Sequence[str] = False) -> Executor:
        """Plan for images of a shape, and compile what they need, before the first of them comes.

        Parameters
        ----------
        shape : sequence of int
            [H, W, C] or [N, H, W, C].
        end_points : bool or sequence of str
            As for a call.

        Returns
        -------
        Executor
            It runs such images; calls with such images use it by themselves.

        Raises
        ------
        InputError, WeightsError, ConfigError, DeviceError
            As a call raises them.

        Examples
        --------
        >>> import refnet
        >>> engine = refnet.Engine("digits.ckpt")
        >>> executor = engine.prepared((16, 32, 32, 3))  # takes a while; the first 16 images then do not
        """
        return self._compile(self._batch_shape(shape), names_of(end_points)).executor

    def summary(self, size: int = 224) -> Summary:
        """The layers of the network.

        Parameters
        ----------
        size : int
            Height and width of the images.

        Returns
        -------
        Summary
            ``print`` shows it as a table, and so does a notebook.

        Raises
        ------
        InputError, WeightsError, ConfigError
            As a call raises them.

        Examples
        --------
        >>> import refnet
        >>> print(refnet.Engine("digits.ckpt").summary(32))
        layer                          operation       output    parameters  connected to
        input                          input           32x32x3            0
        conv1                          conv 7x7/2      16x16x64       9,472  input
        ...
        trainable parameters: 68,586 (0.26 MiB)
        non-trainable parameters: 1,472 (0.01 MiB)
        """
        size = as_int(size)
        check_positive(size=size)
        net, _ = self.trace((1, size, size, self._architecture.channels))
        return summary_of(net.graph, self._architecture)

    def __repr__(self) -> str:
        o, classes = self._options, self.num_classes
        head = "features" if classes is None else f"{classes} classes"
        return (
            f"<Engine of {self._architecture.scope}: {head}, device {o.device}, {self._threads} "
            f"thread{'s' * (self._threads != 1)}, {self._dtype}>"
        )

    def __reduce__(self) -> Any:
        return _remade, (type(self), self._source, vars(self._given))

    def _gate(self, images: Any, stream: Any) -> tuple[bool, tuple[int, ...], Callable[[], Any], bool]:
        """Check the images that a caller passed.

        Returns
        -------
        single : bool
            Whether this is one image, without a batch axis.
        shape : tuple of int
            [N, H, W, C].
        batch_of : callable
            Gives the array of this shape, in the engine's dtype.
        normalised : bool
            Whether the caller passed the pixels as normalised, so that their range is worth a check.
        """
        memory = self._device.backend.memory
        if memory is not None and memory.accepts(images):
            view = memory.images(images, self._device.number, stream)
            single = self._is_single(view.shape)
            self._check_size(view.shape[-3:-1])
            batch = view.batch()
            return single, batch.shape, lambda: batch, False
        if is_raw_list(images):
            for image in images:
                self._is_single(image.shape)
            batch, single, raw = images, False, True
        else:
            array = as_array(images)
            single = self._is_single(array.shape)
            batch, raw = array[None] if single else array, array.dtype == np.uint8
        if raw:
            if self._recipe is None:
                raise InputError(
                    "uint8 images are raw pixels, but these weights have no recipe for them: "
                    "use load_weights, or pass normalised floats."
                )
            shape, normalise = preprocessing(batch, self._recipe, self._architecture.channels)
            self._check_size(shape[1:3])
            return single, shape, lambda: normalise().astype(self._dtype, copy=False), False
        self._check_size(check_floats(batch).shape[1:3])
        return single, batch.shape, lambda: converted(batch, self._dtype), self._options.include_root_block

    def _check_size(self, size: tuple[int, ...]) -> None:
        """Warn, once per size, about images of a size on which the classifier was not trained."""
        options = self._options
        classifies = self._architecture.num_classes is not None and options.global_pool
        if not classifies or not options.include_root_block or options.output_stride is not None:
            return
        doubt = doubts.size(size, self._image_size)
        if doubt and size not in self._sizes:
            self._sizes.add(size)
            warnings.warn(doubt, RefnetWarning, stacklevel=5)

    def _is_single(self, shape: tuple[int, ...]) -> bool:
        """Whether this is the shape of one image, without a batch axis; it is checked."""
        channels = self._architecture.channels
        if len(shape) not in (3, 4):
            raise InputError(
                f"The images have shape {shape}; it can be [H, W, {channels}] or [N, H, W, {channels}].",
                found=shape,
            )
        if shape[-1] != channels:
            hint = " It looks like CHW: move the channels to the end." if shape[-3] == channels else ""
            hint = hint or _GREY_HINTS.get((shape[-1], channels), "")
            raise InputError(
                f"Images of shape {shape} have {shape[-1]} channels; the network takes {channels}.{hint}",
                expected=channels,
                found=shape[-1],
            )
        if 0 in shape[-3:-1]:
            raise InputError(f"Images of shape {shape} have no pixels.", found=shape)
        return len(shape) == 3

    def _batch_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with the axis of the batch; it is checked."""
        sizes = shape_of(shape)
        return (1, *sizes) if self._is_single(sizes) else sizes

    def _compile(self, shape: tuple[int, ...], wanted: bool | tuple[str, ...]) -> _Compiled:
        key = (shape, wanted)
        with self._lock.held():
            if key not in self._compiled:
                made = self._made_if_it_fits(shape, wanted) if self._compiled else None
                self._compiled[key] = made or self._make(shape, wanted)
                while len(self._compiled) > KEPT_PLANS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _made_if_it_fits(self, shape: tuple[int, ...], wanted: bool | tuple[str, ...]) -> _Compiled | None:
        """The plan; or None, and the others are gone, whose memory may be what is missing."""
        try:
            return self._make(shape, wanted)
        except Exception as error:
            if not (isinstance(error, InputError) or is_want(error)):
                raise
            self._compiled.clear()
            return None

    def trace(self, shape: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The network as operations.

        Parameters
        ----------
        shape : sequence of int
            Shape of the images, [H, W, C] or [N, H, W, C].

        Returns
        -------
        net : Tensor
        end_points : dict of str to Tensor
            In network order.

        Raises
        ------
        InputError
            Images cannot have this shape.
        WeightsError
            Tensors are missing or have other shapes; the message lists them all.

        Examples
        --------
        >>> import refnet
        >>> net, end_points = refnet.Engine("digits.ckpt").trace((1, 32, 32, 3))
        >>> end_points["resnet_v2_digits/pool1"]
        <Tensor resnet_v2_digits/pool1: max_pool, shape [1, 8, 8, 64]>
        """
        return self._trace(shape, Graph)

    def _trace(
        self, shape: Sequence[int], make: Callable[[Mapping[str, Any], ArgScope | None], Graph]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `trace`; ``make`` makes the graph to which the network's functions add their operations."""
        options, batch = self._options, shape_of(shape)
        # Of a batch the weights show whether it fits.
        batch = batch if len(batch) == 4 else self._batch_shape(batch)
        traced = self._architecture.trace(self._constants.shapes, batch, options.arg_scope, make, **options.of_network)
        traced[0].graph.check_variables()
        return traced

    def _make(self, shape: tuple[int, ...], wanted: bool | tuple[str, ...]) -> _Compiled:
        net, end_points = self.trace(shape)
        names = list(end_points) if wanted is True else list(wanted or ())
        full = names if wanted is True else full_names(names, list(end_points), "end point")
        outputs = [net, *(end_points[name] for name in full)]
        plan = make_plan(net.graph, outputs)
        executor = self._device.executor(plan, self._constants, self._threads, self._dtype, self._options.zeros)
        return _Compiled(executor, names)


@overload
def forward(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: npt.NDArray[Any],
    *,
    end_points: Literal[False] = False,
    stream: Any = None,
    **options: Any,
) -> FloatArray: ...
@overload
def forward(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: npt.NDArray[Any],
    *,
    end_points: Literal[True] | Sequence[str],
    stream: Any = None,
    **options: Any,
) -> tuple[FloatArray, dict[str, FloatArray]]: ...
@overload
def forward(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: Any,
    *,
    end_points: bool | Sequence[str] = False,
    stream: Any = None,
    **options: Any,
) -> Any: ...
@shows(KEYWORDS)
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
        With `Weights`, the engine is kept for the next call; a plain mapping may change between calls, so its
        engine is built again each time.
    images : array [H, W, C] or [N, H, W, C], or a list of uint8 arrays [H, W, C]
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

    Raises
    ------
    WeightsError, InputError, ConfigError, DeviceError
        As `Engine` and its calls raise them.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> logits = refnet.forward("digits.ckpt", image)
    >>> logits.shape, int(logits.argmax())
    ((10,), 3)
    >>> net, end_points = refnet.forward("digits.ckpt", image, end_points=True, num_classes=None, global_pool=False)
    >>> net.shape, end_points["resnet_v2_digits/block1"].shape
    ((2, 2, 128), (4, 4, 32))
    """
    if not isinstance(weights, Weights):
        return Engine(weights, **options)(images, end_points, stream)
    return _engines.engine_of(weights, options)(images, end_points, stream)


#: Engines with options of more values are made anew: a range can be longer than any memory.
_LONGEST_SPELLED = 1000
#: Options, each with all that its value consists of.
Spelling = tuple[tuple[str, str], ...]


def _spelling(options: Mapping[str, Any]) -> Spelling:
    return tuple(sorted((name, _spelled(value)) for name, value in options.items()))


def _spelled(value: Any) -> str:
    """The value with all its parts, which a block's own line leaves out."""
    if isinstance(value, Block):
        return repr(tuple(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) > _LONGEST_SPELLED:
            raise ConfigError("An option with so many values is not compared.")
        return f"[{', '.join(map(_spelled, value))}]"
    return repr(value)


class _Kept(NamedTuple):
    """An engine with its weights, and its options in each spelling in which they were passed."""

    weights: weakref.ref[Weights]
    options: Spelling
    spellings: set[Spelling]
    engine: Engine


class _Engines:
    """The engines that `forward` keeps, the last used one at the end. They are dropped with their weights."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._lock = Lock()

    def engine_of(self, weights: Weights, options: Mapping[str, Any]) -> Engine:
        """The engine for these weights, compared by identity, and these options, compared by what they resolve to."""
        try:
            spelling = _spelling(options)
        except Exception:  # a value that cannot be written down is none that an option can have
            return Engine(weights, **options)
        with self._lock.held():
            kept = self._find(weights, options, spelling)
            kept.spellings.add(spelling)
            others = [other for other in self._kept if other is not kept and other.weights() is not None]
            self._kept = [*others, kept][-KEPT_ENGINES:]
            return kept.engine

    def _find(self, weights: Weights, options: Mapping[str, Any], spelling: Spelling) -> _Kept:
        of_weights = [kept for kept in self._kept if kept.weights() is weights]
        for kept in of_weights:
            if spelling in kept.spellings:
                return kept
        resolved = _spelling(vars(Options(**options).resolved(weights.options)))
        for kept in of_weights:
            if kept.options == resolved:
                return kept
        # The engine gets `Weights` of its own with the same arrays, so it does not keep the caller's alive.
        engine = Engine(weights.replace(), **options)
        return _Kept(weakref.ref(weights, self._forget), resolved, set(), engine)

    def _forget(self, weights: weakref.ref[Weights]) -> None:
        # No lock: the garbage collector can call this anywhere, also on the thread that holds it. What that thread then
        # puts back is dropped by the next call, and never found.
        self._kept = [kept for kept in self._kept if kept.weights is not weights]


_engines = _Engines()


def _remade(kind: type[Engine], weights: Mapping[str, Any] | str, options: Mapping[str, Any]) -> Engine:
    return kind(weights, **options)


def _architecture(weights: Weights, options: Options) -> Architecture:
    """The architecture of the weights, with the changes that the options ask for."""
    found = infer_architecture(weights, options.scope, options.stride_place)
    if options.include_root_block and not found.include_root_block:
        raise WeightsError("The weights have no root block (conv1/weights): pass include_root_block=False.")
    channels = found.channels
    if not options.include_root_block and found.include_root_block:
        root = re.compile(re.escape(f"{found.scope}/" if found.scope else "") + r"conv1(_[0-9]+)?/")
        rest = {name: value for name, value in weights.items() if not root.match(name)}
        channels = infer_architecture(rest, options.scope).channels
    classes = found.num_classes if options.num_classes == "from_weights" else options.num_classes
    if classes is not None and classes != found.num_classes:
        raise ConfigError(
            f"num_classes is {classes!r}, but the weights have {found.num_classes}"
            + (" (one of them is a background class)." if {classes, found.num_classes} == {1000, 1001} else "."),
            expected=found.num_classes,
            found=classes,
        )
    blocks = list(options.blocks) if options.blocks else found.blocks
    return found._replace(blocks=blocks, num_classes=classes, channels=channels)
