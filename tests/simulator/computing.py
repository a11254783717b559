"""What an engine computes: its ONNX graph, by ONNX Runtime on the CPU, with arrays of any type."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

_BF16, _FP32 = (TensorProto.BFLOAT16, TensorProto.FLOAT)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session for the model; what is BF16 inside is computed in FP32, as the CPU has no BF16."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = _widened(model).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def computed(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, Any]
) -> list[Any]:
    """Compute outputs; numpy's own interface of ONNX Runtime has no BF16 and no FP8."""
    given = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            _bits(array), helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        for name, array in feeds.items()
    }
    return [_array(value) for value in session.run_with_ort_values(list(outputs), given)]


def _bits(array: Any) -> Any:
    return array if array.dtype.kind in "biuf" else array.view(f"u{array.dtype.itemsize}")


def _array(value: Any) -> Any:
    kind = helper.tensor_dtype_to_np_dtype(value.element_type())
    shape = tuple(value.shape())
    size = math.prod(shape) * kind.itemsize
    held = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(held, kind).reshape(shape)


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with FP32 in place of BF16, but for its inputs and outputs."""
    graph = model.graph
    ends = {
        held.name
        for held in (*graph.input, *graph.output)
        if held.type.tensor_type.elem_type == _BF16
    }
    if not ends and not any(_is_bf16(node) for node in graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    nodes = []
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [f"{name}/wide" if name in ends else name for name in side]
        nodes.append(node)
        if _is_bf16(node):  # rounded there, and wide again
            result = node.output[0]
            node.output[0] = f"{result}/narrow"
            nodes.append(helper.make_node("Cast", node.output, [result], to=_FP32))
    starts = [
        helper.make_node("Cast", [held.name], [f"{held.name}/wide"], to=_FP32)
        for held in graph.input
        if held.name in ends
    ]
    stops = [
        helper.make_node("Cast", [f"{held.name}/wide"], [held.name], to=_BF16)
        for held in graph.output
        if held.name in ends
    ]
    whole = [*starts, *nodes, *stops]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in whole]
    del graph.node[:]
    graph.node.extend(copies)
    return made


def _is_bf16(node: onnx.NodeProto) -> bool:
    return any(item.name in ("to", "output_dtype") and item.i == _BF16 for item in node.attribute)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == _BF16:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
