"""Goldens: record a network's end points, and check later, on any machine, that they still have the same bits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import check_bool, check_mapping, check_number, listed, names_of, path_of, seed_of, shape_of
from refnet.engine import Engine
from refnet.errors import ConfigError, GoldenError, InputError, WeightsError
from refnet.evidence.digest import digest, digest_all, short_digests
from refnet.evidence.end_points import Difference, compare, in_network_order, roundings
from refnet.evidence.environment import versions
from refnet.evidence.golden_file import MAX_SEEDED, EndPoint, Golden, read_golden, write_golden
from refnet.evidence.seeded import random_images
from refnet.graph.graph import Tensor
from refnet.images.preprocess import Recipe, check_recipe, preprocess
from refnet.network.names import full_names
from refnet.network.networks import BY_UNIT, FAMILIES, NETWORKS, family_of
from refnet.network.options import BIT_OPTIONS, BOOLEANS, KEYWORDS
from refnet.network.resnet_utils import Block, check_blocks
from refnet.resources import for_images
from refnet.run.devices import check_device, check_dtype, check_threads
from refnet.run.inputs import as_array, images_of
from refnet.signatures import shows
from refnet.tables import html_table
from refnet.weights.files import check_stored, weights_of
from refnet.weights.formats.loaded import naming
from refnet.weights.initial import random_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import CONTRACT_VERSION, FloatArray
from refnet_kernels.system.float_mode import contract_mode

__all__ = ["Golden", "Report", "check", "compare_end_points", "read_golden", "record"]

#: The options of `Engine` that belong to a golden: all except those that leave every bit alone.
OPTIONS = BIT_OPTIONS


class Report(NamedTuple):
    """How the end points that were found compare with a golden.

    Attributes
    ----------
    path : str
        The golden.
    rows : list of Difference
        In network order, the net among them.
    max_ulps : float
        How far an end point may be off; 0: not by a bit.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> _ = refnet.golden.record("digit.safetensors", "digits.ckpt", image)
    >>> net, end_points = refnet.forward("digits.ckpt", image, end_points=True)
    >>> report = refnet.golden.compare_end_points("digit.safetensors", {**end_points, "net": net * 2})
    >>> [row.name for row in report.differing]
    ['net']
    >>> print(report)
    1 of 45 end points differ from digit.safetensors; in network order:
      net [10]: 10 of 10 elements differ, most at [3]: expected 8.27..., found 16.55..., ... ULPs of the largest ...
    """

    path: str
    rows: list[Difference]
    max_ulps: float = 0

    @property
    def differing(self) -> list[Difference]:
        """The end points that are further off, in network order: look at the first one."""
        return [row for row in self.rows if not row.same and not self._near(row)]

    def _near(self, row: Difference) -> bool:
        return self.max_ulps > 0 and row.ulps is not None and row.ulps <= self.max_ulps

    def __repr__(self) -> str:
        return f"<Report on {self.path}: {len(self.differing)} of {len(self.rows)} end points differ>"

    def _repr_html_(self) -> str:
        far = {id(row) for row in self.differing}
        rows = [[row.name, "differs" if id(row) in far else "agrees", str(row)] for row in self.rows]
        return html_table(repr(self)[1:-1], ["end point", "verdict", "what was found"], rows)

    def __str__(self) -> str:
        """The verdict, and the first end points that differ."""
        differing, shown = self.differing, 5
        far = f" by more than {self.max_ulps:g} ULPs" if self.max_ulps else ""
        if not differing:
            return f"None of {len(self.rows)} end points differs from {self.path}{far}."
        lines = [f"{len(differing)} of {len(self.rows)} end points differ from {self.path}{far}; in network order:"]
        lines += [f"  {row}" for row in differing[:shown]]
        lines += [f"  and {len(differing) - shown} more"] if len(differing) > shown else []
        return "\n".join(lines)


@shows(KEYWORDS)
@for_images
@contract_mode()
def record(
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: Any,
    *,
    end_points: bool | Sequence[str] = True,
    hashes_only: bool = False,
    store_images: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,
) -> Golden:
    """Run a network and keep its end points in a golden.

    Parameters
    ----------
    path : path
        The file to write, whole or not at all; by convention its name ends in .safetensors.
    weights : Weights, mapping of str to array, path, or the name of a published network
        A name stands for `refnet.random_weights` with ``seed``; then the golden can be checked without a weights file.
    images : array [H, W, C] or [N, H, W, C], or a tuple of these sizes
        As for `Engine`; uint8 images go through the recipe of the weights, which is kept in the golden. A tuple
        stands for `refnet.seeded.random_images` with ``seed``; then the golden can be checked without images.
    end_points : bool or sequence of str
        True: every end point; False: only the net; or the names of some.
    hashes_only : bool
        Keep only the hashes of the end points, not their values: 21 KB for resnet_v2_50. They show whether bits differ,
        but not by how much.
    store_images : bool
        Keep the normalised images too; then the golden can be checked without the images' file.
    recipe : Recipe, optional
        For uint8 images, in place of the weights' own.
    seed : int
    device, threads
        As for `Engine`. The golden does not depend on them.
    **options
        As for `Engine`.

    Returns
    -------
    Golden
        What was written.

    Raises
    ------
    WeightsError, InputError, ConfigError, DeviceError
        As `Engine` raises them.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> golden = refnet.golden.record("digit.safetensors", "digits.ckpt", image, store_images=True)
    >>> refnet.golden.check("digit.safetensors", "digits.ckpt").differing  # the image is in the golden
    []
    """
    path = path_of(path)
    golden, _ = recorded(
        weights, images, end_points=end_points, hashes_only=hashes_only, store_images=store_images, recipe=recipe,
        seed=seed, device=device, threads=threads, **options,
    )  # fmt: skip
    write_golden(path, golden)
    return golden


@for_images
@contract_mode()
def recorded(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    images: Any,
    *,
    end_points: bool | Sequence[str] = True,
    hashes_only: bool = False,
    store_images: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,
) -> tuple[Golden, list[str]]:
    """What `record` writes, and the names of the variables that the network reads, in order."""
    seed, wanted = seed_of(seed), names_of(end_points)
    check_bool(hashes_only=hashes_only, store_images=store_images)
    recipe = None if recipe is None else check_recipe(recipe)
    network = weights if isinstance(weights, str) and weights in NETWORKS else None
    loaded = _weights(weights, seed, options.get("scope"))
    if recipe is None and (isinstance(weights, Weights) or not isinstance(weights, Mapping)):
        recipe = loaded.recipe
    kept = encode_options(options)
    if _is_raw(images) and recipe is not None:
        check_stored(recipe)
    batch = _images(images, recipe, seed, kept)
    engine = Engine(loaded, device=device, threads=threads, **_for_engine(options, loaded, weights))
    traced, order = engine.trace(_batch_shape(batch.shape))
    if not isinstance(wanted, bool):
        wanted = tuple(full_names(wanted, list(order), "end point"))
    net, found = engine(batch, end_points=wanted or [])
    values = in_network_order({name: found[name] for name in order if name in found}, net)
    golden = Golden(
        contract=CONTRACT_VERSION,
        made_with=versions(),
        options=kept,
        weights=digest_all(loaded, traced.graph.used),
        network=network,
        images=digest(batch),
        shape=batch.shape,
        recipe=recipe if _is_raw(images) else None,
        seeded_images=isinstance(images, tuple),
        seed=seed,
        end_points=_entries(values, {**order, "net": traced}),
        values={} if hashes_only else values,
        stored_images=batch if store_images else None,
        tensors=short_digests(loaded, traced.graph.used),
    )
    return golden, sorted(traced.graph.used)


@for_images
@contract_mode()
def check(
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    images: Any = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Report:
    """Run the network of a golden, with the recorded options, and compare every end point with it.

    Parameters
    ----------
    path : path
        What `record` wrote.
    weights : Weights, mapping of str to array, path, or the name of a published network, optional
        By default the seeded weights with which the golden was recorded.
    images : array [H, W, C] or [N, H, W, C], or a tuple of these sizes, optional
        By default the stored or seeded images with which the golden was recorded.
    device, threads
        As for `Engine`.

    Returns
    -------
    Report

    Raises
    ------
    GoldenError
        The file cannot be used.
    WeightsError, InputError
        The golden was recorded with other weights, or other images; or they cannot be used.
    ConfigError
        Weights or images are not passed, and the golden holds none.

    Examples
    --------
    >>> import refnet
    >>> image = refnet.load_image("digit3.png")
    >>> _ = refnet.golden.record("digit.safetensors", "digits.ckpt", image)
    >>> refnet.golden.check("digit.safetensors", "digits.ckpt", image, threads=1).differing
    []
    """
    path = path_of(path)
    golden = read_golden(path)
    source = golden.network if weights is None else weights
    if source is None:
        raise ConfigError("The golden was not recorded with seeded weights: pass the weights.")
    device, threads = check_device(device), check_threads(threads)
    scope = golden.options.get("scope")
    loaded = _weights(source, golden.seed, scope if isinstance(scope, str) else None)
    with naming(path):  # from here on what is wrong is an option in the file
        options = decode_options(golden.options)
        engine = Engine(loaded, device=device, threads=threads, **_for_engine(options, loaded, weights))
        traced, order = engine.trace(_batch_shape(golden.shape))
    batch = _golden_images(golden, options) if images is None else _images(images, golden.recipe, golden.seed, options)
    _check_same_weights(golden, loaded, traced.graph.used)
    _check_same_images(golden, batch)
    unknown = [name for name in golden.end_points if name not in order and name != "net"]
    if unknown:
        raise GoldenError(f"{path}: the network has no end points {', '.join(unknown)}.", found=unknown)
    net, found = engine(batch, end_points=[name for name in golden.end_points if name != "net"])
    found["net"] = net
    return Report(path, [_row(golden, name, found[name]) for name in golden.end_points])


@for_images
@contract_mode()
def compare_end_points(path: str | os.PathLike[str], end_points: Mapping[str, Any], max_ulps: float = 0) -> Report:
    """Compare end points that were computed elsewhere, by a port of the network, with a golden.

    Parameters
    ----------
    path : path
        What `record` wrote, with values.
    end_points : mapping of str to array
        Some of the golden's end points, in NHWC; "net" is the network's output. Values of another dtype are converted
        to the golden's first.
    max_ulps : float
        How far they may be off, in units in the last place of each end point's largest value; 0: not by a bit.

    Returns
    -------
    Report
        On these end points.

    Raises
    ------
    GoldenError
        The file cannot be used.
    ConfigError
        There are no end points to compare, or some that the golden does not have; or ``max_ulps`` is not a distance.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> _ = refnet.golden.record("digit.safetensors", "digits.ckpt", refnet.load_image("digit3.png"))
    >>> with np.load("theirs.npz") as theirs:  # of a port whose batch norms have another epsilon
    ...     report = refnet.golden.compare_end_points("digit.safetensors", theirs, max_ulps=64)
    >>> report.differing[0].name
    'resnet_v2_digits/block1/unit_1/bottleneck_v2/preact'
    """
    path = path_of(path)
    check_number(max_ulps=max_ulps)
    check_mapping(end_points=end_points)
    golden = read_golden(path)
    unknown = [name for name in end_points if name not in golden.end_points]
    if unknown or not end_points:
        what = f"has no end points {listed(unknown)}" if unknown else "needs end points to compare with"
        raise ConfigError(f"{path} {what}; it has {', '.join(golden.end_points)}.", found=unknown)
    arrays = {name: as_array(value, name) for name, value in end_points.items()}
    wrong = [f"{name} ({array.dtype})" for name, array in arrays.items() if array.dtype.kind not in "fiu"]
    if wrong:
        raise InputError(f"These end points are not arrays of real numbers: {', '.join(wrong)}.", found=wrong)
    rows = [_row(golden, name, arrays[name]) for name in golden.end_points if name in arrays]
    return Report(path, rows, max_ulps)


def _entries(values: Mapping[str, np.ndarray], tensors: Mapping[str, Tensor]) -> dict[str, EndPoint]:
    """What a golden says about each value, the result of the tensor of that name."""
    counts = roundings(tensors["net"])
    return {name: EndPoint(value.shape, digest(value), counts[tensors[name].index]) for name, value in values.items()}


def encode_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an engine in JSON's types.

    Raises
    ------
    ConfigError
        A golden cannot hold an option, or a block is not made of `bottleneck` or `basic`.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise ConfigError(
            f"A golden cannot hold these options: {', '.join(unknown)}; it can hold {', '.join(sorted(OPTIONS))}."
        )
    encoded = dict(options)
    encoded |= {name: bool(value) for name, value in options.items() if isinstance(value, np.bool_)}
    encoded |= {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
    if "dtype" in options:
        encoded["dtype"] = check_dtype(options["dtype"]).name
    if options.get("blocks") is not None:
        blocks: Sequence[Block] = options["blocks"]
        check_blocks(blocks)
        if any(block.unit_fn is not family_of([block]).unit for block in blocks):
            raise ConfigError("A golden can only hold blocks of bottleneck units or basic units.")
        encoded["blocks"] = [_encode_block(block) for block in blocks]
    return encoded


def _encode_block(block: Block) -> dict[str, Any]:
    units = {"scope": block.scope, "units": [dict(unit) for unit in block.args]}
    family = family_of([block])
    return units if family is FAMILIES[0] else {**units, "unit_fn": family.unit_name}


def decode_options(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a golden as `Engine` takes them.

    Raises
    ------
    GoldenError
        This version of refnet has no such option, or `record` does not write such a value.
    """
    unknown = sorted(set(encoded) - OPTIONS)
    if unknown:
        raise GoldenError(
            f"The golden was recorded with options that this version of refnet lacks: {', '.join(unknown)}."
        )
    options = dict(encoded)
    blocks = options.pop("blocks", None)
    wrong = [name for name, value in options.items() if isinstance(value, list | dict) and name != "multi_grid"]
    wrong += [name for name in BOOLEANS if not isinstance(options.get(name), bool | None)]
    if wrong or not isinstance(blocks, list | None):
        raise GoldenError(f"The golden's options are damaged: {', '.join(wrong or ['blocks'])}.", found=wrong)
    return options if blocks is None else {**options, "blocks": [_block(entry) for entry in blocks]}


def _block(entry: Any) -> Block:
    keys = {"depth", "depth_bottleneck", "stride"}
    match entry:
        case {"scope": str(scope), "units": [_, *_] as units, **rest} if all(
            isinstance(unit, dict) and keys <= set(unit) <= keys | {"unit_rate", "stride_in_1x1"} for unit in units
        ):
            family = BY_UNIT.get(str(rest.get("unit_fn", FAMILIES[0].unit_name)))
            if family is not None:
                return Block(scope, family.unit, units)
    raise GoldenError(f"The golden's blocks are damaged: {entry!r}.", found=entry)


def _for_engine(options: Mapping[str, Any], loaded: Weights, given: object) -> dict[str, Any]:
    """The options for an engine of weights that `_weights` loaded: if it read them, only those of one network."""
    return dict(options) if loaded is given else {**options, "scope": None}


def _weights(weights: Mapping[str, Any] | str | os.PathLike[str], seed: int, scope: str | None = None) -> Weights:
    if isinstance(weights, str) and weights in NETWORKS:
        return random_weights(weights, seed=seed)
    return weights_of(weights, scope)


def _is_raw(images: Any) -> bool:
    """Whether the images are raw pixels, not normalised ones."""
    return isinstance(images, np.ndarray) and images.dtype == np.uint8


def _images(images: Any, recipe: Recipe | None, seed: int, options: Mapping[str, Any]) -> FloatArray:
    """The images as the network receives them."""
    dtype = check_dtype(options.get("dtype", "float32"))
    if isinstance(images, tuple):
        shape = shape_of(images, "The shape of the seeded images")
        if 0 in shape:
            raise InputError(
                f"The shape of the seeded images is {shape}; it consists of whole numbers of 1 or more.", found=images
            )
        if math.prod(shape) > MAX_SEEDED:
            raise InputError(
                f"Seeded images of shape {shape} have {math.prod(shape):,} numbers; a golden can have {MAX_SEEDED:,} "
                "drawn. Pass images.",
                expected=MAX_SEEDED,
                found=math.prod(shape),
            )
        return random_images(shape, seed).astype(dtype)
    if not _is_raw(images):
        return images_of(images, dtype)
    if recipe is None:
        raise InputError("uint8 images are raw pixels, and there is no recipe for them: pass normalised floats.")
    return preprocess(images, recipe).astype(dtype)


def _golden_images(golden: Golden, options: Mapping[str, Any]) -> FloatArray:
    if golden.stored_images is not None:
        return golden.stored_images
    if not golden.seeded_images:
        raise ConfigError("The golden neither holds its images nor was recorded with seeded ones: pass the images.")
    return _images(golden.shape, None, golden.seed, options)


def _batch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (1, *shape)


def _check_same_weights(golden: Golden, weights: Weights, used: Iterable[str]) -> None:
    """Refuse other weights: they explain every difference.

    Raises
    ------
    WeightsError
        It names the tensors that are others, if the golden has their hashes.
    """
    found = digest_all(weights, used)
    if found == golden.weights:
        return
    names = sorted(used)
    changed = changed_tensors(golden, short_digests(weights, names), names)
    which = f": {changed_text(changed, len(names))}" if changed else ""
    if golden.tensors and len(golden.tensors) != len(names):
        which = f": {len(names)} tensors in place of {len(golden.tensors)}"
    raise WeightsError(
        f"The golden was recorded with other weights than these{which}. If that is meant, record it again.",
        tensor=changed[0] if changed else None,
        expected=golden.weights,
        found=found,
    )


def changed_tensors(golden: Golden, found: tuple[str, ...], names: Sequence[str]) -> list[str]:
    """The names of the variables with other hashes than a golden's; none if it has no hashes, or of another number."""
    if len(golden.tensors) != len(names):
        return []
    return [name for name, old, new in zip(names, golden.tensors, found, strict=True) if old != new]


def changed_text(changed: Sequence[str], count: int) -> str:
    """Some of the variables that changed, in words."""
    return f"{len(changed)} of {count} tensors differ{'s' * (len(changed) == 1)}, {listed(changed, 3)}"


def _check_same_images(golden: Golden, images: FloatArray) -> None:
    """Refuse other images: they explain every difference.

    Raises
    ------
    InputError
    """
    if images.shape != golden.shape or digest(images) != golden.images:
        shapes = (
            "" if images.shape == golden.shape else f" Their shape is {images.shape}, the golden's is {golden.shape}."
        )
        raise InputError(
            f"The golden was recorded with other images than these.{shapes} If that is meant, record it again.",
            expected=golden.images,
            found=digest(images),
        )


def _row(golden: Golden, name: str, value: np.ndarray) -> Difference:
    shape, sha256, count = golden.end_points[name]
    if name in golden.values:
        return compare(name, golden.values[name], value, count)
    if value.shape != shape:
        return Difference(name, shape, count, same=False, found_shape=value.shape)
    return Difference(name, shape, count, same=digest(value) == sha256)
