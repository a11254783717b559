"""Where Q/DQ may stand: the target's rules, applied to a graph. Decides only, changes nothing.

Sources: TensorRT developer guide, "Explicit Quantization" (Q/DQ on both operands of a convolution
or matrix product, residual additions), and what the TensorRT-RTX parser refuses: zero points
other than 0, INT32 biases behind DequantizeLinear.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.precision.opgroups import MULTIPLY_ACCUMULATE
from trtforge.precision.ports import is_float32
from trtforge.precision.rules import describe, kept_by
from trtforge.recipe.schema import Precision


@dataclass(frozen=True, eq=False)
class Site:
    """A Conv, ConvTranspose, Gemm or MatMul that can be quantized.

    Attributes:
        node: the node.
        axis: the weight's axis of output channels; None: one scale for the whole weight.
        note: why there is one scale only, else how it is quantized.
    """

    node: gs.Node
    axis: int | None
    note: str

    @property
    def activation(self) -> gs.Tensor:
        """The operand that calibration measures."""
        return self.node.inputs[0]

    @property
    def weight(self) -> gs.Constant:
        """The constant operand."""
        return self.node.inputs[1]


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


@dataclass(frozen=True, eq=False)
class Refusal:
    """A node that is left alone, and why."""

    node: gs.Node
    reason: str


Finding = Site | Skip | Refusal


def find_sites(
    graph: gs.Graph, types: Mapping[str, int], precision: Precision
) -> tuple[Finding, ...]:
    """Judge every node that could be quantized, in graph order.

    Args:
        graph: topologically sorted.
        types: element type of each tensor.
        precision: the quantized type and the keep rules.
    """
    findings: list[Finding] = []
    sites: dict[int, int] = {}
    outputs = {tensor.name for tensor in graph.outputs}
    for order, node in enumerate(graph.nodes):
        if node.domain not in (None, "", "ai.onnx"):
            continue
        if node.op in MULTIPLY_ACCUMULATE:
            found = _judge(node, types, precision)
            if isinstance(found, Site):
                sites[id(node)] = order
            findings.append(found)
        elif node.op in ("Add", "Sum") and len(node.inputs) == 2:
            skip = _residual(node, types, sites, outputs)
            if skip is not None:
                rule = kept_by(node.op, node.name, precision.keep)
                findings.append(skip if rule is None else Refusal(node, describe(rule)))
    return tuple(findings)


def _judge(node: gs.Node, types: Mapping[str, int], precision: Precision) -> Site | Refusal:
    rule = kept_by(node.op, node.name, precision.keep)
    if rule is not None:
        return Refusal(node, describe(rule))
    activation, weight = node.inputs[0], node.inputs[1]
    if not is_float32(activation, types) or not is_float32(weight, types):
        return Refusal(node, "its operands are not FP32")
    if isinstance(activation, gs.Constant):
        return Refusal(node, f"the left operand '{activation.name}' is the constant one")
    if not isinstance(weight, gs.Constant):
        if any(producer.op == "DequantizeLinear" for producer in weight.inputs):
            return Refusal(node, "it is quantized already")
        return Refusal(node, f"the right operand '{weight.name}' is no constant weight")
    return _with_axis(node, len(weight.shape))


def _with_axis(node: gs.Node, rank: int) -> Site | Refusal:
    if node.op == "Conv":
        return Site(node, 0, "per output channel (axis 0)")
    if node.op == "ConvTranspose":
        if node.attrs.get("group", 1) != 1:
            # Weights are (Cin, Cout/group, ...): no axis enumerates the output channels.
            return Site(node, None, "per tensor: a grouped ConvTranspose has no channel axis")
        return Site(node, 1, "per output channel (axis 1)")
    if node.op == "Gemm":
        axis = 0 if node.attrs.get("transB", 0) else 1
        return Site(node, axis, f"per output channel (axis {axis})")
    if rank == 2:
        return Site(node, 1, "per output channel (axis 1)")
    if rank < 2:
        return Refusal(node, "the weight is a vector")
    return Site(node, None, f"per tensor: the weight is a batch of matrices (rank {rank})")


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
