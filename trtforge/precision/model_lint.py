"""What is suspicious in a calibration cache when the model is at hand."""

from collections.abc import Iterator

from onnx import NodeProto, helper

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cache_lint import RULES, Finding, beyond
from trtforge.precision.cache_match import Matching, Wiring, exact_neighbours

_AT_MOST_ONE = frozenset(
    ["Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf", "Softsign", "Sin", "Cos"]
)
"""Operators whose results have magnitudes of at most 1, by definition."""

_UNDIVIDED = 127.0


def lint_model(
    cache: CalibrationCache, matching: Matching, model: Model, original: Model
) -> tuple[Finding, ...]:
    """Judge a cache against a model.

    Args:
        cache: the ranges.
        matching: of the cache and the model (`cache_match.match_ranges`).
        model: the cleaned-up model.
        original: the model as it was.
    """
    wirings = [Wiring(model), Wiring(original)]
    return (
        *_fit(cache, matching, model, original),
        *_bounds(cache, [model, original], wirings),
        *_undivided(cache, wirings),
    )


def _fit(
    cache: CalibrationCache, matching: Matching, model: Model, original: Model
) -> Iterator[Finding]:
    digest = cache.graph_digest
    if digest and digest not in (model.digest(), original.digest()):
        message = f"the cache was measured on {digest[:19]}, the model is {original.digest()[:19]}"
        yield Finding("stale-graph", message)
    if matching.missing and not matching.matches:
        message = f"none of the {len(matching.missing)} tensors that INT8 needs is in the cache"
        yield Finding("another-model", message)
    for name in matching.missing:
        yield Finding("no-range", f"'{name}' has no range", name)
    for match in matching.matches:
        if match.how != "name":
            yield Finding("derived-range", str(match), match.tensor)
    for one in matching.unused:
        yield Finding(one.slug, f"'{one.name}': {RULES[one.slug][1]}", one.name)


def _bounds(
    cache: CalibrationCache, models: list[Model], wirings: list[Wiring]
) -> Iterator[Finding]:
    for name, found in cache.ranges.items():
        for model, wiring in zip(models, wirings, strict=True):
            node = wiring.producers.get(name)
            bound = None if node is None else _bound(model, node)
            if node is not None and bound:
                finding = beyond(name, found.amax, bound, f"its operator {node.op_type}")
                if finding is not None:
                    yield finding
                    break


def _bound(model: Model, node: NodeProto) -> float | None:
    """The largest magnitude that a node's result can have; None: there is none."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _AT_MOST_ONE:
        return 1.0
    if node.op_type != "Clip":
        return None
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    ends = [attributes.get("min"), attributes.get("max")]
    for index, name in enumerate(node.input[1:3]):
        ends[index] = _scalar(model, name)
    low, high = ends
    return None if low is None or high is None else max(abs(float(low)), abs(float(high)))


def _scalar(model: Model, name: str) -> float | None:
    if name not in model.initializers:
        return None
    try:
        values = model.initializer(name)
    except GraphError:  # its file is gone; whoever needs the weights will say so
        return None
    return float(values.reshape(())) if values.size == 1 else None


def _undivided(cache: CalibrationCache, wirings: list[Wiring]) -> Iterator[Finding]:
    """Two tensors of the same values, and the one's range is 127 times the other's."""
    said = set()
    for wiring in wirings:
        for name, found in cache.ranges.items():
            for other, op in exact_neighbours(wiring, name):
                if other not in cache.ranges or not cache.ranges[other].amax or name in said:
                    continue
                ratio = found.amax / cache.ranges[other].amax
                if abs(ratio / _UNDIVIDED - 1) < 0.02:
                    said.add(name)
                    message = (
                        f"amax of '{name}' is {ratio:.1f} times that of '{other}', which has the "
                        f"same values ({op}): its scale was not divided by 127"
                    )
                    yield Finding("scale-is-amax", message, name)
