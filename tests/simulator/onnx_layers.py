"""From an ONNX graph to layers, in the form in which NVIDIA's parser shows them.

The form was seen with the parser of TensorRT-RTX 1.7: one layer per node, constants as layers of
their own without metadata, a convolution holding its weights, Gemm as a product and a sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_OPERATORS = {
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "ACTIVATION": "Relu Sigmoid Tanh Clip LeakyRelu Elu Selu HardSigmoid Softplus Softsign Gelu "
    "ThresholdedRelu HardSwish Celu Mish",
    "POOLING": "MaxPool AveragePool LpPool",
    "REDUCE": "GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd "
    "ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp",
    "ELEMENTWISE": "Add Sub Mul Div Min Max Pow And Or Xor Equal Less Greater LessOrEqual "
    "GreaterOrEqual Mod Sum Mean",
    "UNARY": "Exp Log Sqrt Reciprocal Neg Abs Sin Cos Tan Erf Not Floor Ceil Round Sign IsNaN "
    "IsInf",
    "MATRIX_MULTIPLY": "MatMul Gemm",
    "SOFTMAX": "Softmax LogSoftmax",
    "SHUFFLE": "Reshape Flatten Transpose Expand Tile",
    "GATHER": "Gather GatherElements GatherND",
    "SLICE": "Slice Pad Split",
    "NORMALIZATION": "LayerNormalization InstanceNormalization GroupNormalization RMSNormalization",
    "IDENTITY": "Identity Dropout",
    "SCALE": "BatchNormalization",
    "EINSUM": "Einsum",
    "CONCATENATION": "Concat",
    "SQUEEZE": "Squeeze",
    "UNSQUEEZE": "Unsqueeze",
    "CAST": "Cast",
    "SHAPE": "Shape",
    "SELECT": "Where",
    "TOPK": "TopK",
    "NON_ZERO": "NonZero",
    "KV_CACHE_UPDATE": "TensorScatter",
    "QUANTIZE": "QuantizeLinear",
    "DEQUANTIZE": "DequantizeLinear",
    "RESIZE": "Resize",
    "PARAMETRIC_RELU": "PRelu",
    "ATTENTION_INPUT": "Attention",
    "CONSTANT": "Constant",
}
LAYER_TYPES = {name: kind for kind, names in _OPERATORS.items() for name in names.split()}
"""Operator -> LayerType of its layer; the others are not supported by the simulator."""

DATA_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.DOUBLE: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.INT4: "INT4",
    TensorProto.FLOAT4E2M1: "FP4",
}
"""ONNX element type -> member of DataType; the others cannot be converted."""

_HOLDS_WEIGHTS = ("CONVOLUTION", "DECONVOLUTION")
_FOLDED = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Squeeze": (1,), "Unsqueeze": (1,),
    "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3), "Resize": (1, 2, 3), "Split": (1,), "Clip": (1, 2),
    "BatchNormalization": (1, 2, 3, 4), "ReduceMean": (1,), "ReduceSum": (1,), "TopK": (1,),
}  # fmt: skip
_REDUCES = {"Mean": "AVG", "Sum": "SUM", "Max": "MAX", "Min": "MIN", "Prod": "PROD"}


@dataclass
class Value:
    """A tensor: its name, DataType and shape (-1 where dynamic, None where not known)."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass
class Layer:
    """A layer before it is an ILayer."""

    kind: str
    name: str
    node: onnx.NodeProto | None
    inputs: list[str | None]
    outputs: list[str]
    weights: list[Any] = field(default_factory=list)

    @property
    def metadata(self) -> str:
        return f"[ONNX Layer: {self.node.name}]" if self.node is not None else ""

    @property
    def mode(self) -> str:
        """Of pooling, resizing and reducing layers."""
        operator = "" if self.node is None else self.node.op_type
        if self.kind == "POOLING":
            return "MAX" if operator == "MaxPool" else "AVERAGE"
        if self.kind == "RESIZE":
            given = attributes(self.node).get("mode", b"nearest")
            return "LINEAR" if given == b"linear" else "NEAREST"
        found = [mode for word, mode in _REDUCES.items() if word in operator]
        return found[0] if found else "AVG" if "Average" in operator else "SUM"


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node, by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def load(path: Path) -> onnx.ModelProto:
    """Read a model with its external data, its functions inlined."""
    model = onnx.load(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model


def infer(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    known: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Value]:
    """Types and shapes of all tensors.

    Args:
        model: it.
        shapes: of inputs, in place of the model's.
        known: values of inputs that decide shapes.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    for name, array in (known or {}).items():
        skeleton.graph.initializer.append(numpy_helper.from_array(array, name))
    for held in skeleton.graph.input:
        if held.name in shapes:
            held.type.tensor_type.shape.Clear()
            for size in shapes[held.name]:
                dim = held.type.tensor_type.shape.dim.add()
                if size >= 0:
                    dim.dim_value = size
    for held in skeleton.graph.output if shapes else ():
        held.type.tensor_type.ClearField("shape")
    del skeleton.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    graph = inferred.graph
    values = {item.name: _value(item) for item in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        kind = DATA_TYPES.get(tensor.data_type, "FLOAT")
        values[tensor.name] = Value(tensor.name, kind, tuple(tensor.dims))
    return values


def _value(info: onnx.ValueInfoProto) -> Value:
    held = info.type.tensor_type
    shape = None
    if held.HasField("shape"):
        dims = held.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
    return Value(info.name, DATA_TYPES.get(held.elem_type, "FLOAT"), shape)


def layers_of(model: onnx.ModelProto, values: dict[str, Value]) -> Iterator[Layer]:
    """Yield the layers of a model in order; tensors that layers add are put into `values`."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made: set[str] = set()
    for layer in _with_operands(model, values):
        operands: list[str | None] = []
        folded = _FOLDED.get(layer.node.op_type, ()) if layer.node is not None else ()
        for index, name in enumerate(layer.inputs):
            if layer.kind in _HOLDS_WEIGHTS and index > 0 and name in constants:
                layer.weights.append(numpy_helper.to_array(constants[name]))
            elif not (name in constants and index in folded):
                if name in constants and name not in made:
                    made.add(name)
                    yield Layer("CONSTANT", name, None, [], [name])
                operands.append(name or None)
        layer.inputs = operands
        yield layer


def _with_operands(model: onnx.ModelProto, values: dict[str, Value]) -> Iterator[Layer]:
    """Yield a layer per node, with all that the node takes; Gemm is a product and a sum."""
    for node in model.graph.node:
        kind, inputs = (LAYER_TYPES[node.op_type], list(node.input))
        outputs = [name for name in node.output if name]
        if node.op_type == "Gemm" and len(inputs) == 3:
            product = f"{node.name}_output"
            result = values[outputs[0]]
            values[product] = Value(product, result.dtype, result.shape)
            yield Layer(kind, node.name, node, inputs[:2], [product])
            kind, inputs = ("ELEMENTWISE", [product, inputs[2]])
        yield Layer(kind, node.name or outputs[0], node, inputs, outputs)


def aliased_input(model: onnx.ModelProto, output: str) -> str | None:
    """The input in whose memory an output is: a cache of keys or values that is written to."""
    inputs = {held.name for held in model.graph.input}
    for node in model.graph.node:
        is_cache = node.op_type == "TensorScatter" and node.input[0] in inputs
        if is_cache and output == node.output[0]:
            return str(node.input[0])
    return None


def decides_shapes(model: onnx.ModelProto, name: str) -> bool:
    """Whether an input's values, and not its shape, decide the shape of something."""
    places = {
        "Reshape": [1], "Expand": [1], "Tile": [1], "ConstantOfShape": [0], "TopK": [1],
        "Slice": [1, 2, 4], "Resize": [3],
    }  # fmt: skip
    return any(
        place < len(node.input) and node.input[place] == name
        for node in model.graph.node
        for place in places.get(node.op_type, [])
    )
