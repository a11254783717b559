"""What a recipe asks of the types and does not get, as warnings: no build may hide it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import TensorProto

from trtforge.graph.model import Model
from trtforge.precision import opgroups as ops
from trtforge.precision.quantize_report import QuantizeReport
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.schema import Precision

_NARROW: dict[int, str] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def quantize_shortfall(report: QuantizeReport) -> tuple[str, ...]:
    """Say so, and why, when quantization touched no node, or makes engines larger."""
    if report.quantize == "none":
        return ()
    if any(one.action == "quantized" for one in report.decisions):
        return report.engine.warnings() if report.engine is not None else ()
    if not report.decisions:
        wanted = ", ".join(ops.MULTIPLY_ACCUMULATE)
        why = f"outside of control flow the model has none of {wanted}"
    else:
        why = _most_common([(one.op, one.node, one.reason) for one in report.decisions])
    return (f"nothing is quantized to {report.quantize}: {why}",)


def nothing_of(
    model: Model, quantized: QuantizeReport, nodes: Mapping[str, int], precision: Precision
) -> str:
    """Return what was asked for and is nowhere in the model: `int8`, `fp16`; empty when nothing.

    Args:
        model: the typed model.
        quantized: what quantization did.
        nodes: how many nodes were placed in each float type; empty where none were FP32.
        precision: what was asked for.
    """
    if precision.quantize != "none":
        done = any(one.action == "quantized" for one in quantized.decisions)
        return "" if done else precision.quantize
    there = nodes or _narrow_nodes(model)
    return "" if precision.type == "fp32" or precision.type in there else precision.type


def cast_shortfall(
    nodes: Mapping[str, int], kept: Sequence[tuple[str, str, str]], precision: Precision
) -> tuple[str, ...]:
    """Say so, and why, when FP16 or BF16 was asked for and no node computes in it.

    Args:
        nodes: how many nodes were placed in each float type.
        kept: operator, name and reason of each node that stayed wider.
        precision: what the recipe asks for.
    """
    if precision.type == "fp32" or precision.type in nodes or not kept:
        return ()
    return (f"nothing computes in {precision.type}: {_most_common(kept)}",)


def narrower_already(model: Model, precision: Precision) -> tuple[str, ...]:
    """Say so when the model itself computes in another narrow type than the recipe's."""
    return tuple(
        f"{count} {'node computes' if count == 1 else 'nodes compute'} in {kind} in the model "
        f"itself and are left so; precision.type {precision.type} is not for them"
        for kind, count in sorted(_narrow_nodes(model).items())
        if kind != precision.type
    )


def none_to_cast(nodes: Mapping[str, int], precision: Precision) -> tuple[str, ...]:
    """Say so when the model was of the narrow type before; see `nothing_of` for `nodes`."""
    if nodes or precision.type == "fp32":
        return ()
    return (f"nothing was cast: no node is FP32, and some compute in {precision.type} already",)


def _narrow_nodes(model: Model) -> Counter[str]:
    """Count the nodes that compute in each narrow type."""
    types = element_types(model.proto)
    found: Counter[str] = Counter()
    for node in model.proto.graph.node:
        kind = _NARROW.get(next((types[name] for name in node.output if name in types), 0))
        if kind is not None and node.op_type not in ops.CONVERTERS:
            found[kind] += 1
    return found


def _most_common(kept: Sequence[tuple[str, str, str]]) -> str:
    reason, count = Counter(reason for _, _, reason in kept).most_common(1)[0]
    operator, name = next((op, name) for op, name, why in kept if why == reason)
    example = f"{operator} '{name}'" if name else operator
    more = f" and {count - 1} more" if count > 1 else ""
    return f"{reason} ({example}{more})"
