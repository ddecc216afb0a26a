"""The options of a network and of its run: one record, from which every other list of them is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from numpy.typing import DTypeLike

from refnet.checks import as_int, check_bool, check_choice, check_number, check_positive, check_text
from refnet.graph.graph import ACTIVATIONS, POOL_MODES, ArgScope
from refnet.network.architecture import STRIDE_PLACES
from refnet.network.resnet_utils import Block, check_blocks, check_multi_grid, check_stride
from refnet.network.resnet_v2 import resnet_v2
from refnet.run.devices import check_device, check_dtype, check_threads
from refnet.signatures import keywords_of


def _of_weights(slim: Any, otherwise: Any = ...) -> Any:
    """An option that is stored with the weights, and its value in TF-Slim. None: as stored, else ``otherwise``."""
    return field(default=None, metadata={"slim": slim, "otherwise": slim if otherwise is ... else otherwise})


def _of_run(default: Any) -> Any:
    """An option that changes no bit, so no golden depends on it."""
    return field(default=default, metadata={"run": True})


@dataclass(frozen=True, kw_only=True, eq=False, match_args=False)
class Options:
    """How an `Engine` runs a network.

    Attributes
    ----------
    blocks : sequence of Block, optional
        By default they follow from the weights' names and shapes, with strides by ``stride_place``.
    num_classes : int, None or "from_weights"
        None: features, without logits. A number must agree with the weights.
    is_training : bool
        True: batch norm uses the batch's own statistics, as TF-Slim's *default* does. Here the default is False.
    global_pool, output_stride, include_root_block, spatial_squeeze, store_non_strided_activations, multi_grid
        As `refnet.network.resnet_v2.resnet_v2` explains them.
    batch_norm_epsilon, pool_mode, avg_down, bias_before_batch_norm : optional
        As `refnet.graph.ArgScope` explains them; None: as in the weights' file, else as in TF-Slim, or for
        ``bias_before_batch_norm`` as the variables show it.
    stride_place : {"last_unit", "first_unit", "first_conv"}, optional
        As `refnet.network.architecture.infer_architecture` explains it; None: as for ``pool_mode``.
    batch_norm_scale, activation_fn, use_batch_norm
        As `refnet.graph.ArgScope` explains them.
    scope : str, optional
        Which network, if the weights hold several.
    device : {"cpu", "reference", "cuda", "cuda:1", ...}
        "reference" computes with the NumPy definitions, very slowly, and gives the same bits. CUDA needs
        ``refnet[cuda]`` and an NVIDIA GPU; an error names the one that is missing, and no other device takes over.
    threads : int, optional
        None: one for each core that the process may use: the least of its affinity, of the processor time that a
        container grants it, and, from Python 3.13 on, of ``PYTHON_CPU_COUNT``. The bits do not depend on it.
    zeros : bool
        Whether the CPU may leave out products with zeros, of which a ReLU makes many. False: all products inside the
        image are computed, so that the time does not depend on the image's content. The bits do not depend on it.
    dtype : {"float32", "float64"} or NumPy dtype
        The dtype of the images, the outputs and all values between them. "float64": the same sums in the same order in
        binary64, as the truth for float32 (rule A8); the weights are the same float32 values.

    Examples
    --------
    >>> import refnet
    >>> options = refnet.Engine("digits.ckpt", output_stride=8).options
    >>> options.output_stride, options.batch_norm_epsilon, options.pool_mode
    (8, 1e-05, 'slim')
    """

    blocks: Sequence[Block] | None = None
    num_classes: int | Literal["from_weights"] | None = "from_weights"
    is_training: bool = False
    global_pool: bool = True
    output_stride: float | None = None
    include_root_block: bool = True
    spatial_squeeze: bool | None = None
    store_non_strided_activations: bool = False
    multi_grid: Sequence[int] | None = None
    batch_norm_epsilon: float | None = _of_weights(ArgScope().batch_norm_epsilon)
    pool_mode: str | None = _of_weights(ArgScope().pool_mode)
    avg_down: bool | None = _of_weights(ArgScope().avg_down)
    stride_place: str | None = _of_weights(STRIDE_PLACES[0])
    bias_before_batch_norm: bool | None = _of_weights(slim=False, otherwise=None)
    batch_norm_scale: bool = True
    activation_fn: str | None = "relu"
    use_batch_norm: bool = True
    scope: str | None = None
    device: str = _of_run("cpu")
    threads: int | None = _of_run(None)
    zeros: bool = _of_run(True)
    dtype: DTypeLike = "float32"

    def resolved(self, of_weights: Mapping[str, Any]) -> Options:
        """The same options, checked, with the weights' values for those that the caller left open.

        Parameters
        ----------
        of_weights : mapping of str to Any
            The options that are stored with the weights.

        Returns
        -------
        Options

        Raises
        ------
        ConfigError, DeviceError
            An option has a value that it cannot have, or the device is missing.
        """
        flags = {name: getattr(self, name) for name in BOOLEANS}
        check_bool(**{name: flag for name, flag in flags.items() if flag is not None or name not in _MAY_BE_NONE})
        _check_others(self)
        open_ones = [name for name in SLIM_OPTIONS if getattr(self, name) is None]
        found: dict[str, Any] = {name: bool(flag) for name, flag in flags.items() if flag is not None}
        found |= {name: of_weights.get(name, _OTHERWISE[name]) for name in open_ones}
        epsilon: Any = found.get("batch_norm_epsilon", self.batch_norm_epsilon)
        found["batch_norm_epsilon"] = float(epsilon)
        device = check_device(self.device)
        return replace(
            self,
            **found,
            num_classes=as_int(self.num_classes),
            device=device,
            threads=check_threads(self.threads),
            dtype=check_dtype(self.dtype, device),
        )

    @property
    def arg_scope(self) -> ArgScope:
        """The options of `refnet.graph.ArgScope`."""
        return ArgScope(**{name: getattr(self, name) for name in ArgScope._fields})

    @property
    def of_network(self) -> dict[str, Any]:
        """The options of `refnet.network.resnet_v2.resnet_v2`, except those that the architecture gives."""
        return {name: getattr(self, name) for name in _OF_NETWORK}


#: As keywords of functions that pass them on.
KEYWORDS = keywords_of(Options)
#: The options that are true or false, some of which may also be None.
BOOLEANS = tuple(entry.name for entry in fields(Options) if str(entry.type).startswith("bool"))
_MAY_BE_NONE = frozenset(entry.name for entry in fields(Options) if str(entry.type).endswith("None"))
#: The options that are stored with weights, with their values in TF-Slim.
SLIM_OPTIONS: dict[str, Any] = {
    entry.name: entry.metadata["slim"] for entry in fields(Options) if "slim" in entry.metadata
}
_OTHERWISE = {name: Options.__dataclass_fields__[name].metadata["otherwise"] for name in SLIM_OPTIONS}
#: The options on which the bits may depend.
BIT_OPTIONS = frozenset(entry.name for entry in fields(Options) if "run" not in entry.metadata)
#: The options of the function that makes a network; its scope is the architecture's.
_OF_NETWORK = tuple(
    name
    for name, parameter in inspect.signature(inspect.unwrap(resnet_v2)).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "scope" and name in Options.__dataclass_fields__
)


def check_slim_options(options: Mapping[str, Any]) -> None:
    """Refuse values that options which are stored with weights cannot have.

    Raises
    ------
    ConfigError
    """
    for name, value in options.items():
        if name in BOOLEANS:
            check_bool(**{name: value})
        elif name == "batch_norm_epsilon":
            check_number(batch_norm_epsilon=value)
        else:
            check_choice(name, value, CHOICES[name])


#: Options of texts, with the texts that each can be.
CHOICES = {"pool_mode": POOL_MODES, "stride_place": STRIDE_PLACES}


def _check_others(options: Options) -> None:
    """Refuse values of the options that are neither true nor false, nor of the run."""
    given = {name: getattr(options, name) for name in SLIM_OPTIONS}
    check_slim_options({name: value for name, value in given.items() if value is not None})
    check_choice("activation_fn", options.activation_fn, ACTIVATIONS)
    if options.blocks is not None:
        check_blocks(options.blocks)
    if options.multi_grid is not None:
        check_multi_grid(options.multi_grid)
    if options.scope is not None:
        check_text(scope=options.scope)
    if isinstance(options.num_classes, str):
        check_choice("num_classes", options.num_classes, ("from_weights", None))
    elif options.num_classes is not None:
        check_positive(num_classes=as_int(options.num_classes))
    check_stride(options.output_stride)
