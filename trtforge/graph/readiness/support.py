"""The support report: what TensorRT would not take of a model, node by node, before any build."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from trtforge.errors import GraphError
from trtforge.graph.facts import inferred_graph
from trtforge.graph.model import Model
from trtforge.graph.readiness import operators
from trtforge.graph.readiness.quantizing import MICROSOFT
from trtforge.graph.readiness.rules import NodeView, objections, type_objection
from trtforge.graph.weights import tensor_array

TARGETS = ("tensorrt_rtx", "tensorrt")
"""The backends whose parser is known here.

TensorRT 11's parser is that of TensorRT-RTX 1.7, but it takes plugins: an operator outside of
ai.onnx may be one there.
"""

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class SupportProblem:
    """One thing that a target does not take.

    Attributes:
        node: the node's name (of its first output when it has none), with those of the nodes
            whose bodies it lies in before it; the tensor, where no node is concerned.
        operator: its operator, with the domain unless that is ai.onnx; "" for a tensor.
        reason: why it is not taken.
        remedy: what to do about it.
    """

    node: str
    operator: str
    reason: str
    remedy: str

    def as_json(self) -> dict[str, str]:
        """Return plain JSON data."""
        return dict(vars(self))

    def __str__(self) -> str:
        operator = f"{self.operator} " if self.operator else ""
        return f"{operator}'{self.node}': {self.reason}; {self.remedy}"


def support_problems(model: Model, target: str) -> tuple[SupportProblem, ...]:
    """Return what a target does not take of a model, in the order of the nodes.

    Args:
        model: as it would be handed to the target's parser.
        target: a backend; those that are not in `TARGETS` take everything.

    Returns:
        One problem per node and reason; empty when none is known. What is not known here is
        still found by the parser itself.
    """
    if target not in TARGETS:
        return ()
    return tuple(_Report(model, target).problems())


def interface_problems(model: Model, target: str) -> tuple[SupportProblem, ...]:
    """Return what a target does not take of a model's inputs and outputs, which no pass changes."""
    if target not in TARGETS:
        return ()
    return tuple(_Report(model, target).interface())


@dataclass
class _Scope:
    """The tensors that a graph sees."""

    types: dict[str, int] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    producers: dict[str, NodeProto] = field(default_factory=dict)


class _Report:
    def __init__(self, model: Model, target: str) -> None:
        self._model, self._target = model, target
        self._functions = {(f.domain, f.name): f for f in model.proto.functions}
        self._opset = model.opset
        self._fed = {spec.name for spec in model.contract.inputs}
        self._outputs = {spec.name for spec in model.contract.outputs}

    def problems(self) -> Iterator[SupportProblem]:
        yield from self.interface()
        graph = self._model.proto.graph
        for tensor in graph.initializer:
            if (found := type_objection(tensor.data_type, tensor.name)) is not None:
                yield SupportProblem(tensor.name, "", *found)
        try:
            inferred = inferred_graph(self._model.proto, self._model.files)
        except GraphError:
            inferred = graph
        yield from self._graph(graph, inferred, _Scope(), "")

    def interface(self) -> Iterator[SupportProblem]:
        graph = self._model.proto.graph
        sides = (("input", graph.input), ("output", graph.output))
        for side, infos in sides:
            for info in infos:
                if not info.type.HasField("tensor_type"):
                    reason = f"the {side} is no tensor"
                    yield SupportProblem(info.name, "", reason, "export it as a tensor")
                    continue
                data_type = info.type.tensor_type.elem_type
                if data_type == TensorProto.DOUBLE:
                    reason = f"the {side} is FP64, and the engine would take it for FP32"
                    way = "from" if side == "output" else "to"
                    remedy = f"declare it as FP32, with a Cast {way} FP64 inside the model"
                    yield SupportProblem(info.name, "", reason, remedy)
                elif (found := type_objection(data_type, info.name)) is not None:
                    yield SupportProblem(info.name, "", *found)

    def _graph(
        self, graph: GraphProto, inferred: GraphProto, outer: _Scope, path: str
    ) -> Iterator[SupportProblem]:
        scope = _Scope(
            {**outer.types, **_types(inferred)},
            {**outer.constants, **{tensor.name: tensor for tensor in graph.initializer}},
            outer.producers | {name: node for node in graph.node for name in node.output if name},
        )
        with_shapes = list(inferred.node)
        for index, node in enumerate(graph.node):
            label = path + _label(node)
            yield from self._node(node, scope, label)
            known = with_shapes[index] if index < len(with_shapes) else node
            for attribute, other in zip(node.attribute, known.attribute, strict=False):
                if attribute.type == AttributeProto.GRAPH:
                    inner = f"{label} ({attribute.name}) / "
                    yield from self._graph(attribute.g, other.g, scope, inner)

    def _node(self, node: NodeProto, scope: _Scope, label: str) -> Iterator[SupportProblem]:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        why = self._operator_objection(node)
        if why is not None:
            yield SupportProblem(label, operator, *why)
            return
        if node.domain not in _STANDARD and node.domain != MICROSOFT:
            return
        view = NodeView(
            node,
            self._opset,
            lambda name: scope.types.get(name, TensorProto.UNDEFINED),
            lambda name: self._constant(name, scope),
            lambda name: name in self._fed,
            lambda name: name in self._outputs,
        )
        said = set()
        for reason, remedy in (*objections(view), *_result_types(view)):
            if reason not in said:
                said.add(reason)
                yield SupportProblem(label, operator, reason, remedy)

    def _operator_objection(self, node: NodeProto) -> tuple[str, str] | None:
        name = node.op_type
        if (node.domain, name) in self._functions or name in operators.NAMED:
            return None
        if node.domain in _STANDARD:
            if name in operators.STANDARD:
                return None
            if name in operators.PLUGINS:
                if self._target != "tensorrt_rtx":
                    return None
                reason = "TensorRT-RTX has no plugin for it"
                return reason, operators.REMEDIES.get(name, operators.DEFAULT_REMEDY)
            remedy = operators.REMEDIES.get(name, operators.DEFAULT_REMEDY)
            return "TensorRT does not take this operator", remedy
        if node.domain == MICROSOFT:
            if name in operators.CONTRIB:
                return None
            remedy = (
                "write it with standard operators, as the readiness passes do for the usual ones"
            )
            return "it is ONNX Runtime's own operator, which TensorRT does not take", remedy
        if self._target != "tensorrt_rtx":
            return None  # it may be a plugin
        remedy = (
            "write it with standard operators or as an ONNX function: TensorRT-RTX has no plugins"
        )
        return "the operator is neither ONNX's nor one that TensorRT knows", remedy

    def _constant(self, name: str, scope: _Scope) -> np.ndarray | None:
        tensor = scope.constants.get(name)
        if tensor is None:
            node = scope.producers.get(name)
            if node is None or node.op_type != "Constant":
                return None
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is None:
            return None
        try:
            return tensor_array(tensor, self._model.files)
        except GraphError:
            return None


def _types(graph: GraphProto) -> Mapping[str, int]:
    infos = (*graph.value_info, *graph.output, *graph.input)
    declared = {info.name: info.type.tensor_type.elem_type for info in infos}
    return declared | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _label(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), node.op_type)


def _result_types(view: NodeView) -> Iterable[tuple[str, str]]:
    if view.node.op_type in ("Cast", "QuantizeLinear"):
        return  # their rules speak of the type
    for name in view.node.output:
        if name and (found := type_objection(view.type_of(name), name)) is not None:
            yield found
            return
