"""FP16 and BF16 in the graph: where casts stand, and the weights converted once.

The graph's inputs and outputs keep their types. A tensor is cast at most once to each type;
Cast, ConstantOfShape and DequantizeLinear nodes give the wanted type themselves.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtforge.errors import GraphError
from trtforge.graph.dialect import all_nodes
from trtforge.graph.model import Model
from trtforge.precision import opgroups as ops
from trtforge.precision.attention import without_wide_masks
from trtforge.precision.constants import editable_graph
from trtforge.precision.masks import shrink_masks
from trtforge.precision.placement import Placement, place
from trtforge.precision.quantize_report import QuantizeReport
from trtforge.precision.relaxing import relax
from trtforge.precision.retype import Retyper
from trtforge.precision.rules import describe, spots_of, unmatched
from trtforge.precision.scopes import with_unique_names
from trtforge.precision.shortfall import cast_shortfall, narrower_already, quantize_shortfall
from trtforge.precision.typeinfo import element_types, tensors_of
from trtforge.recipe.precision import ForceRule, KeepRule
from trtforge.recipe.schema import Precision

if TYPE_CHECKING:
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.float_ranges import FloatRanges

BF16_OPSET = 22
"""The first opset in which Conv, pooling and many more have BF16 (ONNX changelog, opset 22)."""


@dataclass(frozen=True)
class CastDecision:
    """A node that does not compute in the wanted type, and why."""

    node: str
    op: str
    type: str
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return the decision as plain JSON data."""
        return {"node": self.node, "op": self.op, "type": self.type, "reason": self.reason}


@dataclass(frozen=True)
class CastReport:
    """What casting did.

    Attributes:
        type: the wanted type.
        nodes: how many nodes compute in each float type.
        casts_added: Cast nodes that were not in the graph before.
        decisions: the exceptions, in graph order.
    """

    type: str
    nodes: Mapping[str, int]
    casts_added: int
    decisions: tuple[CastDecision, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        return {
            "type": self.type,
            "nodes": dict(self.nodes),
            "casts_added": self.casts_added,
            "decisions": [decision.as_json() for decision in self.decisions],
        }


@dataclass(frozen=True)
class TypedModel:
    """A strongly typed model with the reports of how it came to be.

    Attributes:
        model: the result.
        quantize: what was quantized.
        cast: what was cast.
        warnings: what a user should look at, such as keep rules that select nothing, or a type
            that was asked for and that no node has.
    """

    model: Model
    quantize: QuantizeReport
    cast: CastReport
    warnings: tuple[str, ...] = ()

    @property
    def engine_warnings(self) -> tuple[str, ...]:
        """Those of the warnings that matter only where a TensorRT-RTX engine is built."""
        engine = self.quantize.engine
        return () if engine is None else engine.warnings()

    def as_json(self) -> dict[str, Any]:
        """Return both reports and the warnings as plain JSON data."""
        return {
            "quantize": self.quantize.as_json(),
            "cast": self.cast.as_json(),
            "warnings": list(self.warnings),
        }


def typed(
    model: Model,
    cache: "CalibrationCache | None",
    precision: Precision,
    ranges: "FloatRanges | None" = None,
) -> TypedModel:
    """Quantize, then cast: the whole way from an FP32 model to the typed one.

    Args:
        model: the cleaned model.
        cache: ranges of the activations; needed when `precision.quantize` is int8 or fp8.
        precision: what the recipe asks for.
        ranges: what was measured of every float tensor of the model, judged for
            `precision.type`; without, what may go wrong in that type stays wider.

    Raises:
        GraphError: quantization is asked for without a cache (TF0532), or the graph is refused.
        DataError: the cache lacks a tensor.
    """
    model = _without_functions(model)
    quantized, quantize_report = quantized_only(model, cache, precision)
    observed: Mapping[str, float] = {}
    if ranges is not None:
        observed = ranges
    elif cache is not None:
        observed = {name: found.observed_amax for name, found in cache.ranges.items()}
    result, cast_report = cast(quantized, precision, observed)
    kept = [(one.op, one.node, one.reason) for one in cast_report.decisions]
    warnings = (
        *_idle_rules(model, precision),
        *quantize_shortfall(quantize_report),
        *cast_shortfall(cast_report.nodes, kept, precision),
        *narrower_already(model, precision),
        *(cache.warnings if cache is not None else ()),
    )
    return TypedModel(result, quantize_report, cast_report, warnings)


def quantized_only(
    model: Model, cache: "CalibrationCache | None", precision: Precision
) -> tuple[Model, QuantizeReport]:
    """Quantize in whichever way `precision.quantize` says; what is not quantized stays FP32.

    Raises:
        GraphError: ranges are needed and there are none (TF0532), or the graph is refused.
        DataError: the cache lacks a tensor.
    """
    if precision.quantize == "none":
        return model, QuantizeReport(quantize="none", decisions=())
    # Casting alone needs none of these, and on small networks their import costs more than it.
    from trtforge.precision.quantize import quantize
    from trtforge.precision.weight_only import WEIGHT_ONLY, quantize_weights

    if precision.quantize in WEIGHT_ONLY:
        return quantize_weights(model, precision)
    if cache is None:
        raise GraphError(
            "TF0532",
            f"{precision.quantize} needs calibrated ranges and there are none",
            "give the recipe a `calibration` section",
        )
    return quantize(model, cache, precision)


def _idle_rules(model: Model, precision: Precision) -> list[str]:
    rules: tuple[KeepRule | ForceRule, ...] = (*precision.keep, *precision.force)
    idle = unmatched(spots_of(model.proto.graph), rules)
    return [f"the {describe(rule)} selects no node" for rule in idle]


def cast(
    model: Model, precision: Precision, observed: Mapping[str, float] | None = None
) -> tuple[Model, CastReport]:
    """Place FP16 or BF16 casts, in the graph and in the bodies of its If, Loop and Scan nodes.

    Args:
        model: an FP32 model, with or without Q/DQ; functions of its own are written out first.
        precision: the wanted type, the rules, and whether inputs and outputs are converted.
        observed: largest magnitude that calibration saw, per tensor; what exceeds the type's
            range stays FP32.

    Returns:
        The typed model, and which nodes stayed wider and why.

    Raises:
        GraphError: the model's types contradict each other.
    """
    rules: tuple[KeepRule | ForceRule, ...] = (*precision.keep, *precision.force)
    narrow = {precision.type, *(rule.type for rule in rules)} - {"fp32"}
    if not narrow:
        return model, CastReport("fp32", _float_nodes(model), 0, ())
    ready = _ready(model, precision, observed, is_bf16="bf16" in narrow)
    tensors = tensors_of(ready.proto)
    graph = editable_graph(ready)
    shrink_masks(graph, observed)
    placement = place(graph, tensors, precision, observed)
    relax(graph, tensors, precision, placement)
    decisions = tuple(
        CastDecision(node.name, node.op, placed.type, placed.reason)
        for node in all_nodes(graph)
        if (placed := placement.nodes[id(node)]).reason is not None and placed.type is not None
    )
    counts = _count(placement)
    added = Retyper(graph, tensors.types, placement, precision).apply()
    return ready.with_graph(graph), CastReport(precision.type, counts, added, decisions)


def _ready(
    model: Model, precision: Precision, observed: Mapping[str, float] | None, *, is_bf16: bool
) -> Model:
    """The same model in a form in which all nodes can have a type of their own."""
    model = _without_functions(model)
    if is_bf16:
        model = _with_bf16_forms(model)
    if _is_quantized(model):
        from trtforge.precision.quantize import MIN_OPSET

        model = model.with_opset(MIN_OPSET)  # before, DequantizeLinear gives FP32 alone
    return without_wide_masks(with_unique_names(model), precision, observed)


def _without_functions(model: Model) -> Model:
    if not model.proto.functions:
        return model
    from trtforge.graph.cleanup.functions import InlineFunctions

    return InlineFunctions().apply_model(model)[0]


def _with_bf16_forms(model: Model) -> Model:
    if model.opset >= BF16_OPSET:
        return model
    try:
        return model.with_opset(BF16_OPSET)
    except GraphError:
        # The model stays at its opset; nodes without a BF16 form there stay FP32, with reason.
        return model


def _is_quantized(model: Model) -> bool:
    operators = {node.op_type for node in model.proto.graph.node}
    return bool(operators & {"QuantizeLinear", "DequantizeLinear"})


def _count(placement: Placement) -> dict[str, int]:
    counts = Counter(placed.type for placed in placement.nodes.values() if placed.type is not None)
    return dict(sorted(counts.items()))


def _float_nodes(model: Model) -> dict[str, int]:
    types = element_types(model.proto)
    skipped = ops.CONVERTERS | ops.TYPE_BLIND
    floats = [
        node
        for node in model.proto.graph.node
        if node.op_type not in skipped and any(types.get(name) == 1 for name in node.output)
    ]
    return {"fp32": len(floats)} if floats else {}
