"""Which operators are quantized: the rules of `placement_rules.py` applied to a graph.

Decides only, changes nothing. Where the pairs stand that this takes is decided in `sharing.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.precision.compact import Weights, too_costly
from trtforge.precision.hazards import index_arithmetic
from trtforge.precision.layer_ends import end_layers
from trtforge.precision.placement_rules import (
    JOINING,
    PASSING,
    RESIDUAL,
    TARGETS,
    WEIGHTED,
    Weighted,
    holds_for,
)
from trtforge.precision.ports import is_float32
from trtforge.precision.rules import describe, kept_by
from trtforge.precision.typeinfo import Tensors
from trtforge.recipe.schema import Precision

_STANDARD = (None, "", "ai.onnx")


@dataclass(frozen=True, eq=False)
class Site:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight that can be quantized.

    Attributes:
        node: the node.
        axis: the weight's axis of output channels; None: one scale for the whole weight.
        note: why there is one scale only, else how it is quantized.
        weight_index: which input is the weight: 1, or 0 for a matrix product whose left one it is.
    """

    node: gs.Node
    axis: int | None
    note: str
    weight_index: int = 1

    @property
    def activation(self) -> gs.Tensor:
        """The operand that calibration measures."""
        return self.node.inputs[1 - self.weight_index]

    @property
    def weight(self) -> gs.Constant:
        """The constant operand."""
        return self.node.inputs[self.weight_index]

    @property
    def reads(self) -> tuple[int, ...]:
        """Which inputs are activations."""
        return (1 - self.weight_index,)


@dataclass(frozen=True, eq=False)
class Product:
    """A Gemm or MatMul of two activations, as attention has them; both carry Q/DQ.

    Attributes:
        node: the node.
        note: how it is quantized.
    """

    node: gs.Node
    note: str
    reads = (0, 1)


@dataclass(frozen=True, eq=False)
class Skip:
    """A residual Add whose skip branch carries Q/DQ; the other comes from a quantized Conv.

    Attributes:
        node: the Add.
        index: which of its inputs is the skip branch.
        note: why this branch.
    """

    node: gs.Node
    index: int
    note: str

    @property
    def activation(self) -> gs.Tensor:
        """The tensor of the skip branch."""
        return self.node.inputs[self.index]

    @property
    def reads(self) -> tuple[int, ...]:
        """Which inputs are quantized."""
        return (self.index,)


@dataclass(frozen=True, eq=False)
class Refusal:
    """A node that is left alone, and why."""

    node: gs.Node
    reason: str


Finding = Site | Product | Skip | Refusal


def find_sites(
    graph: gs.Graph,
    tensors: Tensors,
    precision: Precision,
    targets: tuple[str, ...] = TARGETS,
) -> tuple[Finding, ...]:
    """Judge every node that could be quantized, in graph order.

    Args:
        graph: topologically sorted.
        tensors: their types and shapes.
        precision: the quantized type, the keep rules, and what is to be left.
        targets: a rule is used when it holds for all of them.
    """
    judge = _Judge(graph, tensors, precision, targets)
    findings: list[Finding] = []
    sites: dict[int, int] = {}
    outputs = {tensor.name for tensor in graph.outputs}
    for order, node in enumerate(graph.nodes):
        if node.domain not in _STANDARD:
            continue
        if node.op in WEIGHTED:
            found = judge.weighted(node)
            if isinstance(found, Site):
                sites[id(node)] = order
            findings.append(found)
        elif node.op in RESIDUAL and len(node.inputs) == 2 and judge.holds(RESIDUAL[node.op]):
            skip = _residual(node, tensors.types, sites, outputs)
            if skip is not None:
                rule = kept_by(node, precision.keep)
                findings.append(skip if rule is None else Refusal(node, describe(rule)))
    return tuple(findings)


class _Judge:
    def __init__(
        self,
        graph: gs.Graph,
        tensors: Tensors,
        precision: Precision,
        targets: tuple[str, ...],
    ) -> None:
        self._types = tensors.types
        self._dims = tensors.dims
        self._precision = precision
        self._targets = targets
        self._indices = index_arithmetic(graph, tensors.types)
        self._dequantized = _dequantized(graph)
        self._ends = end_layers(graph, precision.unquantized, self._indices)
        self._weights_only = precision.quantize.endswith("weight_only")

    def holds(self, sources: Mapping[str, str]) -> bool:
        return holds_for(sources, self._targets)

    def weighted(self, node: gs.Node) -> Site | Product | Refusal:
        reason = self._objection(node)
        if reason is not None:
            return Refusal(node, reason)
        rule = WEIGHTED[node.op]
        constants = [i for i in (0, 1) if isinstance(node.inputs[i], gs.Constant)]
        if len(constants) == 2:
            return Refusal(node, "both operands are constants: fold it")
        if not constants:
            return self._product(node, rule)
        index = constants[0]
        name = node.inputs[index].name
        if index not in rule.channels:
            return Refusal(node, f"what it is applied to, '{name}', is a constant")
        if index == 0 and self._weights_only:
            return Refusal(node, f"the left operand '{name}' is the constant one")
        site = self._site(node, rule, index)
        if self._precision.compact and isinstance(site, Site):
            costly = too_costly(Weights.of(node, index, self._dims))
            if costly is not None:
                return Refusal(node, costly)
        return site

    def _objection(self, node: gs.Node) -> str | None:
        rule = kept_by(node, self._precision.keep)
        if rule is not None:
            return describe(rule)
        if not self.holds(WEIGHTED[node.op].sources):
            return f"not every target has {node.op} in {self._precision.quantize.upper()}"
        if any(tensor.name in self._dequantized for tensor in node.inputs[:2]):
            return "it is quantized already"
        if not all(is_float32(tensor, self._types) for tensor in node.inputs[:2]):
            return "its operands are not FP32"
        return self._ends.get(id(node)) or self._indices.get(id(node))

    def _product(self, node: gs.Node, rule: Weighted) -> Product | Refusal:
        name = node.inputs[1].name
        if not rule.products:
            return Refusal(node, f"its weight '{name}' is computed, it is no constant")
        if self._weights_only or not self._precision.attention:
            hint = "" if self._weights_only else "; `attention: true` quantizes such products"
            return Refusal(node, f"the right operand '{name}' is no constant weight{hint}")
        return Product(node, "product of two activations, both quantized")

    def _site(self, node: gs.Node, rule: Weighted, index: int) -> Site | Refusal:
        rank = len(node.inputs[index].shape)
        if node.op == "ConvTranspose" and node.attrs.get("group", 1) != 1:
            return Site(node, None, "per tensor: a grouped ConvTranspose has no channel axis")
        if rank < 2:
            if self._weights_only:
                return Refusal(node, "the weight is a vector")
            return Site(node, None, "per tensor: the weight is a vector", index)
        axis = rule.channels[index]
        if axis < 0:
            if node.attrs.get(rule.turned_by.get(index), 0):
                axis = -3 - axis
            axis += rank
        side = "" if index == 1 else ", the weight is the left operand"
        return Site(node, axis, f"per output channel (axis {axis}){side}", index)


def _dequantized(graph: gs.Graph) -> set[str]:
    """Tensors that hold dequantized values: of DequantizeLinear, and moved from there."""
    found: set[str] = set()
    for node in graph.nodes:
        moved = node.op in PASSING and node.inputs[0].name in found
        joined = node.op in JOINING and all(tensor.name in found for tensor in node.inputs)
        if node.op == "DequantizeLinear" or moved or joined:
            found.update(tensor.name for tensor in node.outputs)
    return found


def _residual(
    node: gs.Node, types: Mapping[str, int], sites: Mapping[int, int], outputs: set[str]
) -> Skip | None:
    """TensorRT fuses Conv + Add when the Add's other input is quantized as well."""
    if any(isinstance(t, gs.Constant) or not is_float32(t, types) for t in node.inputs):
        return None
    orders = [_fusible_conv(tensor, sites, outputs) for tensor in node.inputs]
    if max(orders) < 0:
        return None
    fused = 0 if orders[0] > orders[1] else 1
    fused_tensor = node.inputs[fused].name
    both = " (the later of two convolutions)" if min(orders) >= 0 else ""
    reason = f"skip branch; the Add fuses into the convolution of '{fused_tensor}'{both}"
    return Skip(node, 1 - fused, reason)


def _fusible_conv(tensor: gs.Tensor, sites: Mapping[int, int], outputs: set[str]) -> int:
    """The position of the quantized Conv whose only reader is the Add, or -1.

    A BatchNormalization that nobody folded may stand between; TensorRT folds it.
    """
    producer = tensor.inputs[0] if tensor.inputs else None
    if producer is None or len(tensor.outputs) != 1 or tensor.name in outputs:
        return -1
    if producer.op == "BatchNormalization":
        return _fusible_conv(producer.inputs[0], sites, outputs)
    return sites.get(id(producer), -1) if producer.op in ("Conv", "ConvTranspose") else -1
