"""ResNets of other frameworks, renamed to TF-Slim's names: one module and one row per home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from refnet.checks import listed
from refnet.errors import ConfigError
from refnet.network.architecture import scopes_of
from refnet.weights.formats.later import later
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, refuse_slim_names


def _later(module: str, *signs: str, formats: tuple[str, ...] = (), name: str = "HOME") -> Home:
    """The row of a module that is imported when a file can be of its home.

    Then some tensor's name contains one of the signs, or the format's name starts with one of ``formats``.
    """

    def may_fit(loaded: Loaded) -> bool:
        names = "\n".join(loaded.tensors)
        return loaded.format.startswith(formats) or any(sign in names for sign in signs)

    return later(Home, f"{__name__}.{module}", may_fit, name)


#: The first home that fits reads the tensors.
HOMES: tuple[Home, ...] = (
    # Before Keras', which takes every file of Keras' formats.
    _later("keras_hub", "stack"),
    _later("bit", "standardized_conv2d/", name="GOOGLE"),
    _later("keras", "_block", "_branch", formats=("Keras ",)),
    _later("timm", "stages."),
    _later("torchvision", "layer"),
    _later("torchvision", ".conv1.", name="NUMBERED"),
    _later("hugging_face", "encoder.stages."),
    _later("bit", "encoder.stages.", name="HUGGING_FACE"),
    _later("pytorchcv", "features.stage"),
    # Before the official ones, whose names are the same behind any scope.
    _later("tf_official", "base_model/", name="SIMCLR"),
    _later("tf_official", "/conv2d_fixed_padding", name="SIMCLR_2"),
    _later("tf_official", "conv2d", "batch_normalization"),
)


def home_of(loaded: Loaded) -> Home | None:
    """The home of a file's tensors.

    Parameters
    ----------
    loaded : Loaded

    Returns
    -------
    Home or None
        None if the tensors have TF-Slim's names, or names that no home has.
    """
    return next((home for home in HOMES if home.fits(loaded)), None)


class Found(NamedTuple):
    """One network of a file.

    Attributes
    ----------
    named : Named
        Its tensors under TF-Slim's names, beside those of the file that belong to no network.
    others : dict of str to str
        The tensors of the file's other networks, each with the scope of its network.
    outputs_first : bool
        As in `Home`.
    home : str
        The title of its home; "" if the tensors have TF-Slim's names.
    """

    named: Named
    others: dict[str, str]
    outputs_first: bool
    home: str


def network_in(loaded: Loaded, scope: str | None = None) -> Found:
    """One network of a file, under TF-Slim's names.

    Parameters
    ----------
    loaded : Loaded
    scope : str, optional
        What stands before the names of the network in the file, without the separator; it must be given if the file
        holds several networks.

    Returns
    -------
    Found

    Raises
    ------
    ConfigError
        The file holds several networks, or none below ``scope``.
    MissingTensorError
        It holds a network that refnet does not have.
    """
    home = home_of(loaded)
    names = loaded.tensors.keys()
    if home is None:
        prefixes = [f"{found}/" if found else "" for found in scopes_of(names)]
    else:
        prefixes = sorted({m["scope"] for m in map(home.unit.match, names) if m}) if home.unit else [""]
    prefix = _chosen(prefixes, scope)
    several = names if set(prefixes) - {prefix} else ()
    others = {name: other.rstrip("./") for name in several for other in _other_scopes(name, prefix, prefixes)}
    rest = {name: tensor for name, tensor in loaded.tensors.items() if name not in others}
    if home is None:
        return Found(Named(rest, {}, {}, None, [], []), others, outputs_first=False, home="")
    below = {name.removeprefix(prefix): tensor for name, tensor in rest.items() if name.startswith(prefix)}
    named = home.read(below)
    outside = {name: tensor for name, tensor in rest.items() if not name.startswith(prefix)}
    slim = named.renamed.keys() | set(named.added)
    kept = [prefix + name for name in named.tensors if name not in slim]
    for own in {name.partition("/")[0] for name in slim}:
        refuse_slim_names([*kept, *outside], own)
    tensors = {name if name in slim else prefix + name: tensor for name, tensor in named.tensors.items()}
    named = named._replace(
        tensors=tensors | outside,
        renamed={name: prefix + original for name, original in named.renamed.items()},
        inside=[prefix + name for name in named.inside],
        not_run=[prefix + name for name in named.not_run],
    )
    return Found(named, others, home.outputs_first, home.title)


def _chosen(prefixes: Sequence[str], scope: str | None) -> str:
    """The prefix of the network that was asked for, or of the only one."""
    scopes = [prefix.rstrip("./") for prefix in prefixes]
    if scope is None and len(scopes) < 2:
        return prefixes[0] if prefixes else ""
    if scope is None:
        raise ConfigError(
            f"The weights hold several networks; scope= can be {listed(map(repr, scopes))}.", expected=scopes
        )
    if scope not in scopes:
        there = f"there are networks below {listed(map(repr, scopes))}" if scopes else "there is none at all"
        raise ConfigError(f"There is no network below scope {scope!r}; {there}.", expected=scopes, found=scope)
    return prefixes[scopes.index(scope)]


def _other_scopes(name: str, prefix: str, prefixes: Sequence[str]) -> list[str]:
    """The innermost scope of another network that a tensor belongs to."""
    found = max((other for other in prefixes if name.startswith(other)), key=len, default=prefix)
    return [] if found == prefix or not found else [found]
