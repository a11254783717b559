"""The typed graph as an FP32 graph that rounds after every operator: exact FP16 and BF16 on a CPU.

ONNX Runtime's CPU kernels compute FP16 graphs in FP32 and drop the casts between operators, which
hides overflow and accumulated rounding. Here each FP16 or BF16 operator becomes its FP32 form
followed by a cast down and a cast up, so its result is the correctly rounded one.
"""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.graph.model import Model
from trtforge.precision.names import Names
from trtforge.precision.opgroups import CONTROL_FLOW, MOVERS
from trtforge.precision.typeinfo import element_types, infer

_NARROW: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_TYPE_ATTRIBUTES = ("dtype", "output_dtype", "output_datatype", "to")


def emulate(model: Model) -> Model:
    """Make the FP32 twin of a typed model.

    Constants keep their rounded values; Q/DQ nodes stay, their scales become FP32 with the same
    values; operators that only move values get no casts, since they round nothing. Bodies of If,
    Loop and Scan are treated alike. The graph's inputs and outputs keep their types.

    Args:
        model: with FP16 or BF16 tensors; others come back unchanged.

    Returns:
        A model for ONNX Runtime, to be run with optimizations off or basic.
    """
    types = _all_types(model)
    if not any(kind in _NARROW for kind in types.values()):
        return model
    graph = model.to_graph()
    names = Names(graph)
    _Emulator(types, names).rewrite(graph, is_main=True)
    return model.with_graph(graph)


def _all_types(model: Model) -> dict[str, int]:
    """Element types of the main graph and of all bodies (names are unique across scopes)."""
    types = element_types(model.proto)
    inferred = infer(model.proto)
    pending = [inferred.graph]
    while pending:
        scope = pending.pop()
        for value in (*scope.input, *scope.output, *scope.value_info):
            if value.type.tensor_type.elem_type:
                types.setdefault(value.name, value.type.tensor_type.elem_type)
        for weight in scope.initializer:
            types.setdefault(weight.name, weight.data_type)
        for node in scope.node:
            pending.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
    return types


class _Emulator:
    def __init__(self, types: dict[str, int], names: Names) -> None:
        self._types = types
        self._names = names

    def rewrite(self, graph: gs.Graph, *, is_main: bool) -> None:
        """Turn one graph, and its bodies, into FP32."""
        nodes: list[gs.Node] = []
        if is_main:
            for tensor in list(graph.inputs):
                nodes.extend(self._widen_input(tensor))
        outputs = {tensor.name for tensor in graph.outputs} if is_main else set()
        for node in list(graph.nodes):
            nodes.extend(self._node(node, outputs))
        for tensor in (*graph.inputs, *graph.outputs):
            if not is_main and self._narrow(tensor):
                tensor.dtype = np.dtype(np.float32)
        graph.nodes.clear()
        graph.nodes.extend(nodes)

    def _narrow(self, tensor: gs.Tensor) -> np.dtype[np.generic] | None:
        return _NARROW.get(self._types.get(tensor.name, 0)) if tensor.name else None

    def _widen_input(self, tensor: gs.Variable) -> Iterator[gs.Node]:
        if self._narrow(tensor) is None:
            return
        wide = self._fresh(tensor, "fp32", np.dtype(np.float32))
        for reader in list(tensor.outputs):
            for index, source in enumerate(reader.inputs):
                if source is tensor:
                    reader.inputs[index] = wide
        yield self._cast(tensor, wide, TensorProto.FLOAT)

    def _node(self, node: gs.Node, outputs: set[str]) -> Iterator[gs.Node]:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                self.rewrite(value, is_main=False)
        for tensor in node.inputs:
            self._widen_constant(tensor)
        kinds = [self._narrow(tensor) for tensor in node.outputs]
        self._widen_attributes(node)
        yield node
        for index, kind in enumerate(kinds):
            tensor = node.outputs[index]
            if kind is not None:
                yield from self._round(node, index, tensor, tensor.name in outputs)

    def _round(
        self, node: gs.Node, index: int, tensor: gs.Variable, is_output: bool
    ) -> Iterator[gs.Node]:
        """Cast a result down and up again; its name stays with what the readers see."""
        narrow = self._types[tensor.name]
        rounds_nothing = node.op in MOVERS | CONTROL_FLOW and not is_output
        if rounds_nothing:
            tensor.dtype = np.dtype(np.float32)
            return
        exact = self._fresh(tensor, "exact", np.dtype(np.float32))
        node.outputs[index] = exact
        if is_output:
            yield from self._rounded_output(tensor, exact, narrow)
            return
        rounded = self._fresh(tensor, "rounded", _NARROW[narrow])
        tensor.dtype = np.dtype(np.float32)
        yield self._cast(exact, rounded, narrow)
        yield self._cast(rounded, tensor, TensorProto.FLOAT)

    def _rounded_output(
        self, output: gs.Variable, exact: gs.Variable, narrow: int
    ) -> Iterator[gs.Node]:
        wide = self._fresh(output, "fp32", np.dtype(np.float32))
        for reader in list(output.outputs):
            for index, source in enumerate(reader.inputs):
                if source is output:
                    reader.inputs[index] = wide
        yield self._cast(exact, output, narrow)
        yield self._cast(output, wide, TensorProto.FLOAT)

    def _widen_constant(self, tensor: gs.Tensor) -> None:
        # GraphSurgeon gives BF16 either as ONNX's number or as ml_dtypes' type.
        if isinstance(tensor, gs.Constant) and tensor.dtype in (*_NARROW, *_NARROW.values()):
            tensor.values = tensor.values.astype(np.float32)

    def _widen_attributes(self, node: gs.Node) -> None:
        if isinstance(node.attrs.get("value"), gs.Constant):
            self._widen_constant(node.attrs["value"])
        for name in _TYPE_ATTRIBUTES:
            if node.attrs.get(name) in _NARROW:
                node.attrs[name] = TensorProto.FLOAT

    def _fresh(self, tensor: gs.Tensor, suffix: str, dtype: np.dtype[np.generic]) -> gs.Variable:
        return gs.Variable(self._names.fresh(f"{tensor.name}_{suffix}"), dtype, tensor.shape)

    def _cast(self, source: gs.Tensor, result: gs.Tensor, to: int) -> gs.Node:
        name = self._names.fresh_node(f"{result.name}_Cast")
        return gs.Node("Cast", name, {"to": int(to)}, [source], [result])
