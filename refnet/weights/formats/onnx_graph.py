"""ResNets in ONNX graphs, recognised by what the nodes do: names of nodes and tensors mean nothing.

Exporters rename tensors, fold batch norms into convolutions, and leave names on kernels that are no longer those of
the module. So only the graph is read: the root up to pool1, a unit for each addition, and the head. Strides, pads,
groups and epsilon are those of the nodes. Whatever refnet would not compute is an error that names the node.

Source: ONNX's operator specifications.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import listed, shown
from refnet.errors import ShapeMismatchError, WeightsError
from refnet.network.networks import BY_UNIT, network_name
from refnet.weights.formats.loaded import check_sharing
from refnet_kernels.contract import same_padding


class Node(NamedTuple):
    """An operation.

    Attributes
    ----------
    name : str
        Its own, or if it has none that of its first output.
    op : str
        With the domain before it, if that is not ONNX's own.
    inputs, outputs : tuple of str
        Names of values; "" for an optional one that is left out.
    attributes : mapping of str to Any
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph(NamedTuple):
    """A computation.

    Attributes
    ----------
    nodes : list of Node
        Each one after those whose values it reads.
    tensors : dict of str to array
        Constants.
    inputs : dict of str to tuple
        Shape of each input that is not a constant; None for what is not fixed.
    outputs : list of str
    """

    nodes: list[Node]
    tensors: dict[str, np.ndarray]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: list[str]


class Network(NamedTuple):
    """A graph's network under TF-Slim's names.

    Attributes
    ----------
    tensors : dict of str to array
    names : dict of str to str
        For each tensor, its name in the graph; those that the graph does not have are not in it.
    options : dict of str to Any
        As in `refnet.Weights`.
    remarks : list of str
        What had to be guessed, in sentences.
    """

    tensors: dict[str, np.ndarray]
    names: dict[str, str]
    options: dict[str, Any]
    remarks: list[str]


class _Variable(NamedTuple):
    """A tensor, and its name in the graph, if it is there."""

    array: np.ndarray
    name: str | None


# By TF-Slim's names below a unit, or below the network.
_Variables = dict[str, _Variable]


class _Convolution(NamedTuple):
    node: Node
    size: int
    stride: int
    depth: int
    has_norm: bool


class _Unit(NamedTuple):
    """A unit, by the addition that it ends in."""

    node: Node
    version: int
    convolutions: list[_Convolution]
    stride: int
    projects: bool
    pools: bool
    variables: _Variables


_SHAPES = ("Flatten", "Reshape", "Squeeze", "Transpose")
_POOLS = ("GlobalAveragePool", "ReduceMean", "AveragePool")
_DENSE = ("Conv", "Gemm", "MatMul")
# They can follow the logits.
_AFTER_LOGITS = ("Softmax", "ArgMax", "Cast", *_SHAPES)
_SUMS = ("Add", "Sum")
#: The names here of an Add and a Mul with a constant.
_BIAS_ADD, _SCALE = "Add of a constant", "Mul by a constant"
_WITH_CONSTANT = {"Add": _BIAS_ADD, "Mul": _SCALE}
_NORMS = ("BatchNormalization", _SCALE)
_OPS = {
    "BatchNormalization", "Relu", "MaxPool", "Pad", *_SUMS, *_POOLS, *_DENSE, *_AFTER_LOGITS, "Identity", "Dropout",
    _BIAS_ADD, _SCALE,
}  # fmt: skip
_QUANTIZED = ("Quantize", "Dequantize", "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize")
_FLOATS = (1, 10, 11, 16)  # float32, float16, float64 and bfloat16, as Cast numbers them
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
_ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
_LOWEST = float(np.finfo(np.float32).min)


def network_of(graph: Graph) -> Network:
    """The ResNet that a graph computes.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    Network

    Raises
    ------
    WeightsError
        It computes something else.
    """
    return _Reading(_simplified(graph)).network()


def _refused(node: Node, why: str) -> WeightsError:
    return WeightsError(
        f"Node {shown(node.name)} ({node.op}) {why}. docs/homes.md says which ResNets refnet has.",
        found=(node.name, node.op),
    )


def _attributes(node: Node, **known: Any) -> dict[str, Any]:
    """A node's attributes; those that it leaves out have the values given here, which also give their types."""
    for name, value in node.attributes.items():
        if name not in known:
            raise _refused(node, f"has the attribute {shown(name)}, which refnet does not know")
        if type(value) is not type(known[name]):
            raise _refused(
                node, f"has {shown(value)} for its attribute {name}, which is a {type(known[name]).__name__}"
            )
    return known | dict(node.attributes)


def _simplified(graph: Graph) -> Graph:
    """The graph without nodes that change no value, and without those that no output depends on."""
    same: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        node = node._replace(inputs=tuple(same.get(name, name) for name in node.inputs))
        if _changes_nothing(node, graph.tensors):
            same[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    outputs = [same.get(name, name) for name in graph.outputs]
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            if any(name in graph.tensors for name in node.inputs):
                node = node._replace(op=_WITH_CONSTANT.get(node.op, node.op))
            kept.append(node)
    return graph._replace(nodes=kept[::-1], outputs=outputs)


def _changes_nothing(node: Node, tensors: Mapping[str, np.ndarray]) -> bool:
    if not node.inputs or not node.outputs:
        return False
    if node.op == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else ""
        return not training or (training in tensors and not tensors[training].any())
    is_copy = node.op == "Identity" or (node.op == "Cast" and node.attributes.get("to") in _FLOATS)
    return is_copy and len(node.inputs) == 1


class _Chain:
    """Nodes in a row, taken one after the other."""

    def __init__(self, nodes: Sequence[Node], end: Node) -> None:
        self.nodes = list(nodes)
        self._end = end

    def take(self, *ops: str) -> Node | None:
        """The next node, if it is one of these operations."""
        return self.nodes.pop(0) if self.is_next(*ops) else None

    def is_next(self, *ops: str) -> bool:
        """Whether the next node is one of these operations."""
        return bool(self.nodes) and self.nodes[0].op in ops

    def need(self, *ops: str) -> Node:
        """The next node, which must be one of these operations."""
        node = self.take(*ops)
        if node is None:
            what = " or ".join(ops)
            if self.nodes:
                raise _refused(self.nodes[0], f"stands where {what} must")
            raise _refused(self._end, f"stands where {what} must come first")
        return node

    def check_end(self) -> None:
        """All have been taken."""
        if self.nodes:
            raise _refused(self.nodes[0], "has no place in a ResNet where it stands")


class _Reading:
    """A graph that is being read, from the image to the logits."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._producers = {name: node for node in graph.nodes for name in node.outputs if name}
        self._consumers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._consumers.setdefault(name, []).append(node)
        self._read: set[str] = set()
        #: Bytes of the variables, and of the constants.
        self._taken, self._held = 0, sum(array.nbytes for array in graph.tensors.values())
        self._epsilons: dict[float, Node] = {}
        self._options: dict[str, Any] = {}
        self._remarks: list[str] = []
        self._scaled: list[str] = []
        #: Outside the units.
        self._variables: _Variables = {}
        self._last_of_root = ""
        #: Channels where the reading is (0: any), and height and width if they are fixed.
        self._channels = 0
        self._size: tuple[int, int] | None = None
        self._is_nhwc = False

    def network(self) -> Network:
        """Read the graph."""
        for node in self._graph.nodes:
            if node.op.startswith(_QUANTIZED):
                raise _refused(node, "is quantized arithmetic: use the file of the model in float32")
            if node.op not in _OPS:
                raise _refused(node, "is not an operation of such a network")
        value, last, is_active = self._root()
        units: list[_Unit] = []
        for node in self._graph.nodes:
            if node.op in _SUMS:
                unit = self._unit(node, value)
                if units and units[0].version != unit.version:
                    raise _refused(node, "ends a unit of another version of the network than the first")
                if units and len(units[0].convolutions) != len(unit.convolutions):
                    raise _refused(node, "ends a unit with another number of convolutions than the first")
                units.append(unit)
                value = node.outputs[0] if unit.version == 2 else self._only_consumer(node, "Relu").outputs[0]
        if not units:
            raise WeightsError("The graph has no units: no node adds a shortcut to a residual.")
        version = units[0].version
        if version == 1 and not is_active:
            raise _refused(last.node, "is the last convolution before pool1, and a Relu must follow it")
        self._head(value, version)
        if version == 2 and is_active and not last.has_norm:
            self._remarks.append(
                f"a ReLU follows {self._last_of_root}, whose batch norm was folded; one that changes nothing stands "
                "there, so that the ReLU is run"
            )
            ones, zeros = (_Variable(np.full(last.depth, value, np.float32), None) for value in (2.0**30, 0.0))
            self._variables |= _plain_norm(f"{self._last_of_root}/BatchNorm", ones, zeros)
        return self._named(units)

    # From node to node.

    def _chain(self, value: str, start: str) -> list[Node]:
        """The nodes from one value to another. Each reads one value that is not a constant."""
        nodes: list[Node] = []
        while value != start:
            node = self._producers.get(value)
            if node is None:
                end = nodes[-1] if nodes else None
                what = f"node {shown(end.name)} ({end.op}) reads" if end else "an output is"
                raise WeightsError(f"The graph is not that of a ResNet: {what} the value {shown(value)} from outside.")
            if value != node.outputs[0]:
                raise _refused(node, "has a second output that is read")
            read = [name for name in node.inputs if name and name not in self._graph.tensors]
            if len(read) != 1 or (read[0] != node.inputs[0] and node.op not in _WITH_CONSTANT.values()):
                raise _refused(node, "reads several values where a chain of layers must be")
            nodes.append(node)
            value = read[0]
        self._read.update(node.outputs[0] for node in nodes)
        return nodes[::-1]

    def _only_consumer(self, node: Node, op: str) -> Node:
        consumers = self._consumers.get(node.outputs[0], [])
        if len(consumers) != 1 or consumers[0].op != op:
            found = listed(consumer.op for consumer in consumers) or "nothing"
            raise _refused(node, f"must be followed by {op} alone; {found} follows it")
        self._read.update((node.outputs[0], consumers[0].outputs[0]))
        return consumers[0]

    def _constant(self, node: Node, index: int) -> np.ndarray:
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self._graph.tensors:
            raise _refused(node, f"has no constant as its input {index}")
        return self._graph.tensors[name]

    def _variable(self, node: Node, index: int, shape: tuple[int | None, ...]) -> _Variable:
        """A constant of floats of this shape, in which None is any number."""
        array, name = self._constant(node, index), node.inputs[index]
        if array.dtype.kind != "f":
            raise _refused(node, f"has {shown(name)} of dtype {array.dtype}, where floats must be")
        if len(array.shape) != len(shape) or any(b not in (None, a) for a, b in zip(array.shape, shape, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ShapeMismatchError(
                f"Node {shown(node.name)} ({node.op}) has {shown(name)} of shape {array.shape}; it must be ({wanted}).",
                tensor=name,
                expected=shape,
                found=array.shape,
            )
        # Exporters make one constant of equal ones; each variable becomes a copy.
        self._taken += array.nbytes
        check_sharing(self._taken, self._held)
        return _Variable(array, name)

    def _integers(self, node: Node, index: int, attribute: str) -> list[int] | None:
        """Numbers that were an attribute in early versions of an operation, and are an input in later ones."""
        if index < len(node.inputs) and node.inputs[index]:
            array = self._constant(node, index)
            if array.dtype.kind not in "iu" or array.ndim > 1:
                raise _refused(node, f"has numbers of dtype {array.dtype} as its input {index}")
            return [int(number) for number in array.reshape(-1)]
        found = node.attributes.get(attribute)
        if found is not None and not isinstance(found, list):
            raise _refused(node, f"has {shown(found)} for its attribute {attribute}, which is a list")
        return found

    # Layers.

    def _norm(self, chain: _Chain, place: str) -> _Variables:
        """Read a batch norm, or the scale and the shift that it amounts to."""
        node = chain.need(*_NORMS)
        if node.op == _SCALE:
            shift = chain.need(_BIAS_ADD)
            self._scaled.append(place)
            scale = self._per_channel(node, self._channels, -3)
            with np.errstate(over="ignore"):
                gamma = _Variable(scale.array * scale.array.dtype.type(2.0**30), scale.name)
            return _plain_norm(place, gamma, self._per_channel(shift, self._channels, -3))
        # MXNet's first exports have spatial=0, beside vectors of one number per channel that contradict it.
        attributes = _attributes(node, epsilon=1e-5, momentum=0.9, spatial=1, training_mode=0)
        if attributes["training_mode"] != 0:
            raise _refused(node, "is not batch norm by its moving statistics: export the model for inference")
        self._epsilons.setdefault(attributes["epsilon"], node)
        if len(self._epsilons) > 1:
            said = " and ".join(f"{epsilon} in {shown(of.name)}" for epsilon, of in self._epsilons.items())
            raise _refused(node, f"has another epsilon than the batch norms before it: {said}")
        return {f"{place}/{role}": self._variable(node, i, (self._channels,)) for i, role in enumerate(_ROLES, 1)}

    def _convolution(self, chain: _Chain, place: str, variables: _Variables, *, norm: bool) -> _Convolution:
        """Read a convolution with all that belongs to it except the ReLU."""
        pad = chain.take("Pad")
        node = chain.need("Conv")
        attributes = _attributes(
            node, auto_pad="NOTSET", dilations=[1, 1], group=1, kernel_shape=[], pads=[0] * 4, strides=[1, 1]
        )
        if attributes["group"] != 1:
            raise _refused(node, f"has {attributes['group']} groups (ResNeXt)")
        if attributes["dilations"] != [1, 1]:
            raise _refused(
                node, f"has the dilations {attributes['dilations']}: export without them, and pass output_stride"
            )
        kernel = self._variable(node, 1, (None, self._channels or None, None, None))
        depth, _, size, width = kernel.array.shape
        strides, shape = attributes["strides"], attributes["kernel_shape"]
        if size != width or strides not in ([1, 1], [2, 2]) or shape not in ([], [size, width]):
            raise _refused(node, f"has a kernel of {size} x {width} and the strides {strides}")
        stride = strides[0]
        self._check_pads(node, attributes, pad, size, stride)
        variables[f"{place}/weights"] = kernel._replace(array=kernel.array.transpose(2, 3, 1, 0))
        self._channels = depth
        bias_add = chain.take(_BIAS_ADD)
        has_norm = norm and chain.is_next(*_NORMS)
        if bias_add is not None or (len(node.inputs) > 2 and node.inputs[2]):
            variables[f"{place}/biases"] = self._biases(node, bias_add, depth)
        elif not has_norm:
            # Zeros change no bit: a sum starts at +0, so it is never -0.
            variables[f"{place}/biases"] = _Variable(np.zeros(depth, np.float32), None)
        if has_norm:
            variables |= self._norm(chain, f"{place}/BatchNorm")
        if self._size and stride > 1:
            self._size = _halved(self._size)
        return _Convolution(node, size, stride, depth, has_norm)

    def _biases(self, node: Node, bias_add: Node | None, depth: int) -> _Variable:
        """Those of a layer, or of a node that adds them to it."""
        if bias_add is None:
            return self._variable(node, 2, (depth,))
        if len(node.inputs) > 2 and node.inputs[2]:
            raise _refused(bias_add, "adds biases to a layer that has biases")
        return self._per_channel(bias_add, depth, -3 if node.op == "Conv" else -1)

    def _per_channel(self, node: Node, depth: int, axis: int) -> _Variable:
        """The constant of a sum or a product: one number per channel, [depth, 1, 1] or with more axes before."""
        index = next(i for i, name in enumerate(node.inputs) if name in self._graph.tensors)
        shape = self._constant(node, index).shape
        if math.prod(shape) != depth or len(shape) < -axis or shape[axis] != depth:
            raise _refused(node, f"has a constant of shape {shape} for {depth} channels")
        found = self._variable(node, index, shape)
        return found._replace(array=found.array.reshape(-1))

    def _check_pads(self, node: Node, attributes: Mapping[str, Any], pad: Node | None, size: int, stride: int) -> None:
        """The rule of conv2d_same: half the kernel on each side, whatever the image's size."""
        right = [size // 2] * 4
        automatic = attributes["auto_pad"]
        if automatic in ("SAME_UPPER", "SAME_LOWER") and (size == 1 or (stride == 1 and size % 2)):
            pads = right
        elif automatic in ("NOTSET", "VALID"):
            pads = attributes["pads"] if automatic == "NOTSET" else [0] * 4
        else:
            raise _refused(
                node,
                f"strides with the padding {automatic}, which depends on the image's size; in TF-Slim's networks a "
                "convolution that strides has the same pads on all sides",
            )
        if pad is not None:
            more, value = self._pad(pad)
            if value != 0:
                raise _refused(pad, f"pads a convolution with {value}")
            pads = [a + b for a, b in zip(pads, more, strict=False)]
        if pads != right or size % 2 == 0:
            raise _refused(node, f"has the pads {pads} for a kernel of {size} x {size}; {right} are needed")

    def _pad(self, node: Node) -> tuple[list[int], float]:
        """Pads [top, left, bottom, right] and their value."""
        attributes = _attributes(node, mode="constant", pads=[], value=0.0)
        pads, value = self._integers(node, 1, "pads"), float(attributes["value"])
        if len(node.inputs) > 2 and node.inputs[2]:
            array = self._constant(node, 2)
            if array.size != 1:
                raise _refused(node, "has no single number as its value")
            value = float(array.reshape(-1)[0])
        if attributes["mode"] != "constant" or (len(node.inputs) > 3 and node.inputs[3]):
            raise _refused(node, "does not pad with a constant, or names axes")
        if pads is None or len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)):
            raise _refused(node, f"has the pads {pads}; only height and width can be padded")
        return [pads[i] for i in (2, 3, 6, 7)], value

    # Parts of the network.

    def _root(self) -> tuple[str, _Convolution, bool]:
        """Read up to pool1: its value, the last convolution before it, and whether a ReLU follows that."""
        used = [name for name in self._graph.inputs if name in self._consumers]
        pools = [n for n in self._graph.nodes if n.op == "MaxPool" and n.attributes.get("kernel_shape") != [1, 1]]
        if len(used) != 1 or not pools:
            what = "max pool" if len(used) == 1 else "single input"
            raise WeightsError(f"The graph is not that of a ResNet with its root: it has no {what}.", found=used)
        nodes = self._chain(pools[0].outputs[0], used[0])
        # TensorFlow's own layout is NHWC.
        if [node.op for node in nodes[:2]] == ["Pad", "Transpose"]:
            nodes[:2] = [nodes[1], _pad_of_nchw(nodes[0], self._integers(nodes[0], 1, "pads"))]
        chain = _Chain(nodes, pools[0])
        self._take_image(chain, self._graph.inputs[used[0]])
        convolutions: list[_Convolution] = []
        layers: list[_Variables] = []
        is_active = True
        if chain.is_next(*_NORMS):
            kernel = next((self._constant(node, 1) for node in chain.nodes if node.op == "Conv"), np.zeros((0, 0)))
            self._channels = int(kernel.shape[1]) if kernel.ndim > 1 else 0
            self._variables |= self._norm(chain, "input/BatchNorm")
        while not self._is_pool(chain):
            if not is_active:
                raise _refused(chain.nodes[0], "stands where Relu must, between two convolutions of the root")
            layers.append({})
            convolutions.append(self._convolution(chain, "", layers[-1], norm=True))
            is_active = chain.take("Relu") is not None
        strides, sizes = ([getattr(c, what) for c in convolutions] for what in ("stride", "size"))
        if strides[:1] != [2] or sum(strides) != len(strides) + 1 or sizes not in ([7], [3] * len(sizes)):
            raise _refused(pools[0], f"follows a root of kernels {sizes} with strides {strides}")
        if not is_active and convolutions[-1].has_norm:
            raise _refused(convolutions[-1].node, "has a batch norm that no Relu follows, before pool1")
        for i, layer in enumerate(layers, 1):
            place = "conv1" if sizes == [7] else f"conv1_{i}"
            self._variables |= {f"{place}{name}": variable for name, variable in layer.items()}
        self._last_of_root = place
        self._options["pool_mode"] = self._pool_mode(chain.take("Pad"), chain.need("MaxPool"))
        chain.check_end()
        return pools[0].outputs[0], convolutions[-1], is_active

    @staticmethod
    def _is_pool(chain: _Chain) -> bool:
        ops = [node.op for node in chain.nodes[:2]]
        return ops[:1] == ["MaxPool"] or ops == ["Pad", "MaxPool"]

    def _take_image(self, chain: _Chain, shape: tuple[int | None, ...]) -> None:
        """Take the transpose of the image, if there is one, and note the image's size."""
        transpose = chain.take("Transpose")
        if transpose is not None and _attributes(transpose, perm=[]) != {"perm": _TO_NCHW}:
            raise _refused(transpose, "does not bring an image from NHWC to NCHW")
        self._is_nhwc = transpose is not None
        if shape and len(shape) != 4:
            raise WeightsError(f"The graph's input has the shape {shape}, which is not that of images.", found=shape)
        height, width = (shape[1:3] if self._is_nhwc else shape[2:]) or (None, None)
        self._size = (height, width) if height and width else None

    def _pool_mode(self, pad: Node | None, node: Node) -> str:
        """What pool1's pads are called."""
        attributes = self._pool(node, 3, 2)
        if attributes["ceil_mode"]:
            raise _refused(node, "rounds its size up (ceil_mode), as pool1 never does in such networks")
        pads, size = attributes["pads"], self._size
        if attributes["auto_pad"] == "VALID":
            pads = [0] * 4
        self._size = size and _halved(size)
        if pad is not None:
            border, value = self._pad(pad)
            if border != [1] * 4 or pads != [0] * 4 or not (value == 0 or value <= _LOWEST):
                raise _refused(pad, f"adds the pads {border} of {value} to the pads {pads} of pool1")
            return "keras" if value == 0 else "torch"
        if attributes["auto_pad"] == "SAME_UPPER":
            return "slim"
        if pads == [0] * 4:
            self._size = size and ((size[0] - 3) // 2 + 1, (size[1] - 3) // 2 + 1)
            return "valid"
        same = _same_pads(size) if size else None
        if pads == [1] * 4 == same:
            found, other = ("slim", "torch") if self._is_nhwc else ("torch", "slim")
            self._remarks.append(
                "the file fixes the images' size, at which PyTorch's pads of pool1 and TensorFlow's SAME are alike; "
                f"they were taken for pool_mode={found!r}: if the network was trained with the other, pass "
                f"pool_mode={other!r} for images of other sizes"
            )
            return found
        if pads == [1] * 4:
            return "torch"
        if pads != same:
            raise _refused(node, f"has the pads {pads}, which pool1 does not have in such networks")
        return "slim"

    def _pool(self, node: Node, size: int, stride: int) -> dict[str, Any]:
        """The attributes of a pool, which must have this window and stride."""
        attributes = _attributes(
            node, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=[1, 1], kernel_shape=[], pads=[0] * 4,
            storage_order=0, strides=[1, 1],
        )  # fmt: skip
        found = [attributes[name] for name in ("kernel_shape", "strides", "dilations")]
        if found != [[size] * 2, [stride] * 2, [1, 1]]:
            raise _refused(
                node, f"has the window, strides and dilations {found}; it must be {size} x {size} by {stride}"
            )
        return attributes

    def _unit(self, node: Node, value: str) -> _Unit:
        """Read the unit that an addition ends."""
        chains = sorted((self._chain(name, value) for name in node.inputs), key=_count_convolutions)
        if len(chains) != 2 or _count_convolutions(chains[1]) not in (2, 3):
            counts = [_count_convolutions(chain) for chain in chains]
            raise _refused(node, f"ends paths of {counts} convolutions; a unit has 2 or 3, and a shortcut of 0 or 1")
        short, residual = chains
        self._read.add(node.outputs[0])
        depth, size = self._channels, self._size
        variables: _Variables = {}
        chain = _Chain(residual, node)
        version, before = (2 if chain.is_next(*_NORMS) else 1), 0
        if version == 2:
            variables |= self._norm(chain, "preact")
            chain.need("Relu")
            before = len(residual) - len(chain.nodes)
        convolutions: list[_Convolution] = []
        while len(convolutions) < _count_convolutions(residual):
            if convolutions:
                chain.need("Relu")
            place, is_last = f"conv{len(convolutions) + 1}", _count_convolutions(chain.nodes) == 1
            convolutions.append(self._convolution(chain, place, variables, norm=version == 1 or not is_last))
        chain.check_end()
        sizes = [convolution.size for convolution in convolutions]
        if sizes not in ([1, 3, 1], [3, 3]):
            raise _refused(node, f"ends a unit of kernels {sizes}; they must be [1, 3, 1] or [3, 3]")
        depth_after, size_after = self._channels, self._size

        self._channels, self._size = depth, size
        chain = _Chain(short, node)
        projects, pools, stride = bool(_count_convolutions(short)), False, 1
        if projects:
            if short[:before] != residual[:before]:
                raise _refused(node, "ends a unit whose shortcut does not begin with the norm and Relu of its residual")
            del chain.nodes[:before]
            average = chain.take("AveragePool")
            pools = average is not None
            if average is not None:
                self._check_average(average)
                self._size = size and _halved(size)
            convolution = self._convolution(chain, "shortcut", variables, norm=version == 1)
            if convolution.size != 1:
                raise _refused(convolution.node, f"is a shortcut of {convolution.size} x {convolution.size}")
            stride = convolution.stride * (2 if pools else 1)
        elif subsample := chain.take("MaxPool"):
            stride, attributes = 2, self._pool(subsample, 1, 2)
            if any(attributes["pads"]) or attributes["ceil_mode"]:
                raise _refused(subsample, "pads a window of one pixel, or rounds its size up (ceil_mode)")
        chain.check_end()
        strides = [convolution.stride for convolution in convolutions]
        if self._channels != depth_after or math.prod(strides) != stride:
            raise _refused(
                node,
                f"adds a shortcut of {self._channels} channels with stride {stride} to a residual of {depth_after} "
                f"with strides {strides}",
            )
        self._channels, self._size = depth_after, size_after
        return _Unit(node, version, convolutions, stride, projects, pools, variables)

    def _check_average(self, node: Node) -> None:
        attributes = self._pool(node, 2, 2)
        is_even = self._size is not None and not any(side % 2 for side in self._size)
        cut_off = (attributes["ceil_mode"], attributes["count_include_pad"]) == (1, 0)
        if any(attributes["pads"]) or attributes["auto_pad"] != "NOTSET" or not (is_even or cut_off):
            raise _refused(node, "is not an average pool whose last windows are cut off (ceil_mode, without pads)")

    def _head(self, value: str, version: int) -> None:
        """Read what follows the units, on the way to each output."""
        ends = [name for name in self._graph.outputs if name not in self._read]
        chains = sorted((self._chain(name, value) for name in ends), key=len)
        if not chains:
            raise WeightsError("The graph ends within the network's units; it must go on to the features' mean.")
        nodes = chains[-1]
        end = nodes[-1]
        chain = _Chain(nodes, end)
        if version == 2:
            self._variables |= self._norm(chain, "postnorm")
            chain.need("Relu")
        transpose = chain.take("Transpose")
        if transpose is not None and _attributes(transpose, perm=[]) != {"perm": _TO_NHWC}:
            raise _refused(transpose, "does not bring the features from NCHW to NHWC")
        self._check_mean(
            chain.need("ReduceMean") if transpose else chain.need(*_POOLS), [1, 2] if transpose else [2, 3]
        )
        self._skip_shapes(chain)
        is_logits = chain.is_next(*_DENSE)
        if is_logits:
            self._logits(chain)
        known = len(nodes) - len(chain.nodes)
        while is_logits and chain.take(*_AFTER_LOGITS):
            pass
        chain.check_end()
        for other in chains[:-1]:
            common = sum(a == b for a, b in zip(nodes, other, strict=False))
            rest = _Chain(other[common:], end)
            while common >= known and is_logits and rest.take(*_AFTER_LOGITS):
                pass
            rest.check_end()

    def _check_mean(self, node: Node, sides: list[int]) -> None:
        """The features' mean over height and width."""
        if node.op == "AveragePool":
            size = self._size or (0, 0)
            attributes = _attributes(
                node, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, kernel_shape=[], pads=[0] * 4, strides=[]
            )
            is_padded = any(attributes["pads"]) or attributes["auto_pad"] not in ("NOTSET", "VALID")
            if attributes["kernel_shape"] != list(size) or is_padded:
                raise _refused(node, f"does not average all of the features, whose size is {self._size or 'not fixed'}")
        elif node.op == "ReduceMean":
            _attributes(node, axes=[], keepdims=1, noop_with_empty_axes=0)
            axes = self._integers(node, 1, "axes")
            if axes is None or sorted(axis % 4 for axis in axes) != sides:
                raise _refused(node, f"averages over the axes {axes}; those of height and width are {sides}")

    def _skip_shapes(self, chain: _Chain) -> None:
        """Skip nodes that only name the features' mean [N, C, 1, 1] another shape with N first."""
        while node := chain.take(*_SHAPES):
            if node.op == "Reshape":
                rest = self._integers(node, 1, "shape") or []
                keeps = len(rest) > 1 and [n for n in rest[1:] if n != 1] in ([self._channels], [-1], [0], [])
            elif node.op == "Flatten":
                keeps = node.attributes.get("axis", 1) == 1
            elif node.op == "Squeeze":
                keeps = 0 not in (self._integers(node, 1, "axes") or [])
            else:
                keeps = (self._integers(node, 1, "perm") or [])[:1] == [0]
            if not keeps:
                raise _refused(node, "mixes images")

    def _logits(self, chain: _Chain) -> None:
        node = chain.nodes[0]
        if node.op == "Conv":
            convolution = self._convolution(chain, "logits", self._variables, norm=False)
            if (convolution.size, convolution.stride) != (1, 1):
                raise _refused(node, "is not a 1 x 1 convolution of the features' mean")
            return
        chain.need("Gemm", "MatMul")
        inputs: tuple[int | None, int | None] = (self._channels, None)
        attributes = _attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0) if node.op == "Gemm" else {}
        if any(attributes.get(name, value) != value for name, value in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            raise _refused(node, "scales or transposes the features")
        is_transposed = bool(attributes.get("transB"))
        kernel = self._variable(node, 1, inputs[::-1] if is_transposed else inputs)
        matrix = kernel.array.T if is_transposed else kernel.array
        self._variables["logits/weights"] = kernel._replace(array=matrix[np.newaxis, np.newaxis])
        classes, bias_add = matrix.shape[1], chain.take(_BIAS_ADD)
        has_biases = bias_add is not None or (len(node.inputs) > 2 and node.inputs[2])
        biases = self._biases(node, bias_add, classes) if has_biases else _Variable(np.zeros(classes, np.float32), None)
        self._variables["logits/biases"] = biases

    # Names.

    def _named(self, units: list[_Unit]) -> Network:
        place, blocks = _blocks(units)
        pools = {unit.pools for unit in units if unit.projects and unit.stride > 1}
        if len(pools) > 1 or any(unit.pools and unit.stride == 1 for unit in units):
            odd = next(unit for unit in units if unit.pools)
            raise _refused(odd.node, "ends a unit with an average pool in its shortcut, which others do not have")
        if self._scaled:
            self._remarks.append(
                f"{len(self._scaled)} batch norms are a scale and a shift in the file; here their gamma is the scale "
                "times 2**30, and their variance 2**60, which gives that scale whatever the epsilon is"
            )
        options = {**self._options, "stride_place": place}
        if True in pools:
            options["avg_down"] = True
        if self._epsilons:
            options["batch_norm_epsilon"] = next(iter(self._epsilons))
        kind = "basic" if len(units[0].convolutions) == 2 else "bottleneck"
        family = BY_UNIT[f"{kind}_v{units[0].version}"]
        scope = network_name(tuple(map(len, blocks)), family)
        variables = dict(self._variables)
        for i, block in enumerate(blocks, 1):
            for j, unit in enumerate(block, 1):
                name = f"block{i}/unit_{j}/{family.unit_name}"
                variables |= {f"{name}/{leaf}": variable for leaf, variable in unit.variables.items()}
        return Network(
            {f"{scope}/{name}": variable.array for name, variable in variables.items()},
            {f"{scope}/{name}": variable.name for name, variable in variables.items() if variable.name is not None},
            options,
            self._remarks,
        )


def _pad_of_nchw(node: Node, pads: list[int] | None) -> Node:
    """A Pad of an NHWC image as that of an NCHW one."""
    if pads is None or len(pads) != 8:
        return node
    moved = [pads[4 * half + axis] for half in (0, 1) for axis in _TO_NCHW]
    return node._replace(inputs=(node.inputs[0], "", *node.inputs[2:]), attributes={**node.attributes, "pads": moved})


def _count_convolutions(nodes: Sequence[Node]) -> int:
    return sum(node.op == "Conv" for node in nodes)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


def _same_pads(size: tuple[int, int]) -> list[int]:
    """[top, left, bottom, right] of TensorFlow's SAME for pool1."""
    before, after = [], []
    for side in size:
        out, pad = same_padding(side, 3, 2)
        before.append(pad)
        after.append(max((out - 1) * 2 + 3 - side, 0) - pad)
    return before + after


def _plain_norm(place: str, gamma: _Variable, beta: _Variable) -> _Variables:
    """A batch norm whose scale is exactly gamma / 2**30: beside a variance of 2**60 any epsilon is lost."""
    depth = len(gamma.array)
    mean, variance = (_Variable(np.full(depth, value, np.float32), None) for value in (0.0, 2.0**60))
    return {f"{place}/{role}": value for role, value in zip(_ROLES, (gamma, beta, mean, variance), strict=True)}


def _blocks(units: list[_Unit]) -> tuple[str, list[list[_Unit]]]:
    """Where units stride, by the names of `refnet.Options.stride_place`, and the units of each block."""
    strided = [unit for unit in units if unit.stride > 1]
    by_first: list[list[_Unit]] = [[]]
    by_last: list[list[_Unit]] = [[]]
    for unit in units:
        if unit.stride > 1:
            by_first.append([])
        by_first[-1].append(unit)
        by_last[-1].append(unit)
        if unit.stride > 1:
            by_last.append([])
    place = "last_unit"
    # In TF-Slim's networks the units that stride do not project; in others they begin a block, and do.
    if strided and by_first[0] and (all(unit.projects for unit in strided) or not by_last[-1]):
        place = "first_unit"
    elif not by_last[-1]:
        raise _refused(units[-1].node, "ends a unit that strides, and so does the first unit; in no network both do")
    for unit in strided:
        first, second = (convolution.stride > 1 for convolution in unit.convolutions[:2])
        if place == "first_unit" and first and unit.convolutions[0].size == 1 and unit is strided[0]:
            place = "first_conv"
        right = first if place == "first_conv" or unit.convolutions[0].size == 3 else second
        if not right:
            raise _refused(unit.node, "ends a unit with its stride in another convolution than such networks have it")
    return place, by_last if place == "last_unit" else by_first
