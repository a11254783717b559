"""Q/DQ placement: symmetric INT8 or FP8 on activations and weights of the heavy operators.

Activations carry a QuantizeLinear/DequantizeLinear pair, one per tensor however many nodes read
it; weights are stored quantized and carry a DequantizeLinear only. Biases are untouched. The rules
are data: `placement_rules.py`; docs/quantization-placement.md tells them in words.
"""

from collections.abc import Sequence

import numpy as np

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.constants import editable_graph
from trtforge.precision.engine_size import engine_size
from trtforge.precision.explain import explain
from trtforge.precision.exposed_weights import expose_weights
from trtforge.precision.placement_rules import TARGETS
from trtforge.precision.qdq_writer import QdqWriter
from trtforge.precision.quantize_report import Action, Decision, QuantizeReport
from trtforge.precision.sharing import Sharing, share_pairs
from trtforge.precision.sites import Finding, Refusal, Site, find_sites
from trtforge.precision.typeinfo import tensors_of
from trtforge.recipe.schema import Precision

__all__ = [
    "MIN_OPSET",
    "Action",
    "Decision",
    "QuantizeReport",
    "candidate_tensors",
    "decide",
    "quantize",
]

MIN_OPSET = 19
"""QuantizeLinear-19 brought FP16 scales and FP8 (ONNX changelog)."""


def candidate_tensors(
    model: Model, precision: Precision, targets: tuple[str, ...] = TARGETS
) -> tuple[str, ...]:
    """Activations that quantization may need ranges of, in graph order.

    Empty where activations stay floats. Some may turn out not to be needed: which tensors share a
    pair depends on their ranges.
    """
    if precision.quantize not in ("int8", "fp8"):
        return ()
    graph = editable_graph(model)
    expose_weights(graph)
    findings = find_sites(graph, tensors_of(model.proto), precision, targets)
    wanted = [found for found in findings if not isinstance(found, Refusal)]
    return share_pairs(graph, wanted, None, precision.keep, targets).needed


def quantize(
    model: Model,
    cache: CalibrationCache,
    precision: Precision,
    targets: tuple[str, ...] = TARGETS,
) -> tuple[Model, QuantizeReport]:
    """Place Q/DQ nodes.

    Args:
        model: an FP32 model.
        cache: ranges of at least `candidate_tensors(model, precision, targets)`; scales of weights
            that it fixes are used as they are.
        precision: quantize is int8 or fp8 (none changes nothing, weights alone need no cache);
            scales are rounded up on the grid of `type`, and weights are quantized with the rounded
            scale.
        targets: backends that the result is for; a rule is used when it holds for all of them.

    Returns:
        The model at opset 19 or higher, and one decision per node that was looked at. What is
        quantized already is left as it is.

    Raises:
        DataError: the cache lacks a tensor (TF0521), or fixes scales that do not fit (TF0535).
        GraphError: the opset cannot be raised.
    """
    if precision.quantize == "none":
        return model, QuantizeReport("none", ())
    if precision.quantize in ("int8_weight_only", "int4_weight_only"):
        from trtforge.precision.weight_only import quantize_weights

        return quantize_weights(model, precision)
    raised = model if model.opset >= MIN_OPSET else model.with_opset(MIN_OPSET)
    graph = editable_graph(raised)
    expose_weights(graph)
    tensors = tensors_of(raised.proto)
    found = find_sites(graph, tensors, precision, targets)
    findings = [_with_values(finding, cache) for finding in found]
    wanted = [finding for finding in findings if not isinstance(finding, Refusal)]
    amax = {name: known.amax for name, known in cache.ranges.items()}
    sharing = share_pairs(graph, wanted, amax, precision.keep, targets)
    decisions = decide(findings, sharing)
    explained = explain(graph, tensors.types, sharing, decisions)
    writer = QdqWriter(graph, cache, precision)
    for finding in wanted:
        if isinstance(finding, Site):
            writer.put_weight(finding)
    for pair in sharing.pairs:
        writer.put_pair(pair)
    writer.insert()
    size = None
    if precision.quantize == "int8":
        size = engine_size(graph, tensors.dims, is_compact=precision.compact)
    report = QuantizeReport(precision.quantize, tuple(decisions.values()), explained, size)
    return raised.with_graph(graph), report


def _with_values(finding: Finding, cache: CalibrationCache) -> Finding:
    """Refuse what only values can tell: activations of zeros, weights that are no numbers."""
    if isinstance(finding, Refusal):
        return finding
    for index in finding.reads:
        if cache.range_of(finding.node.inputs[index].name).observed_amax == 0:
            return Refusal(finding.node, "calibration saw nothing but zeros there")
    if isinstance(finding, Site):
        values = finding.weight.values
        if values.size == 0:
            return Refusal(finding.node, f"its weight '{finding.weight.name}' is empty")
        if not (np.isfinite(values.max()) and np.isfinite(values.min())):
            return Refusal(finding.node, f"its weight '{finding.weight.name}' is not finite")
    return finding


def decide(findings: Sequence[Finding], sharing: Sharing) -> dict[int, Decision]:
    """Put findings in words: id(node) -> decision, in their order."""
    groups = {
        (id(node), index): pair.group
        for pair in sharing.pairs
        if len(pair.group) > 1
        for node, index in pair.readers
    }
    decisions: dict[int, Decision] = {}
    for finding in findings:
        node = finding.node
        if isinstance(finding, Refusal):
            one = Decision(node.name, node.op, "", "kept", finding.reason)
        else:
            first = finding.reads[0]
            shared = groups.get((id(node), first), ())
            note = f"; one scale for {len(shared)} tensors" if shared else ""
            one = Decision(
                node.name, node.op, node.inputs[first].name, "quantized", finding.note + note
            )
        decisions[id(node)] = one
    return decisions
