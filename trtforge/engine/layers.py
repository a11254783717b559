"""The parsed network as plain data: the documented view of what the builder was given."""

import math
import re
from collections.abc import Mapping
from typing import Any

# Names as numpy and ml_dtypes write them; keys are members of DataType.
TYPE_NAMES = {
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
_KERNEL_INPUT = 1  # Source: TensorRT API, IConvolutionLayer.setInput
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
    out; shape None where the rank is not known). A convolution that holds its kernel itself also
    has weights (dtype, count): the kernel's, a bias is not told. Pooling, resizing and reducing
    layers have their mode, e.g. MAX.

    Args:
        trt: the module that the network comes from.
        network: the parsed network.
    """
    tensors: dict[str, dict[str, Any]] = {}
    return tuple(_layer(trt, network.get_layer(i), tensors) for i in range(network.num_layers))


def _layer(trt: Any, layer: Any, tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    facts = {
        "name": layer.name,
        "type": layer.type.name,
        "onnx_nodes": onnx_nodes(layer.metadata),
        "inputs": [None if tensor is None else _known(tensor, tensors) for tensor in inputs],
        "outputs": [_known(tensor, tensors) for tensor in outputs if tensor is not None],
    }
    kind = facts["type"]
    if kind in _CONVOLUTIONS and len(inputs) <= _KERNEL_INPUT:
        shape = facts["inputs"][0]["shape"]
        if shape and shape[1] > 0:  # with channels that are dynamic the kernel's size is not told
            facts["weights"] = [_kernel(trt, layer, facts)]
    if kind in _MODES:
        form, attribute = _MODES[kind]
        layer.__class__ = getattr(trt, form)  # the bindings hand out the base class
        facts["mode"] = getattr(layer, attribute).name
    return facts


def _known(tensor: Any, tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ask for a tensor's facts once: most are a result here and an input there."""
    name = tensor.name
    if name not in tensors:
        tensors[name] = tensor_facts(tensor)
    return tensors[name]


def _kernel(trt: Any, layer: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Type and number of the weights that a convolution holds itself.

    Not by `layer.kernel`: that loads NumPy, a tenth of the time and memory of a small model's
    build. A network is refused unless kernel and input have one type (TensorRT-RTX 1.7.1:
    "`input` and `kernel` must be of same type").
    Source: ONNX Conv and ConvTranspose, W is (M, C / group, ...) and (C, M / group, ...).
    """
    convolution = layer
    convolution.__class__ = getattr(trt, _CONVOLUTIONS[facts["type"]])
    (image,) = facts["inputs"]
    channels = image["shape"][1] // convolution.num_groups
    return {
        "dtype": image["dtype"],
        "count": convolution.num_output_maps * channels * math.prod(convolution.kernel_size_nd),
    }


def onnx_nodes(metadata: str) -> list[str]:
    """The ONNX nodes named in a layer's metadata, e.g. "[ONNX Layer: conv1]"."""
    return _ONNX_LAYER.findall(metadata)


def tensor_facts(tensor: Any) -> dict[str, Any]:
    """Name, dtype and shape of an ITensor."""
    return {
        "name": tensor.name,
        "dtype": TYPE_NAMES.get(tensor.dtype.name, tensor.dtype.name.lower()),
        "shape": _shape(tensor),
    }


def _shape(tensor: Any) -> list[int] | None:
    try:
        return list(tensor.shape)
    except ValueError:  # a shape of unknown rank has length -1
        return None
