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
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=[\s\x1e]*(?:\[ONNX Layer: |$))")


def describe(network: Any) -> tuple[dict[str, Any], ...]:
    """Return every layer of an INetworkDefinition, in order.

    Each has: name, type (a LayerType's name), onnx_nodes (names of the ONNX nodes it came from),
    inputs and outputs (name, dtype, shape with -1 for dynamic dimensions; None for an input left
    out; shape None where the rank is not known).
    """
    return tuple(_layer(network.get_layer(index)) for index in range(network.num_layers))


def _layer(layer: Any) -> dict[str, Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    return {
        "name": layer.name,
        "type": layer.type.name,
        "onnx_nodes": onnx_nodes(layer.metadata),
        "inputs": [None if tensor is None else tensor_facts(tensor) for tensor in inputs],
        "outputs": [tensor_facts(tensor) for tensor in outputs if tensor is not None],
    }


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
