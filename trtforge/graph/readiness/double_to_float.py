"""FP64, which TensorRT does not compute in, becomes FP32."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import bodies, constant_values, is_standard, node_label

_TYPE_ATTRIBUTES = ("to", "dtype")


class DoubleToFloat:
    """Compute in FP32 what a graph computes in FP64 between its inputs and outputs.

    Matches: graphs in which FP64 begins at constants, Casts and the like, and ends at Casts
    (https://onnx.ai/onnx/operators/onnx__Cast.html, any opset).
    Rewrites to: the same nodes on FP32. TensorRT's parser does so in any case, and without a word
    (TensorRT-RTX 1.7.1); here it is seen, and the proof compares with the FP64 original.
    Refuses when: an input or output of the graph is FP64, or FP64 goes into or comes out of a
    body, the type of a result is not known, or a constant does not fit FP32.
    """

    name = "double-to-float"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        concerned = [node for node in editor.nodes() if _touches(editor, node)]
        if not concerned:
            return
        for node in concerned:
            if (why := _objection(editor, node)) is not None:
                editor.refuse(node, f"FP64 stays: {why}")
                return
        replaced: dict[int, gs.Tensor] = {}
        for node in concerned:
            _narrow(editor, node, replaced)
            editor.match(node, "computed in FP32 in place of FP64")


def _is_double(editor: Editor, tensor: gs.Tensor) -> bool:
    return bool(tensor.name) and editor.dtype(tensor) == np.float64


def _touches(editor: Editor, node: gs.Node) -> bool:
    return (
        any(_is_double(editor, tensor) for tensor in (*node.inputs, *node.outputs))
        or any(_is_double(editor, tensor) for tensor in _outer(node))
        or any(_double_attributes(node))
    )


def _outer(node: gs.Node) -> Iterator[gs.Tensor]:
    """The tensors that a node's bodies read and give back."""
    for body in bodies(node):
        yield from body.outputs
        for inner in body.nodes:
            yield from inner.inputs


def _double_attributes(node: gs.Node) -> Iterator[str]:
    for name, value in node.attrs.items():
        if isinstance(value, gs.Constant):
            is_double = value.dtype == np.float64
        else:
            is_double = name in _TYPE_ATTRIBUTES and value == TensorProto.DOUBLE
        if is_double:
            yield name


def _objection(editor: Editor, node: gs.Node) -> str | None:
    label = node_label(node)
    if node.op == "BitCast":
        return f"'{label}' reads its bits"
    if any(True for _ in bodies(node)):
        return f"the bodies of '{label}' compute in it"
    if not is_standard(node):
        return f"{node.op} '{label}' of {node.domain} computes in it"
    for tensor in node.inputs:
        if not _is_double(editor, tensor):
            continue
        values = constant_values(tensor)
        if values is None and editor.producer(tensor) is None:
            return f"'{tensor.name}' comes from outside of the graph"
        if values is not None and not _fits(values):
            return f"a value of '{tensor.name}' does not fit FP32"
    for tensor in node.outputs:
        if not tensor.name:
            continue
        if editor.dtype(tensor) is None:
            return f"the type of '{tensor.name}' is not known"
        if _is_double(editor, tensor) and editor.is_kept(tensor):
            return f"'{tensor.name}' is an output"
        if _is_double(editor, tensor) and not editor.is_local(tensor):
            return f"a body reads '{tensor.name}'"
    return None


def _fits(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return not finite.size or float(np.abs(finite).max()) <= float(np.finfo(np.float32).max)


def _narrow(editor: Editor, node: gs.Node, replaced: dict[int, gs.Tensor]) -> None:
    for index, tensor in enumerate(node.inputs):
        if not _is_double(editor, tensor):
            continue
        values = constant_values(tensor)
        if values is not None:
            if id(tensor) not in replaced:
                narrow = values.astype(np.float32)
                replaced[id(tensor)] = editor.constant(f"{tensor.name}_float", narrow)
            editor.set_input(node, index, replaced[id(tensor)])
    for name in list(_double_attributes(node)):
        editor.set_attribute(node, name, _narrow_attribute(node.attrs[name]))
    for index, tensor in enumerate(node.outputs):
        if _is_double(editor, tensor):
            new = editor.variable(f"{tensor.name}_float", np.float32, editor.dims(tensor))
            editor.replace_uses(tensor, new)
            editor.set_output(node, index, new)


def _narrow_attribute(value: Any) -> Any:
    if not isinstance(value, gs.Constant):
        return TensorProto.FLOAT
    values = constant_values(value)
    assert values is not None
    return gs.Constant(value.name, values.astype(np.float32))
