"""What other frameworks call the values of a network: names of layers, modules, operations and tensors.

The names of layers are those that the homes of weights know (`refnet.weights.homes`). Here is what comes round them:
prefixes, the names of modules that hold several layers, activations, and what exporters add.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from refnet.comparison.sites import block_of, order_of, place_of, unit_of
from refnet.network.names import NUMBER
from refnet.network.networks import BY_UNIT
from refnet.weights.homes import HOMES
from refnet.weights.homes.home import Home

#: Names are not read further; no framework's are longer.
_LONGEST = 400
#: The most components of a prefix: "model.module.backbone".
_PREFIXES = 4

#: The dialects of TF-Slim's names, and of those that several frameworks have.
SLIM, COMMON = "TF-Slim", "common names"

#: The stages that the name of an operation stands for, the likeliest first.
_OPERATIONS = {
    "conv2d": ("conv", "bias", "norm", "act"),
    "conv": ("bias", "conv", "norm", "act"),
    "biasadd": ("bias", "conv", "norm", "act"),
    "batchnorm": ("norm", "act"),
    "batchnormalization": ("norm", "act"),
    "fusedbatchnorm": ("norm", "act"),
    "fusedbatchnormv2": ("norm", "act"),
    "fusedbatchnormv3": ("norm", "act"),
    "relu": ("act",),
    "add": ("sum", "act"),
    "addv2": ("sum", "act"),
    "maxpool": ("pool",),
    "averagepool": ("pool",),
    "avgpool": ("pool",),
    "globalaveragepool": ("mean",),
    "reducemean": ("mean",),
    "mean": ("mean",),
    "gemm": ("bias", "squeeze"),
    "matmul": ("conv", "squeeze"),
    "flatten": ("mean", "squeeze"),
    "squeeze": ("squeeze", "bias"),
    "softmax": ("softmax",),
    "identity": (),
    "pad": (),
}
#: ``Relu:0``, ``Relu_1_output_0``, ``add_3``: an operation and what exporters number it with.
_TAIL = re.compile(
    r"(?P<op>[A-Za-z]+[A-Za-z0-9]*?)(?:_(?P<number>[0-9]{1,4}))?(?:_output_[0-9]{1,3})?(?::[0-9]{1,3})?\Z"
)
_OUTPUT = re.compile(r"(?:_output_[0-9]{1,3})?(?::[0-9]{1,3})?\Z")
#: A module that holds an activation: ``relu``, ``act2``, ``activation``, ``relu_1``.
_ACTIVATION = re.compile(
    r"(?P<kind>relu|act|activ|activation)(?:(?P<own>[0-9]{1,3})|_(?P<call>[0-9]{1,3}))?\Z", re.IGNORECASE
)
#: Modules in a layer that pass its value on.
_PASSING = ("drop", "identity", "aa")
#: What lies between a block's module and a unit's layers.
_UNITS = ("0", "layers.0", "blocks.0", "unit1")

#: A norm among the components of a name: TensorFlow writes it as several operations, where it is not fused.
_NORM = re.compile(r"(?:^|/)(?:fused)?_?(?:batch|group)_?norm[^/]*(?:/|\Z)", re.IGNORECASE)
_SLIM_UNIT = re.compile(
    rf"(?:.+/)?(?P<block>[^/]+)/(?P<unit>unit_{NUMBER})/(?:{'|'.join(BY_UNIT)})(?:_[0-9]{{1,3}})?(?:/(?P<rest>.*))?\Z",
    re.DOTALL,
)
_SLIM_LAYER = rf"(?:conv{NUMBER}(?:_{NUMBER})?|preact|shortcut|avg_pool)"
_SLIM_IN_UNIT = re.compile(rf"(?P<layer>{_SLIM_LAYER})(?:/(?P<tail>.*))?\Z", re.DOTALL)
_SLIM_END = re.compile(
    rf"(?:.+/)?(?P<layer>conv1(?:_{NUMBER})?|pool1|postnorm|pool5|logits|block{NUMBER})(?:/(?P<tail>[^/]*(?:/[^/]*)?))?\Z",
    re.DOTALL,
)

#: Names outside the units that are common to the frameworks, and the sites that they stand for.
_COMMON: tuple[tuple[re.Pattern[str], tuple[tuple[str, str], ...]], ...] = tuple(
    (re.compile(rf"(?:.+[./_])?(?:{pattern})\Z", re.IGNORECASE), sites)
    for pattern, sites in (
        (r"maxpool|max_?pool(?:ing)?(?:2d)?(?:_1)?|pool1|pool1_pool|stem\.pool|embedder\.pooler|embedder|init_block\.pool",
         (("pool1", "pool"),)),
        (r"avg_?pool|global_?(?:average_)?pool(?:ing)?(?:2d)?|pool5|pooler|final_pool", (("pool5", "mean"),)),
        (r"flatten", (("pool5", "mean"), ("logits", "squeeze"))),
        (r"spatial_?squeeze|net|fc|logits|classifier|output|head", (("logits", "squeeze"), ("logits", "bias"))),
        (r"predictions", (("predictions", "softmax"), ("logits", "squeeze"), ("logits", "bias"))),
        (r"softmax|prob|probs|probabilities", (("predictions", "softmax"),)),
        (r"input(?:_?[0-9]+)?|images?|pixel_values", (("input", "input"), ("input", "norm"))),
    )
)  # fmt: skip


class Sited(NamedTuple):
    """What a name says.

    Attributes
    ----------
    sites : tuple of (str, str)
        Places and stages that it can mean, the likeliest first. A stage "" is the last one of its place.
    dialect : str
        Whose name it is.
    """

    sites: tuple[tuple[str, str], ...]
    dialect: str


def sites_of(names: Sequence[str]) -> dict[str, Sited]:
    """What the names of values say, for those that are understood.

    Parameters
    ----------
    names : sequence of str
        All names of a run, as some can only be understood together.

    Returns
    -------
    dict of str to Sited
    """
    readable = [name for name in names if len(name) <= _LONGEST]
    found: dict[str, Sited] = {}
    for name in readable:
        if sites := _slim_sites(name):
            found[name] = Sited(sites, SLIM)
    rest = [name for name in readable if name not in found]
    parts = {name: _module(name) for name in rest}
    home, prefix = _home_of({module for module, _ in parts.values()})
    reader = None if home is None else _Reader(home, [_below(module, prefix) for module, _ in parts.values()])
    for name, (module, operation) in parts.items():
        sites = reader.sites(_below(module, prefix), operation) if reader and module.startswith(prefix) else ()
        dialect = home.title if home and sites else ""
        if not sites:
            sites, dialect = _common(name, module), COMMON
        if sites:
            found[name] = Sited(sites, dialect)
    return found


def _below(module: str, prefix: str) -> str:
    return module.removeprefix(prefix)


def _operation_stages(tail: str) -> tuple[str, ...]:
    """The stages that an operation's name stands for; () if it is not one."""
    match = _TAIL.match(tail.rpartition("/")[2])
    return _OPERATIONS.get(match["op"].lower(), ()) if match else ()


def _slim_sites(name: str) -> tuple[tuple[str, str], ...]:
    """The sites of a name of TF-Slim's: an end point or an operation."""
    if name.startswith("/"):
        return ()
    bare = _OUTPUT.sub("", name)
    if match := _SLIM_UNIT.match(bare):
        unit, rest = f"{match['block']}/{match['unit']}", match["rest"] or ""
        if inner := _SLIM_IN_UNIT.match(rest):
            return _with_tail(f"{unit}/{inner['layer']}", inner["tail"] or "")
        return _with_tail(unit, rest)
    match = _SLIM_END.match(bare)
    # Layers of other frameworks have such names too, without a scope.
    if match and ("/" in bare or match["layer"].startswith(("pool5", "postnorm", "block"))):
        return _with_tail(match["layer"], match["tail"] or "")
    return ()


def _with_tail(place: str, tail: str) -> tuple[tuple[str, str], ...]:
    if not tail:
        return ((place, ""),)
    stages = _operation_stages(tail)
    if not stages and _NORM.search(tail):
        stages = _OPERATIONS["batchnorm"]
    if not stages:
        return ()
    return tuple((place, stage) for stage in stages)


def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """The name of a module, and the stages of the operation in it, if the name tells one."""
    if name.startswith("/"):
        return _onnx_module(name)
    bare = _OUTPUT.sub("", name)
    head, _, tail = bare.rpartition("/")
    if head and (match := _TAIL.match(tail)) and match["op"].lower() in _OPERATIONS:
        return head, _OPERATIONS[match["op"].lower()]
    return bare, ()


def _onnx_module(name: str) -> tuple[str, tuple[str, ...]]:
    """The module of a tensor that torch.onnx names: ``/layer1/layer1.0/conv1/Conv_output_0``."""
    *components, tail = name.strip("/").split("/")
    path: list[str] = []
    for component in components:
        if path and component.startswith(f"{path[-1]}."):
            path.pop()
        path.append(component)
    match = _TAIL.match(tail)
    operation = match["op"].lower() if match else ""
    number = (match and match["number"]) or ""
    if operation == "relu" and path and (called := _ACTIVATION.match(path[-1])):
        # Of a module that is called several times, torch.onnx numbers the calls but the first.
        path[-1] = path[-1] if called["own"] else f"{called['kind']}_{called['call'] or number or 0}"
        return ".".join(path), ()
    if operation in ("add", "relu") or not path:
        path.append(f"{operation}_{number}" if number else operation)
        return ".".join(path), ()
    return ".".join(path), _OPERATIONS.get(operation, ())


def _home_of(modules: Collection[str]) -> tuple[Home | None, str]:
    """The home whose layers most modules are, and the prefix of all its names."""
    best: tuple[int, Home | None, str] = (0, None, "")
    for home in HOMES:
        if home.layers is None:
            continue
        prefixes: Counter[str] = Counter()
        slim_layer = home.layers(modules)
        for module in modules:
            for prefix, rest in _prefixed(module):
                if any(unit_of(place_of(slim, slim.partition("/")[0])) for slim in _covered(home, slim_layer, rest)):
                    prefixes[prefix] += 1
                    break
        if prefixes:
            prefix, count = prefixes.most_common(1)[0]
            if count > best[0]:
                best = (count, home, prefix)
    return best[1], best[2]


def _prefixed(module: str) -> Iterator[tuple[str, str]]:
    """The ways to split a prefix off."""
    yield "", module
    at = 0
    for _ in range(_PREFIXES):
        match = re.compile(r"[^./]+[./]").match(module, at)
        if match is None:
            return
        at = match.end()
        yield module[:at], module[at:]


def _covered(home: Home, slim_layer: Callable[[str], str | None], module: str) -> list[str]:
    """The layers, by TF-Slim's names, that a module is or holds."""
    own = slim_layer(module)
    if own is not None:
        return [own]
    found = []
    if match := re.match(r"(?P<layer>.+_)(?:relu|out|add)(?:_[0-9]{1,3})?\Z", module):
        found = [slim for end in ("bn", "1_conv") if (slim := slim_layer(match["layer"] + end))]
        return found[:1]
    for inside in home.in_unit:
        components = inside.split(".")
        ends = [".".join(components[i:]) for i in range(len(components))]
        ends += [f"{between}.{inside}" for between in _UNITS]
        found += [slim for end in ends if (slim := slim_layer(f"{module}.{end}"))]
    return found


class _Reader:
    """The names of one home's network."""

    def __init__(self, home: Home, modules: Sequence[str]) -> None:
        assert home.layers is not None
        self._home = home
        self._slim_layer = home.layers(modules)
        self._known = set(modules)
        #: The layers among them, by the modules that hold them.
        self._held: dict[str, list[str]] = {}
        for layer in modules:
            slim = self._slim_layer(layer)
            at = layer.rfind(".") if slim else -1
            while at > 0:
                self._held.setdefault(layer[:at], []).append(slim or "")
                at = layer.rfind(".", 0, at)

    def sites(self, module: str, operation: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """The sites that a module's name stands for."""
        own = self._slim_layer(module)
        if own is not None:
            return self._of_layer(own, operation)
        if match := re.match(r"(?P<layer>.+_)(?P<what>relu|out|add)(?:_[0-9]{1,3})?\Z", module):
            return self._of_keras(match["layer"], match["what"])
        head, dot, last = module.rpartition(".")
        if last in _PASSING and (held := self._slim_layer(head)):
            return self._of_layer(held, operation)
        if match := _ACTIVATION.match(last):
            return self._activation(head, self._number(module, match), bool(dot))
        if match := re.match(r"add(?:_[0-9]{1,3})?\Z", last):
            return tuple((unit, stage) for unit in self._units(head) for stage in ("sum", "act"))
        return self._holder(module)

    def _place(self, slim: str) -> str:
        return place_of(slim, slim.partition("/")[0])

    def _of_layer(self, slim: str, operation: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        place = self._place(slim)
        is_norm = slim.endswith("Norm") or place.rpartition("/")[2] in ("preact", "postnorm")
        if place == "logits":
            sites = (("logits", "squeeze"), ("logits", "bias"))
            return (("predictions", "softmax"), *sites) if "." not in slim and self._is_keras() else sites
        if operation[:1] == ("pool",) and (unit := unit_of(place)):
            return ((f"{unit}/avg_pool", "pool"),)
        stages = operation or (_OPERATIONS["batchnorm"] if is_norm else _OPERATIONS["conv"])
        return tuple((place, stage) for stage in stages)

    def _is_keras(self) -> bool:
        return not self._home.outputs_first

    def _of_keras(self, layer: str, what: str) -> tuple[tuple[str, str], ...]:
        """``conv2_block1_1_relu``, ``conv2_block1_out``, ``conv2_block1_add``."""
        if what == "relu":
            found = self._slim_layer(f"{layer}bn") or self._slim_layer(f"{layer}conv")
            return ((self._place(found), "act"),) if found else ()
        found = self._slim_layer(f"{layer}1_conv")
        unit = unit_of(self._place(found)) if found else ""
        stages = ("sum", "act") if what == "add" else ("", "sum")
        return tuple((unit, stage) for stage in stages) if unit else ()

    def _layers(self, module: str) -> list[str]:
        """The layers that a module holds: those that its home has, and those that are there."""
        return [*_covered(self._home, self._slim_layer, module), *self._held.get(module, ())]

    def _places(self, module: str) -> list[str]:
        return list(dict.fromkeys(map(self._place, self._layers(module))))

    def _units(self, module: str) -> list[str]:
        return list(dict.fromkeys(unit for place in self._places(module) if (unit := unit_of(place))))[:1]

    def _number(self, module: str, match: re.Match[str]) -> int:
        """Which activation of its holder it is, from 1; 0: the last one, as a later call overwrites what a hook saw."""
        if match["own"]:
            return int(match["own"])
        return int(match["call"]) + 1 if match["call"] else int(f"{module}_1" in self._known)

    def _activation(self, holder: str, number: int, inside: bool) -> tuple[tuple[str, str], ...]:
        """An activation, by the module that holds it, and its number in it, from 1; 0: it has none."""
        if not inside:
            return (("conv1", "act"), ("conv1_3", "act"))
        places = self._places(holder)
        norms = [place for place in places if place.rpartition("/")[2] != "shortcut" or len(places) == 1]
        ordered = [
            place for layer in ("preact", "conv1", "conv2", "conv3") for place in norms if place.endswith(f"/{layer}")
        ]
        ordered = ordered or norms
        units = self._units(holder) if len(places) > 1 else []
        has_preact = any(place.endswith("/preact") for place in ordered)
        # The second version begins with the activation that its unit has, the first ends with it.
        acts = ordered[:-1] + (units or ordered[-1:]) if len(places) > 1 else ordered
        if has_preact:
            acts = ordered[:-1] if len(ordered) > 1 else ordered
        if not acts:
            return ()
        first = acts[min(number, len(acts)) - 1]
        others = [place for place in reversed(acts) if place != first]
        return tuple((place, "act") for place in (first, *others))

    def _holder(self, module: str) -> tuple[tuple[str, str], ...]:
        """A module that holds layers: its value is that of the last one, of a unit or of a block."""
        places = sorted(self._places(module), key=order_of)
        if not places:
            return ()
        units = {unit for place in places if (unit := unit_of(place))}
        if len(units) == 1 and len(places) > 1 and {place.rpartition("/")[2] for place in places} - {"shortcut"}:
            (unit,) = units
            direct = any(self._slim_layer(f"{module}.{inside}") for inside in self._home.in_unit)
            if direct:
                return ((unit, ""), (unit, "sum"))
            if any(
                self._slim_layer(f"{module}.{between}.{inside}") for between in _UNITS for inside in self._home.in_unit
            ):
                return ((block_of(unit), ""), (block_of(unit), "sum"))
        if len(units) > 1:
            last = unit_of(places[-1])
            return ((last, ""), (last, "sum")) if last else ()
        # Without a norm of its own, the last layer is a convolution with what stands before it.
        slim = self._layers(module)
        ends_in_norm = len(places) == 1 or any(s.endswith("Norm") and self._place(s) == places[-1] for s in slim)
        stages = ("", "norm", "bias", "conv") if ends_in_norm else ("bias", "conv", "norm", "")
        # Layers that a smaller unit does not have are not there; a module of the root may end in the pool.
        root = () if units else (("pool1", "pool"),)
        return (*root, *((place, stage) for place in reversed(places) for stage in stages))


def _common(name: str, module: str) -> tuple[tuple[str, str], ...]:
    for text in (module, name):
        for pattern, sites in _COMMON:
            if pattern.match(text):
                return sites
    return ()


def dialects_of(sited: Iterable[Sited]) -> list[str]:
    """Whose names they are, the most frequent first.

    Parameters
    ----------
    sited : iterable of Sited

    Returns
    -------
    list of str
    """
    counts = Counter(entry.dialect for entry in sited if entry.dialect != COMMON)
    return [dialect for dialect, _ in counts.most_common()]
