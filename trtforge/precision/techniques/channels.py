"""Groups of tensors whose channels can be scaled without changing what the network computes.

From the operators that make a group's channels (convolutions, products, normalizations with an
affine part), through operators f with f(x / s) = f(x) / s per channel, s > 0 (ReLU, pooling,
additions), to the operators that read them: dividing the makers' weights and biases by s and
multiplying the readers' weights by it cancels out. A residual stream between convolutions is one
such group.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trtforge.precision.names import Names

Doubles = npt.NDArray[np.float64]
Shapes = Mapping[str, tuple[int, ...]]
_Item = TypeVar("_Item")

_THROUGH = (
    *("Relu", "LeakyRelu", "Identity"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
)
"""f(x / s) = f(x) / s for every s > 0, channel by channel; one input, one output."""

_SUMS = ("Add", "Sum")

_NORMS: dict[str, tuple[int, ...]] = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
}
"""Which inputs are the affine part, one number per channel."""

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_VECTOR_AXIS = {"Conv": 1, "ConvTranspose": 1, "BatchNormalization": 1, "InstanceNormalization": 1}


@dataclass(frozen=True, eq=False)
class InputWeights:
    """The weights of a reader, arranged by the channels that they are multiplied with.

    Attributes:
        values: (outputs, inputs per group, taps).
        channel: (outputs, inputs per group): the channel of the activation.
    """

    values: npt.NDArray[np.float32]
    channel: npt.NDArray[np.intp]


@dataclass(eq=False)
class ChannelGroup:
    """Tensors whose channels are scaled together.

    Attributes:
        channels: how many.
        axis: the axis of the channels, in all of them.
        ranks: tensor name -> how many axes it has.
        makers: nodes that compute them from other tensors.
        readers: nodes that multiply them with weights.
        offsets: (node, index of a constant operand) of additions within the group.
    """

    channels: int
    axis: int
    ranks: dict[str, int]
    makers: list[gs.Node] = field(default_factory=list)
    readers: list[gs.Node] = field(default_factory=list)
    offsets: list[tuple[gs.Node, int]] = field(default_factory=list)

    @property
    def has_norm(self) -> bool:
        """Whether a normalization makes the channels."""
        return any(node.op in _NORMS for node in self.makers)

    def misfit(self) -> str:
        """The output of a node whose constants do not have these channels; empty if all have."""
        for node in self.makers:
            if node.op not in (*_LINEAR, *_NORMS) or _made_channels(node) != self.channels:
                return str(node.outputs[0].name)
        for node in self.readers:
            if node.op not in _LINEAR or _read_channels(node) != self.channels:
                return str(node.outputs[0].name)
        for node, index in self.offsets:
            if node.op not in _SUMS or not self._offset_fits(node, index):
                return str(node.outputs[0].name)
        return ""

    def _offset_fits(self, node: gs.Node, index: int) -> bool:
        operand = node.inputs[index] if index < len(node.inputs) else None
        if not isinstance(operand, gs.Constant):
            return False
        axis = self.axis - self.ranks[node.outputs[0].name] + len(operand.shape)
        return 0 <= axis < len(operand.shape) and int(operand.shape[axis]) == self.channels

    def scale(self, scale: Doubles, names: Names) -> None:
        """Divide the channels by `scale`, shape (channels,), all > 0; readers undo it."""
        for node in self.makers:
            _divide_maker(node, scale, names)
        for node, index in self.offsets:
            operand = node.inputs[index]
            rank = len(operand.shape)
            axis = self.axis - self.ranks[node.outputs[0].name] + rank
            node.inputs[index] = _times(operand, _along(1 / scale, axis, rank), names)
        for node in self.readers:
            weights = input_weights(node)
            factor = scale[weights.channel][..., None]
            _store(node, np.asarray(weights.values * factor, np.float32))


def find_groups(graph: gs.Graph, shapes: Shapes) -> tuple[ChannelGroup, ...]:
    """Find the groups of a topologically sorted graph, in graph order.

    Args:
        graph: with its constants as initializers.
        shapes: of the tensors of one run; tensors without one belong to no group.
    """
    return _Search(graph, shapes).groups()


def input_weights(node: gs.Node) -> InputWeights:
    """Arrange a reader's weights by input channel."""
    weight = np.asarray(node.inputs[1].values, np.float32)
    if node.op == "Gemm":
        by_output = weight if node.attrs.get("transB", 0) else weight.T
    elif node.op == "MatMul":
        by_output = weight.T
    elif node.op == "ConvTranspose":
        by_output = np.swapaxes(weight, 0, 1)
    else:
        by_output = weight
    values = by_output.reshape(*by_output.shape[:2], -1)
    outputs, inputs = values.shape[:2]
    groups = int(node.attrs.get("group", 1)) if node.op == "Conv" else 1
    first = np.arange(outputs) // (outputs // groups) * inputs
    return InputWeights(values, first[:, None] + np.arange(inputs))


class _Search:
    """Joins tensors that must be scaled alike; drops groups that touch anything else."""

    def __init__(self, graph: gs.Graph, shapes: Shapes) -> None:
        self._graph, self._shapes = graph, shapes
        self._parents: dict[str, str] = {}
        self._axes: dict[str, int] = {}
        self._bad: set[str] = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
        self._makers: list[gs.Node] = []
        self._readers: list[gs.Node] = []
        self._offsets: list[tuple[gs.Node, int]] = []

    def groups(self) -> tuple[ChannelGroup, ...]:
        own = {id(node) for node in self._graph.nodes}
        for node in self._graph.nodes:
            self._visit(node)
        for tensor in self._graph.tensors().values():
            if any(id(reader) not in own for reader in tensor.outputs):
                self._bad.add(tensor.name)  # a body reads it
        return tuple(self._collect())

    def _visit(self, node: gs.Node) -> None:
        if node.domain not in (None, "", "ai.onnx"):
            self._refuse(node.inputs, node.outputs)
        elif node.op in _LINEAR or node.op in _NORMS:
            self._visit_linear(node)
        elif node.op in _THROUGH and len(node.outputs) == 1:
            self._join(node.inputs[0], node.outputs[0])
        elif node.op in _SUMS:
            self._visit_sum(node)
        elif not self._visit_squeezed(node):
            self._refuse(node.inputs, node.outputs)

    def _visit_linear(self, node: gs.Node) -> None:
        self._refuse(node.inputs[1:], node.outputs[1:])
        result = node.outputs[0]
        channels = _made_channels(node)
        if channels is None or not self._has_axis(result, _VECTOR_AXIS.get(node.op, -1), channels):
            self._refuse((), (result,))
        else:
            self._makers.append(node)
        operand, read = node.inputs[0], _read_channels(node)
        if read is None or not self._has_axis(operand, _VECTOR_AXIS.get(node.op, -1), read):
            self._refuse((operand,), ())
        else:
            self._readers.append(node)

    def _visit_sum(self, node: gs.Node) -> None:
        result = node.outputs[0]
        dims = self._shapes.get(result.name)
        for index, operand in enumerate(node.inputs):
            if isinstance(operand, gs.Constant):
                self._offsets.append((node, index))
            elif dims is None or self._shapes.get(operand.name) != dims:
                self._refuse((operand,), (result,))
            else:
                self._join(operand, result)

    def _visit_squeezed(self, node: gs.Node) -> bool:
        """A Flatten or Reshape of (N, C, 1, ..., 1) to (N, C); a mean over all but the channels."""
        if node.op not in ("Flatten", "Reshape", "Squeeze") or not node.inputs:
            return False
        before = self._shapes.get(node.inputs[0].name, ())
        after = self._shapes.get(node.outputs[0].name, ())
        if len(before) < 3 or len(after) != 2 or before[:2] != after or set(before[2:]) != {1}:
            return False
        self._join(node.inputs[0], node.outputs[0])
        return True

    def _has_axis(self, tensor: gs.Tensor, axis: int, channels: int) -> bool:
        """Note where a tensor's channels are; False where that contradicts what is known."""
        dims = self._shapes.get(tensor.name)
        if not tensor.name or dims is None or len(dims) < 2 or isinstance(tensor, gs.Constant):
            return False
        index = axis % len(dims)
        return dims[index] == channels and self._axes.setdefault(tensor.name, index) == index

    def _refuse(self, *sides: Iterable[gs.Tensor]) -> None:
        self._bad.update(tensor.name for side in sides for tensor in side)

    def _root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def _join(self, one: gs.Tensor, other: gs.Tensor) -> None:
        self._parents[self._root(one.name)] = self._root(other.name)

    def _collect(self) -> Iterator[ChannelGroup]:
        members: dict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys((*self._axes, *self._parents)):
            members[self._root(name)].append(name)
        bad = {self._root(name) for name in self._bad}
        makers = _by(self._makers, lambda node: self._root(node.outputs[0].name))
        readers = _by(self._readers, lambda node: self._root(node.inputs[0].name))
        offsets = _by(self._offsets, lambda one: self._root(one[0].outputs[0].name))
        for root in dict.fromkeys(self._root(node.outputs[0].name) for node in self._makers):
            if root in bad or not readers.get(root):
                continue
            group = self._group(members[root])
            if group is None:
                continue
            group.makers, group.readers = makers[root], readers[root]
            group.offsets = offsets.get(root, [])
            if not group.misfit():
                yield group

    def _group(self, names: list[str]) -> ChannelGroup | None:
        axis = {self._axes[name] for name in names if name in self._axes}
        if len(axis) != 1 or any(name not in self._shapes for name in names):
            return None
        (index,) = axis
        if any(len(self._shapes[name]) <= index for name in names):
            return None
        counts = {self._shapes[name][index] for name in names}
        if len(counts) != 1:
            return None
        ranks = {name: len(self._shapes[name]) for name in names}
        return ChannelGroup(counts.pop(), index, ranks)


def _by(items: Iterable[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    found: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found


def _made_channels(node: gs.Node) -> int | None:
    """Channels that a node makes and that can be scaled there; None where they cannot."""
    if node.op in _NORMS:
        return _norm_channels(node)
    weight = node.inputs[1]
    if not _is_own_weight(node):
        return None
    shape = weight.shape
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if node.op == "Conv":
        channels = int(shape[0])
    elif node.op == "ConvTranspose":
        if node.attrs.get("group", 1) != 1:
            return None
        channels = int(shape[1])
    elif node.op == "Gemm":
        channels = int(shape[0 if node.attrs.get("transB", 0) else 1])
    else:
        return int(shape[1]) if len(shape) == 2 else None
    if bias is None:
        return channels
    fits = isinstance(bias, gs.Constant) and len(bias.shape) and int(bias.shape[-1]) == channels
    return channels if fits else None


def _norm_channels(node: gs.Node) -> int | None:
    operands = [node.inputs[i] for i in _NORMS[node.op] if i < len(node.inputs)]
    operands = [one for one in operands if one.name]
    if not operands or not all(isinstance(one, gs.Constant) for one in operands):
        return None
    if any(len(one.shape) != 1 for one in operands) or len(node.outputs) > 1:
        return None
    return int(operands[0].shape[0])


def _read_channels(node: gs.Node) -> int | None:
    """Channels of a node's activation, if its weights can take factors for them."""
    if node.op in _NORMS or not _is_own_weight(node):
        return None
    shape = node.inputs[1].shape
    if node.op == "Conv":
        return int(shape[1]) * int(node.attrs.get("group", 1))
    if node.op == "ConvTranspose":
        return int(shape[0]) if node.attrs.get("group", 1) == 1 else None
    if node.op == "Gemm":
        axis = 1 if node.attrs.get("transB", 0) else 0
        return None if node.attrs.get("transA", 0) else int(shape[axis])
    return int(shape[0]) if len(shape) == 2 else None


def _is_own_weight(node: gs.Node) -> bool:
    weight = node.inputs[1]
    return (
        isinstance(weight, gs.Constant)
        and len(weight.outputs) == 1
        and len(weight.shape) >= 2
        and weight.dtype == np.float32
    )


def _divide_maker(node: gs.Node, scale: Doubles, names: Names) -> None:
    if node.op in _NORMS:
        for index in _NORMS[node.op]:
            if index < len(node.inputs) and node.inputs[index].name:
                node.inputs[index] = _times(node.inputs[index], 1 / scale, names)
        return
    weight = node.inputs[1]
    rank = len(weight.shape)
    axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
    node.inputs[1] = _times(weight, _along(1 / scale, axis, rank), names)
    if len(node.inputs) > 2 and node.inputs[2].name:
        node.inputs[2] = _times(node.inputs[2], 1 / scale, names)


def _times(constant: gs.Constant, factor: Doubles, names: Names) -> gs.Constant:
    """The constant itself, changed, if nothing else reads it."""
    values = np.asarray(constant.values.astype(np.float64) * factor, np.float32)
    if len(constant.outputs) == 1:
        constant.values = values
        return constant
    return gs.Constant(names.fresh(f"{constant.name}_scaled"), values)


def _along(vector: Doubles, axis: int, rank: int) -> Doubles:
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def _store(node: gs.Node, by_output: npt.NDArray[np.float32]) -> None:
    """Put back what `input_weights` arranged."""
    weight = node.inputs[1]
    shape = tuple(int(size) for size in weight.shape)
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        weight.values = by_output.reshape(shape)
    elif node.op in ("Gemm", "MatMul"):
        weight.values = np.ascontiguousarray(by_output[..., 0].T)
    elif node.op == "ConvTranspose":
        turned = by_output.reshape(shape[1], shape[0], *shape[2:])
        weight.values = np.ascontiguousarray(np.swapaxes(turned, 0, 1))
    else:
        weight.values = by_output.reshape(shape)
