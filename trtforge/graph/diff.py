"""What changed between two ONNX models: contract, operators, nodes, weights and the rest.

Not compared are the order of initializers, where and in which field their bytes are stored, and
what subgraphs and initializers tell their readers only (documentation, value_info, metadata).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import FunctionProto, ModelProto

from trtforge.graph.contract import TensorSpec
from trtforge.graph.diff_attributes import FieldChange, attribute_change, field_changes
from trtforge.graph.diff_nodes import (
    NodesDiff,
    Walk,
    list_changes,
    metadata_changes,
    operator_of,
)
from trtforge.graph.diff_weights import WeightsDiff, compare_weights
from trtforge.graph.model import Model
from trtforge.graph.weights import model_nodes


@dataclass(frozen=True)
class PortsDiff:
    """What changed among the inputs, or the outputs, of two models.

    Attributes:
        added: new ones.
        removed: those that are gone.
        changed: those of another type or shape, as they were and as they are.
        reordered: whether the remaining ones stand in another order.
    """

    added: tuple[TensorSpec, ...] = ()
    removed: tuple[TensorSpec, ...] = ()
    changed: tuple[tuple[TensorSpec, TensorSpec], ...] = ()
    reordered: bool = False

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.changed or self.reordered)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "added": [spec.as_json() for spec in self.added],
            "removed": [spec.as_json() for spec in self.removed],
            "changed": [
                {"before": old.as_json(), "after": new.as_json()} for old, new in self.changed
            ],
            "reordered": self.reordered,
        }


@dataclass(frozen=True)
class FunctionChange:
    """A local function that is in both models and has another signature.

    What changed among its nodes is told with the nodes of the graph.
    """

    name: str
    changes: tuple[FieldChange, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"name": self.name, "changes": [change.as_json() for change in self.changes]}


@dataclass(frozen=True)
class FunctionsDiff:
    """What changed among the local functions of two models, by their full names."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[FunctionChange, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.changed)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": [change.as_json() for change in self.changed],
        }


@dataclass(frozen=True)
class OperatorCount:
    """How often an operator stands in two models, subgraphs included."""

    op: str
    before: int
    after: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "op": self.op,
            "before": self.before,
            "after": self.after,
            "delta": self.after - self.before,
        }


@dataclass(frozen=True)
class ModelDiff:
    """What changed between two models.

    Attributes:
        inputs: of the contract.
        outputs: of the contract.
        model: IR version, opset imports, producer, documentation, metadata.
        operators: those whose count changed, the largest change first.
        nodes: of the graph, its subgraphs and the functions that are in both models.
        initializers: of the graph and its subgraphs.
        functions: the local functions.
    """

    inputs: PortsDiff
    outputs: PortsDiff
    model: tuple[FieldChange, ...]
    operators: tuple[OperatorCount, ...]
    nodes: NodesDiff
    initializers: WeightsDiff
    functions: FunctionsDiff

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        parts = (self.inputs, self.outputs, self.nodes, self.initializers, self.functions)
        return not (self.model or self.operators) and all(part.identical for part in parts)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "contract": {"inputs": self.inputs.as_json(), "outputs": self.outputs.as_json()},
            "model": [change.as_json() for change in self.model],
            "operators": [operator.as_json() for operator in self.operators],
            "nodes": self.nodes.as_json(),
            "initializers": self.initializers.as_json(),
            "functions": self.functions.as_json(),
        }


def diff_models(before: Model, after: Model) -> ModelDiff:
    """Compare two models.

    Args:
        before: the model as it was.
        after: the model as it is.

    Returns:
        All that changed; weights are compared byte by byte.

    Raises:
        GraphError: TF0402, TF0404, bytes of a tensor cannot be had.
    """
    walk = Walk((before.files, after.files))
    walk.compare("", before.proto.graph, after.proto.graph)
    functions = _diff_functions(before, after, walk)
    counts = tuple(_operators(model.proto) for model in (before, after))
    return ModelDiff(
        _diff_ports(before.contract.inputs, after.contract.inputs),
        _diff_ports(before.contract.outputs, after.contract.outputs),
        tuple(_model_changes(before.proto, after.proto)),
        _diff_operators(*counts),
        NodesDiff(
            (counts[0].total(), counts[1].total()),
            tuple(walk.added),
            tuple(walk.removed),
            tuple(walk.changed),
            tuple(walk.reordered),
        ),
        compare_weights(*walk.weights),
        functions,
    )


def _diff_ports(before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> PortsDiff:
    old, new = ({spec.name: spec for spec in side} for side in (before, after))
    return PortsDiff(
        tuple(spec for name, spec in new.items() if name not in old),
        tuple(spec for name, spec in old.items() if name not in new),
        tuple((old[name], new[name]) for name in old if name in new and old[name] != new[name]),
        [name for name in old if name in new] != [name for name in new if name in old],
    )


def _operators(proto: ModelProto) -> Counter[str]:
    return Counter(operator_of(node) for node in model_nodes(proto))


def _diff_operators(before: Counter[str], after: Counter[str]) -> tuple[OperatorCount, ...]:
    found = [
        OperatorCount(op, before[op], after[op])
        for op in before.keys() | after.keys()
        if before[op] != after[op]
    ]
    return tuple(sorted(found, key=lambda entry: (-abs(entry.after - entry.before), entry.op)))


def _diff_functions(before: Model, after: Model, walk: Walk) -> FunctionsDiff:
    old, new = (
        {_function_name(function): function for function in model.proto.functions}
        for model in (before, after)
    )
    changed = []
    for name in (name for name in old if name in new):
        changes = tuple(_function_changes(old[name], new[name], (before, after)))
        if changes:
            changed.append(FunctionChange(name, changes))
        walk.compare(name, old[name], new[name])
    return FunctionsDiff(
        tuple(name for name in new if name not in old),
        tuple(name for name in old if name not in new),
        tuple(changed),
    )


def _function_name(function: FunctionProto) -> str:
    name = f"{function.domain}::{function.name}"
    return f"{name}:{function.overload}" if function.overload else name


def _function_changes(
    old: FunctionProto, new: FunctionProto, models: tuple[Model, Model]
) -> Iterator[FieldChange]:
    yield from list_changes("input", old.input, new.input)
    yield from list_changes("output", old.output, new.output)
    yield from list_changes("attribute", old.attribute, new.attribute)
    defaults = [{a.name: a for a in side.attribute_proto} for side in (old, new)]
    files = (models[0].files, models[1].files)
    for name in {**defaults[0], **defaults[1]}:
        change = attribute_change(defaults[0].get(name), defaults[1].get(name), files)
        if change is not None:
            yield FieldChange(f"attribute {name}", change.before, change.after, change.note)
    yield from _opset_changes(old, new)
    yield from field_changes(("doc_string", old.doc_string, new.doc_string))
    yield from metadata_changes("metadata", *(_entries(side.metadata_props) for side in (old, new)))


def _opset_changes(old: Any, new: Any) -> Iterator[FieldChange]:
    versions = [
        {imported.domain or "ai.onnx": int(imported.version) for imported in side.opset_import}
        for side in (old, new)
    ]
    for domain in sorted({**versions[0], **versions[1]}):
        what = f"opset {domain}"
        yield from field_changes((what, versions[0].get(domain), versions[1].get(domain)))


def _model_changes(old: ModelProto, new: ModelProto) -> Iterator[FieldChange]:
    yield from field_changes(("ir_version", old.ir_version, new.ir_version))
    yield from _opset_changes(old, new)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        yield from field_changes((name, getattr(old, name), getattr(new, name)))
    yield from metadata_changes("metadata", *(_entries(side.metadata_props) for side in (old, new)))
    yield from _repeated_change("training_info", old.training_info, new.training_info)
    first, second = old.graph, new.graph
    for name in ("name", "doc_string"):
        yield from field_changes((f"graph {name}", getattr(first, name), getattr(second, name)))
    sides = [_entries(graph.metadata_props) for graph in (first, second)]
    yield from metadata_changes("graph metadata", *sides)
    for name in ("value_info", "quantization_annotation"):
        yield from _repeated_change(f"graph {name}", getattr(first, name), getattr(second, name))
    constants = _inputs_with_values(old), _inputs_with_values(new)
    yield from field_changes(("graph inputs with initializers", *constants))


def _entries(entries: Iterable[Any]) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _inputs_with_values(proto: ModelProto) -> int:
    """How many inputs are no part of the contract, because initializers give their values."""
    values = {tensor.name for tensor in proto.graph.initializer}
    values |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    return sum(info.name in values for info in proto.graph.input)


def _repeated_change(what: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[FieldChange]:
    """Tell by their count that entries differ; single ones say little to a reader."""
    first, second = (
        Counter(entry.SerializeToString(deterministic=True) for entry in side)
        for side in (old, new)
    )
    if first != second:
        gone, come = (first - second).total(), (second - first).total()
        yield FieldChange(what, len(old), len(new), f"{gone} removed, {come} added")
