"""A calibration cache of whatever origin put onto a model as Q/DQ.

What fits is quantized, what has no range stays a float, and both are reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import escape

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cache_match import Matching, Wiring, match_ranges
from trtforge.precision.cast import TypedModel, typed
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.opgroups import MULTIPLY_ACCUMULATE
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import KeepRule, Precision

_MOST_ROUNDS = 8
"""Operators between a tensor and the one that is quantized for its sake."""


@dataclass(frozen=True)
class Left:
    """A node that stays a float because a tensor has no range.

    Attributes:
        node: its name.
        op: its operator.
        tensor: the tensor that has no range.
    """

    node: str
    op: str
    tensor: str

    @property
    def reason(self) -> str:
        """Why."""
        return f"the calibration cache has no range of '{self.tensor}'"


@dataclass(frozen=True)
class Applied:
    """What became of a model and a cache.

    Attributes:
        typed: the quantized model and the reasons for everything in it.
        cache: the ranges under the model's names.
        matching: which range went to which tensor.
        left: nodes that stay floats for want of a range.
    """

    typed: TypedModel
    cache: CalibrationCache
    matching: Matching
    left: tuple[Left, ...]


def apply_cache(
    cache: CalibrationCache, model: Model, precision: Precision, original: Model | None = None
) -> Applied:
    """Quantize a model with the ranges of a cache.

    Args:
        cache: ranges of this model, or of the one it was made from.
        model: the cleaned-up model.
        precision: quantize is int8 or fp8.
        original: the model it was made from.

    Raises:
        GraphError: TF0556, a tensor without a range cannot be left a float; or the model is
            refused.
    """
    model = _with_node_names(model)
    matching = match_ranges(cache, candidate_tensors(model, precision), model, original)
    left, precision = _leave(model, precision, matching.missing)
    fitting = cache.model_copy(
        update={"ranges": dict(matching.ranges), "warnings": (*cache.warnings, *_bounds(matching))}
    )
    result = typed(model, fitting, precision)
    reasons = {one.node: one.reason for one in left}
    decisions = tuple(
        replace(one, reason=reasons[one.node])
        if one.action == "kept" and one.node in reasons
        else one
        for one in result.quantize.decisions
    )
    report = replace(result.quantize, decisions=decisions)
    judged = {one.node for one in decisions}
    told = tuple(one for one in left if one.node in judged)  # the others are floats in any case
    return Applied(replace(result, quantize=report), fitting, matching, told)


def _bounds(matching: Matching) -> list[str]:
    wide = [match for match in matching.matches if match.how == "upper bound"]
    return [f"the range of {match} may be too large" for match in wide]


def _with_node_names(model: Model) -> Model:
    """Name the nodes that have no name, so that keep rules can select them."""
    if all(node.name for node in model.proto.graph.node):
        return model
    graph = editable_graph(model)
    names = Names(graph)
    for node in graph.nodes:
        if not node.name:
            node.name = names.fresh_node(f"{node.op}_{node.outputs[0].name}")
    return model.with_graph(graph)


def _leave(
    model: Model, precision: Precision, missing: Sequence[str]
) -> tuple[tuple[Left, ...], Precision]:
    """Keep the readers of tensors without a range.

    Where one of them only moves values and a node behind it is what is quantized, that one, too.
    """
    wiring, keep = Wiring(model), precision.keep
    left: dict[str, Left] = {}
    borders = {name: [name] for name in missing}
    for _ in range(_MOST_ROUNDS):
        needed = set(candidate_tensors(model, precision))
        still = [name for name in missing if name in needed]
        if not still:
            return tuple(left.values()), precision
        for name in still:
            readers = [node for at in borders[name] for node in wiring.readers.get(at, ())]
            for node in readers:
                left.setdefault(node.name, Left(node.name, node.op_type, name))
            movers = (node for node in readers if node.op_type not in MULTIPLY_ACCUMULATE)
            borders[name] = [output for node in movers for output in node.output]
        rules = [KeepRule(name=escape(name), type=precision.type) for name in left]
        precision = precision.model_copy(update={"keep": (*keep, *rules)})
    raise GraphError(
        "TF0556",
        f"'{still[0]}' has no range, and its readers cannot be told to stay floats",
        "name them in keep rules, or calibrate the model",
    )
