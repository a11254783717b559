"""Weight-only quantization: INT8 or INT4 weights behind a DequantizeLinear, activations untouched.

The products compute in the float type; files and engines shrink, and what is bound by the reading
of weights gets faster. It needs no calibration. Scales are those of least squared error.

INT4 stands in blocks along the axis that is summed over (DequantizeLinear-21, `block_size`). What
INT4 cannot hold becomes INT8 with a scale per output channel; embeddings, biases and recurrent
weights stay as they are. Measured with the TensorRT-RTX 1.7.1 builder: it takes INT8 weights of
Conv, ConvTranspose, Gemm and MatMul, and blocks only along one of the last two axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.quantize import MIN_OPSET, Action, Decision, QuantizeReport
from trtforge.precision.scales import FLOAT_MAX, Floats, quantize_values
from trtforge.precision.sites import Finding, Refusal, Site, find_sites
from trtforge.precision.typeinfo import tensors_of
from trtforge.precision.weight_scales import block_scales, weight_scales
from trtforge.recipe.schema import Precision

INT4_OPSET = 21
"""INT4 and DequantizeLinear's `block_size` came with opset 21 (ONNX changelog)."""

WEIGHT_ONLY = ("int8_weight_only", "int4_weight_only")
"""The values of `precision.quantize` that this file is for."""

_BLOCKS = (128, 64, 32)


@dataclass(frozen=True)
class Form:
    """How one weight is stored.

    Attributes:
        grid: int8 or int4.
        axis: of the channels, or of the blocks; None for a single scale.
        block: weights in a block; 0 for a scale per channel.
        note: the form in words, with the reason where it is not the one asked for.
    """

    grid: str
    axis: int | None
    block: int
    note: str


def quantize_weights(model: Model, precision: Precision) -> tuple[Model, QuantizeReport]:
    """Store the weights of matrix products and convolutions in INT8 or INT4.

    Args:
        model: an FP32 model.
        precision: quantize is int8_weight_only or int4_weight_only; scales are exact in `type`.

    Returns:
        The model, at opset 21 or higher for INT4 and 19 for INT8, and one decision per node.

    Raises:
        GraphError: the opset cannot be raised.
    """
    least = INT4_OPSET if precision.quantize == "int4_weight_only" else MIN_OPSET
    raised = model if model.opset >= least else model.with_opset(least)
    graph = editable_graph(raised)
    findings = find_sites(graph, tensors_of(raised.proto), precision)
    plan = plan_weights(findings, precision)
    writer = _Writer(graph, precision)
    decisions = []
    for finding in findings:
        node = finding.node
        if isinstance(finding, Refusal):
            decisions.append(Decision(node.name, node.op, "", "kept", finding.reason))
        elif isinstance(finding, Site):
            form, weight = plan[id(node)], finding.weight.name
            action: Action = "kept"
            if isinstance(form, Form):
                writer.put(finding, form)
                action = "quantized"
            note = form.note if isinstance(form, Form) else form
            decisions.append(Decision(node.name, node.op, weight, action, note))
    writer.insert()
    return raised.with_graph(graph), QuantizeReport(precision.quantize, tuple(decisions))


def plan_weights(findings: Sequence[Finding], precision: Precision) -> dict[int, Form | str]:
    """Decide how each site's weight is stored: id(node) -> its form, or why it is left as it is."""
    sites = {id(f.node): f for f in findings if isinstance(f, Site)}
    return {
        key: _objection(site, sites, precision.type) or _form(site, precision)
        for key, site in sites.items()
    }


def _objection(site: Site, sites: dict[int, Site], float_type: str) -> str | None:
    """Why a weight is left as it is, or None."""
    weight = site.weight
    for reader in weight.outputs:
        served = sites.get(id(reader))
        if served is None or sum(tensor is weight for tensor in reader.inputs) != 1:
            name = f" '{reader.name}'" if reader.name else ""
            return f"{reader.op}{name} reads the float weight too: a second copy would save nothing"
    largest = float(np.abs(weight.values).max(initial=0.0))
    if not np.isfinite(largest):
        return "it holds values that are not finite"
    if largest > FLOAT_MAX[float_type]:
        return f"its largest weight, {largest:.3g}, is beyond {float_type.upper()}"
    return None


def _form(site: Site, precision: Precision) -> Form:
    if precision.quantize == "int8_weight_only":
        return _int8(site, "")
    rank = len(site.weight.shape)
    if site.node.op not in ("MatMul", "Gemm"):
        return _int8(site, "; INT4 blocks are for matrix products")
    is_transposed = site.node.op == "Gemm" and site.node.attrs.get("transB", 0)
    axis = rank - 1 if is_transposed else rank - 2
    length = site.weight.shape[axis]
    # ONNX allows a short last block, but TensorRT has no block size of its own: it divides.
    block = next((b for b in _BLOCKS if b <= precision.block_size and length % b == 0), 0)
    if not block:
        return _int8(site, f"; INT4 needs blocks of 32 or more, and 32 does not divide {length}")
    why = "" if block == precision.block_size else f", as {precision.block_size} does not divide it"
    return Form("int4", axis, block, f"INT4 in blocks of {block} along axis {axis}{why}")


def _int8(site: Site, why: str) -> Form:
    axis = site.axis
    if site.node.op == "MatMul":
        axis = len(site.weight.shape) - 1
    if axis is None:
        return Form("int8", None, 0, f"INT8 {site.note}{why}")
    return Form("int8", axis, 0, f"INT8 per output channel (axis {axis}){why}")


class _Writer:
    """Puts stored weights and their DequantizeLinear in place; one for each weight and form."""

    def __init__(self, graph: gs.Graph, precision: Precision) -> None:
        self._graph = graph
        self._float_type = precision.type
        self._names = Names(graph)
        self._made: dict[tuple[str, int | None], gs.Tensor] = {}
        self._nodes: list[gs.Node] = []

    def put(self, site: Site, form: Form) -> None:
        """Let a node read the stored weight."""
        weight = site.weight
        key = (weight.name, form.axis)
        if key not in self._made:
            self._made[key] = self._make(weight, form)
        site.node.inputs[1] = self._made[key]

    def insert(self) -> None:
        """Put the new nodes in front of all others."""
        self._graph.nodes[:0] = self._nodes

    def _make(self, weight: gs.Constant, form: Form) -> gs.Tensor:
        scale, stored = _stored(np.asarray(weight.values, np.float32), form, self._float_type)
        name = weight.name
        inputs = [
            gs.Constant(self._names.fresh(f"{name}_quantized"), stored),
            gs.Constant(self._names.fresh(f"{name}_scale"), scale),
        ]
        result = gs.Variable(
            self._names.fresh(f"{name}_DequantizeLinear"), np.dtype(np.float32), weight.shape
        )
        attributes = {"axis": form.axis} if form.axis is not None else {}
        if form.block:
            attributes["block_size"] = form.block
        label = self._names.fresh_node(f"{name}_DequantizeLinear")
        self._nodes.append(gs.Node("DequantizeLinear", label, attributes, inputs, [result]))
        return result


def _stored(values: Floats, form: Form, float_type: str) -> tuple[Floats, np.ndarray]:
    """Scales, and the weights on the grid."""
    axis, shape = form.axis, values.shape
    if axis is None or not form.block:
        scale = weight_scales(values, axis, form.grid, float_type=float_type)
        spread = [-1 if i == axis else 1 for i in range(values.ndim)]
        return scale, quantize_values(values, scale.reshape(spread), form.grid)
    scale = block_scales(values, axis, form.block, form.grid, float_type=float_type)
    cut = values.reshape(*shape[:axis], -1, form.block, *shape[axis + 1 :])
    stored = quantize_values(cut, np.expand_dims(scale, axis + 1), form.grid)
    return scale, stored.reshape(shape)
