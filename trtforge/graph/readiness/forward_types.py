"""Types and dimensions that the inference over the whole model has not found, node by node."""

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

from trtforge.graph.dialect import export_node
from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.nodes import bodies, constant_values
from trtforge.graph.readiness.quantizing import MICROSOFT

_SMALL = 64
"""Constants of up to so many elements may be shapes, and are told to the inference."""

_LIKE_FIRST = ("BiasAdd", "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization")

_STAND_INS: dict[str, tuple[str, int]] = {"FusedConv": ("Conv", 3), "FusedGemm": ("Gemm", 3)}
"""Operators whose results are as those of a standard one, of so many of their inputs."""

_OWN_ATTRIBUTES = ("activation", "activation_params", "activation_alpha", "activation_beta")


def learn_types(editor: Editor) -> None:
    """Find out types and dimensions that are not known yet, node by node.

    Args:
        editor: of the graph; what is learnt is noted in its facts.
    """
    for node in editor.nodes():
        unknown = [tensor for tensor in node.outputs if tensor.name and _is_unknown(editor, tensor)]
        if not unknown or any(True for _ in bodies(node)):
            continue
        if node.domain == MICROSOFT:
            _learn_contrib(editor, node)
        else:
            _infer(editor, node, node.op, len(node.inputs))


def _is_unknown(editor: Editor, tensor: gs.Tensor) -> bool:
    return editor.dtype(tensor) is None or editor.dims(tensor) is None


def _learn(editor: Editor, tensor: gs.Tensor, dtype: Any, dims: Dims | None) -> None:
    known_dtype, known_dims = editor.dtype(tensor), editor.dims(tensor)
    editor.facts.learn(
        tensor,
        dtype if known_dtype is None else known_dtype,
        dims if known_dims is None else known_dims,
    )


def _learn_contrib(editor: Editor, node: gs.Node) -> None:
    first = node.inputs[0]
    if node.op in _LIKE_FIRST:
        for index in (0, 3):  # SkipLayerNormalization gives the sum, too
            if index < len(node.outputs):
                _learn(editor, node.outputs[index], editor.dtype(first), editor.dims(first))
    elif node.op in _STAND_INS:
        _infer(editor, node, *_STAND_INS[node.op])
    elif node.op in ("FusedMatMul", "TransposeMatMul", "DynamicQuantizeMatMul"):
        dims = _product(
            _turned(editor.dims(first), node.attrs.get("transA", 0)),
            _turned(editor.dims(node.inputs[1]), node.attrs.get("transB", 0)),
        )
        _learn(editor, node.outputs[0], editor.dtype(first) or editor.dtype(node.inputs[1]), dims)
    elif node.op == "EmbedLayerNormalization":
        words, ids = editor.dims(node.inputs[2]), editor.dims(first)
        dims = (*ids, words[-1]) if ids is not None and words else None
        for index in (0, 2):
            if index < len(node.outputs):
                _learn(editor, node.outputs[index], editor.dtype(node.inputs[2]), dims)
        if len(node.outputs) > 1 and ids:
            _learn(editor, node.outputs[1], np.int32, (ids[0],))
    elif node.op in ("Attention", "MultiHeadAttention"):
        _learn(editor, node.outputs[0], editor.dtype(first), _attended(editor, node))


def _attended(editor: Editor, node: gs.Node) -> Dims | None:
    source = editor.dims(node.inputs[0])
    if source is None or len(source) != 3:
        return None
    if node.op == "MultiHeadAttention":
        values = editor.dims(node.inputs[2]) if len(node.inputs) > 2 else None
        return None if values is None else (*source[:2], values[-1])
    weights, sizes = editor.dims(node.inputs[1]), node.attrs.get("qkv_hidden_sizes")
    if sizes:
        return (*source[:2], int(sizes[2]))
    last = weights[-1] if weights else None
    return (*source[:2], last // 3 if isinstance(last, int) else None)


def _turned(dims: Dims | None, turn: int) -> Dims | None:
    if dims is None or not turn or len(dims) < 2:
        return dims
    return (*dims[:-2], dims[-1], dims[-2])


def _product(left: Dims | None, right: Dims | None) -> Dims | None:
    """The dimensions of a MatMul; leading ones only where they need no broadcasting."""
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    if len(right) > len(left) or (len(right) == len(left) and right[:-2] != left[:-2]):
        return (None,) * (max(len(left), len(right)) - 2) + (left[-2], right[-1])
    if len(right) > 2 and len(right) < len(left):
        return (None,) * (len(left) - 2) + (left[-2], right[-1])
    return (*left[:-1], right[-1])


def _infer(editor: Editor, node: gs.Node, op: str, inputs: int) -> None:
    """Let onnx infer the results of one node from what is known of its inputs."""
    types: dict[str, TypeProto] = {}
    data: dict[str, TensorProto] = {}
    for tensor in node.inputs[:inputs]:
        if not tensor.name:
            continue
        dtype = editor.dtype(tensor)
        if dtype is None:
            return
        kind = int(helper.np_dtype_to_tensor_dtype(dtype))
        types[tensor.name] = helper.make_tensor_type_proto(kind, editor.dims(tensor))
        values = constant_values(tensor)
        if values is not None and values.size <= _SMALL and values.dtype.kind in "iu":
            data[tensor.name] = numpy_helper.from_array(values, tensor.name)
    try:
        schema = onnx.defs.get_schema(op, editor.opset, "")
        proto = _standing_in(node, op, inputs)
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception:  # onnx raises InferenceError, SchemaError, ValueError: then nothing is learnt
        return
    for tensor in node.outputs:
        if tensor.name in found and found[tensor.name].HasField("tensor_type"):
            dtype, dims = _read(editor, found[tensor.name])
            _learn(editor, tensor, dtype, dims)


def _standing_in(node: gs.Node, op: str, inputs: int) -> NodeProto:
    proto = NodeProto()
    export_node(node, proto)
    if proto.op_type != op:
        kept = [a for a in proto.attribute if a.name not in _OWN_ATTRIBUTES]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        del proto.input[inputs:]
        proto.op_type, proto.domain = op, ""
    return proto


def _read(editor: Editor, found: TypeProto) -> tuple[Any, Dims | None]:
    tensor = found.tensor_type
    dtype = editor.facts.numpy(int(tensor.elem_type))
    if not tensor.HasField("shape"):
        return dtype, None
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        dims.append(int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or None))
    return dtype, tuple(dims)
