"""The parsed network as plain data: the documented view of what the builder was given."""

import re
from typing import Any

# Names as numpy and ml_dtypes write them; keys are members of DataType.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
    "INT8": "int8",
    "INT4": "int4",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_CONVOLUTIONS = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}
_MODES = {
    "POOLING": ("IPoolingLayer", "type"),
    "RESIZE": ("IResizeLayer", "resize_mode"),
    "REDUCE": ("IReduceLayer", "op"),
}
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=[\s\x1e]*(?:\[ONNX Layer: |$))")


def describe(trt: Any, network: Any) -> tuple[dict[str, Any], ...]:
    """Return every layer of an INetworkDefinition, in order.

    Each has: name, type (a LayerType's name), onnx_nodes (names of the ONNX nodes it came from),
    inputs and outputs (name, dtype, shape with -1 for dynamic dimensions; None for an input left
    out; shape None where the rank is not known). A convolution that holds its weights itself also
    has weights (dtype, count), the kernel first; pooling, resizing and reducing layers have their
    mode, e.g. MAX.

    Args:
        trt: the module that the network comes from.
        network: the parsed network.
    """
    return tuple(_layer(trt, network.get_layer(index)) for index in range(network.num_layers))


def _layer(trt: Any, layer: Any) -> dict[str, Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    facts = {
        "name": layer.name,
        "type": layer.type.name,
        "onnx_nodes": onnx_nodes(layer.metadata),
        "inputs": [None if tensor is None else tensor_facts(tensor) for tensor in inputs],
        "outputs": [tensor_facts(tensor) for tensor in outputs if tensor is not None],
    }
    kind = facts["type"]
    if weights := _own_weights(trt, layer, kind):
        facts["weights"] = weights
    if kind in _MODES:
        form, attribute = _MODES[kind]
        layer.__class__ = getattr(trt, form)  # the bindings hand out the base class
        facts["mode"] = getattr(layer, attribute).name
    return facts


def _own_weights(trt: Any, layer: Any, kind: str) -> list[dict[str, Any]]:
    """Type and number of a convolution's weights; views of what the parser holds, never read."""
    if kind not in _CONVOLUTIONS:
        return []
    convolution = layer
    convolution.__class__ = getattr(trt, _CONVOLUTIONS[kind])
    return [
        {"dtype": dtype_of(held.dtype), "count": int(held.size)}
        for held in (convolution.kernel, convolution.bias)
        if held is not None and held.size
    ]


def dtype_of(dtype: Any) -> str:
    """The name of a type that comes as numpy's, or as TensorRT's where numpy has none."""
    name = getattr(dtype, "name", str(dtype))
    return _DTYPES.get(name, name)


def onnx_nodes(metadata: str) -> list[str]:
    """The ONNX nodes named in a layer's metadata, e.g. "[ONNX Layer: conv1]"."""
    return _ONNX_LAYER.findall(metadata)


def tensor_facts(tensor: Any) -> dict[str, Any]:
    """Name, dtype and shape of an ITensor."""
    return {
        "name": tensor.name,
        "dtype": _DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower()),
        "shape": _shape(tensor),
    }


def _shape(tensor: Any) -> list[int] | None:
    try:
        return list(tensor.shape)
    except ValueError:  # a shape of unknown rank has length -1
        return None
