"""Q/DQ placement: symmetric INT8 or FP8 on activations and weights of the heavy operators.

Activations carry a QuantizeLinear/DequantizeLinear pair, one per tensor however many nodes read
it; weights are stored quantized and carry a DequantizeLinear only. Biases are untouched.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.scales import QUANTIZED_TYPE, quantize_values, scale_of
from trtforge.precision.sites import Finding, Refusal, Site, Skip, find_sites
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.schema import Precision

MIN_OPSET = 19
"""QuantizeLinear-19 brought FP16 scales and FP8 (ONNX changelog)."""

Action = Literal["quantized", "kept"]


@dataclass(frozen=True)
class Decision:
    """What was done with one node, and why."""

    node: str
    op: str
    tensor: str
    action: Action
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return the decision as plain JSON data."""
        return {
            "node": self.node,
            "op": self.op,
            "tensor": self.tensor,
            "action": self.action,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class QuantizeReport:
    """What quantization did, node by node in graph order."""

    quantize: str
    decisions: tuple[Decision, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        return {
            "quantize": self.quantize,
            "decisions": [decision.as_json() for decision in self.decisions],
        }


def candidate_tensors(model: Model, precision: Precision) -> tuple[str, ...]:
    """Activations that quantization needs ranges of, in graph order; empty for quantize none."""
    if precision.quantize == "none":
        return ()
    graph = editable_graph(model)
    findings = find_sites(graph, element_types(model.proto), precision)
    names = (f.activation.name for f in findings if not isinstance(f, Refusal))
    return tuple(dict.fromkeys(names))


def quantize(
    model: Model, cache: CalibrationCache, precision: Precision
) -> tuple[Model, QuantizeReport]:
    """Place Q/DQ nodes.

    Args:
        model: an FP32 model.
        cache: ranges of at least `candidate_tensors(model, precision)`.
        precision: quantize is int8 or fp8 (none changes nothing); scales are rounded up on the
            grid of `type`, and weights are quantized with the rounded scale.

    Returns:
        The model at opset 19 or higher, and one decision per node that was looked at.

    Raises:
        DataError: the cache lacks a tensor (TF0521).
        GraphError: the opset cannot be raised.
    """
    if precision.quantize == "none":
        return model, QuantizeReport("none", ())
    raised = model if model.opset >= MIN_OPSET else model.with_opset(MIN_OPSET)
    graph = editable_graph(raised)
    findings = find_sites(graph, element_types(raised.proto), precision)
    decisions = _Placer(graph, cache, precision).apply(findings)
    return raised.with_graph(graph), QuantizeReport(precision.quantize, decisions)


class _Placer:
    def __init__(self, graph: gs.Graph, cache: CalibrationCache, precision: Precision) -> None:
        self._graph = graph
        self._cache = cache
        self._kind = precision.quantize
        self._float_type = precision.type
        self._names = Names(graph)
        self._pairs: dict[str, gs.Tensor] = {}
        self._weights: dict[tuple[str, int | None], gs.Tensor] = {}
        self._zero_point: gs.Constant | None = None
        self._first: list[gs.Node] = []
        self._after: dict[int, list[gs.Node]] = defaultdict(list)

    def apply(self, findings: tuple[Finding, ...]) -> tuple[Decision, ...]:
        decisions = tuple(self._decide(finding) for finding in findings)
        self._insert()
        return decisions

    def _decide(self, finding: Finding) -> Decision:
        node = finding.node
        if isinstance(finding, Refusal):
            return Decision(node.name, node.op, "", "kept", finding.reason)
        name = finding.activation.name
        if self._cache.range_of(name).observed_amax == 0:
            reason = "calibration saw nothing but zeros there"
            return Decision(node.name, node.op, name, "kept", reason)
        index = finding.index if isinstance(finding, Skip) else 0
        node.inputs[index] = self._activation(finding.activation)
        if isinstance(finding, Site):
            node.inputs[1] = self._weight(finding)
        return Decision(node.name, node.op, name, "quantized", finding.note)

    def _activation(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor.name not in self._pairs:
            self._pairs[tensor.name] = self._make_pair(tensor)
        return self._pairs[tensor.name]

    def _make_pair(self, tensor: gs.Tensor) -> gs.Tensor:
        name = tensor.name
        value = np.float32(self._cache.scale(name, self._kind, self._float_type))
        scale = gs.Constant(self._names.fresh(f"{name}_scale"), np.asarray(value))
        if self._zero_point is None:
            zero = np.zeros((), QUANTIZED_TYPE[self._kind])
            self._zero_point = gs.Constant(self._names.fresh(f"{self._kind}_zero_point"), zero)
        quantized = self._variable(f"{name}_QuantizeLinear", QUANTIZED_TYPE[self._kind], tensor)
        result = self._variable(f"{name}_DequantizeLinear", np.dtype(np.float32), tensor)
        pair = [
            self._node("QuantizeLinear", name, [tensor, scale, self._zero_point], quantized),
            self._node("DequantizeLinear", name, [quantized, scale, self._zero_point], result),
        ]
        if tensor.inputs:
            self._after[id(tensor.inputs[0])].extend(pair)
        else:
            self._first.extend(pair)
        return result

    def _weight(self, site: Site) -> gs.Tensor:
        weight, axis = site.weight, site.axis
        key = (weight.name, axis)
        if key not in self._weights:
            self._weights[key] = self._make_weight(weight, axis)
        return self._weights[key]

    def _make_weight(self, weight: gs.Constant, axis: int | None) -> gs.Tensor:
        values = np.asarray(weight.values, np.float32)
        others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
        amax = np.maximum(values.max(axis=others), -values.min(axis=others))
        scale = scale_of(amax, self._kind, self._float_type)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        spread = scale.reshape(shape) if axis is not None else scale
        stored = quantize_values(values, spread, self._kind)
        name = weight.name
        inputs = [
            gs.Constant(self._names.fresh(f"{name}_quantized"), stored),
            gs.Constant(self._names.fresh(f"{name}_scale"), scale),
        ]
        result = self._variable(f"{name}_DequantizeLinear", np.dtype(np.float32), weight)
        node = self._node("DequantizeLinear", name, inputs, result)
        if axis is not None:
            node.attrs["axis"] = axis
        self._first.append(node)
        return result

    def _variable(self, name: str, dtype: np.dtype[Any], like: gs.Tensor) -> gs.Variable:
        return gs.Variable(self._names.fresh(name), dtype, like.shape)

    def _node(self, op: str, name: str, inputs: list[gs.Tensor], output: gs.Tensor) -> gs.Node:
        return gs.Node(op, self._names.fresh_node(f"{name}_{op}"), {}, inputs, [output])

    def _insert(self) -> None:
        nodes = list(self._first)
        for node in self._graph.nodes:
            nodes.append(node)
            nodes.extend(self._after.get(id(node), ()))
        self._graph.nodes.clear()
        self._graph.nodes.extend(nodes)
